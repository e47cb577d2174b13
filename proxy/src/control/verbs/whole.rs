//! Runs that advance themselves: switchover, failover, drill.
//!
//! What blocks is found before a run begins, so that a move that is refused leaves none behind.

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::Call;
use writefence_admin::api::{
    DrillRequest, FailoverRequest, Run, RunKind, RunState, Step, SwitchoverRequest, Verb,
};
use writefence_admin::runbook::{Fact, RunFacts, Started, steps_of};

use super::super::desk::Desk;
use super::super::preflight;
use super::super::steps::Asked;
use super::super::work::{Job, launch};
use super::way::again;
use super::{
    Verdict, begin, compared, destination, is_open, make_room, make_way, noted, shown, started,
};

pub(crate) async fn switchover(
    desk: &Arc<Desk>,
    call: Call,
    ask: SwitchoverRequest,
) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if is_repeat(live.as_ref(), RunKind::Switchover, &ask.to) {
        return shown(desk);
    }
    if let Some(done) = is_done(desk, RunKind::Switchover, &ask.to, &ask.reason) {
        return Ok(done);
    }
    let to = destination(desk, &ask.to)?;
    make_room(desk, live).await?;
    is_open(desk)?;
    let from = desk.accepted();
    let warm = desk.servers.warm(&[from.clone(), to.clone()]).await;
    warm.map_err(|error| match desk.servers.seen(&from) {
        Some(seen) if seen.known().is_some() => error,
        Some(_) | None => error.hint(format!(
            "if {from} is gone: `writefencectl failover --to {to} --reason ID --dry-run` says what \
             moving without it would lose"
        )),
    })?;
    let found = preflight::findings(desk, &from, &to).await;
    preflight::unblocked(&found)?;
    let budget = ask
        .budget_ms
        .map_or(desk.settings.load().budget, Duration::from_millis);
    let made = Started {
        to: Some(to.to_string()),
        budget_ms: u64::try_from(budget.as_millis()).ok(),
        force_stragglers: ask.force_stragglers,
        ..started(&call, RunKind::Switchover, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Switchover, made).await?;
    launch(
        desk,
        Job::Steps(steps_of(Verb::Switchover)),
        Asked::default(),
        found,
    );
    shown(desk)
}

pub(crate) async fn failover(desk: &Arc<Desk>, call: Call, ask: FailoverRequest) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if let Some(live) = &live
        && is_repeat(Some(live), RunKind::Failover, &ask.to)
    {
        if !desk.book.is_working() && live.pnr.is_none() && live.state == RunState::Running {
            // It stood still before its point of no return: it tries again.
            noted(desk, &call, Verb::Failover).await?;
            again(desk, live);
        }
        return shown(desk);
    }
    if let Some(done) = is_done(desk, RunKind::Failover, &ask.to, &ask.reason) {
        return Ok(done);
    }
    let to = destination(desk, &ask.to)?;
    let from = desk.accepted();
    desk.servers.warm(std::slice::from_ref(&to)).await?;
    let found = preflight::for_failover(desk, &to).await;
    preflight::unblocked(&found)?;
    let ended = make_way(desk, &call, live).await?;
    let made = Started {
        to: Some(to.to_string()),
        accept_loss: ask.accept_loss,
        ..started(&call, RunKind::Failover, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Failover, made).await?;
    if let Some(text) = ended {
        desk.book.note(Fact::Exception { text }).await?;
    }
    launch(
        desk,
        Job::Steps(steps_of(Verb::Failover)),
        Asked::default(),
        found,
    );
    shown(desk)
}

/// A rehearsal: the steps of a switchover as far as they can be taken back, and the way back.
pub(crate) async fn drill(desk: &Arc<Desk>, call: Call, ask: DrillRequest) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    if is_repeat(live.as_ref(), RunKind::Drill, &ask.to) {
        return shown(desk);
    }
    let to = destination(desk, &ask.to)?;
    make_room(desk, live).await?;
    is_open(desk)?;
    let from = desk.accepted();
    let mut found = Vec::new();
    if !ask.fence_only {
        desk.servers.warm(&[from.clone(), to.clone()]).await?;
        found = preflight::findings(desk, &from, &to).await;
        preflight::unblocked(&found)?;
    }
    let budget = ask
        .budget_ms
        .map_or(desk.settings.load().budget, Duration::from_millis);
    let made = Started {
        to: Some(to.to_string()),
        budget_ms: u64::try_from(budget.as_millis()).ok(),
        fence_only: ask.fence_only,
        ..started(&call, RunKind::Drill, Some(&from), &ask.reason)
    };
    begin(desk, &call, Verb::Drill, made).await?;
    let steps = rehearsal(ask.fence_only);
    launch(desk, Job::Steps(steps), Asked::default(), found);
    shown(desk)
}

/// The steps of a drill, all before the point of no return.
pub(super) fn rehearsal(fence_only: bool) -> Vec<Step> {
    let last = if fence_only {
        Step::Drain
    } else {
        Step::CaughtUp
    };
    Step::ALL.into_iter().filter(|step| *step <= last).collect()
}

/// A move that has been made already, asked for once more for the same reason.
fn is_done(desk: &Desk, kind: RunKind, to: &str, reason: &str) -> Option<Run> {
    let is_there = !desk.actor.is_fenced() && desk.accepted().as_str() == to;
    desk.run().filter(|last| {
        let is_it = last.kind == kind && last.to.as_deref() == Some(to) && last.reason == reason;
        is_there && is_it && last.state == RunState::Done
    })
}

fn is_repeat(live: Option<&RunFacts>, kind: RunKind, to: &str) -> bool {
    live.is_some_and(|l| l.started.run_kind == kind && l.to.as_deref() == Some(to))
}
