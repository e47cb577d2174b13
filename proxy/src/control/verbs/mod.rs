//! The verbs that begin or advance a run: what they require, and what a repeat means.
//!
//! Each is decided under one lock per group and answers as soon as its work is journalled. The
//! comparison that the caller asked for (`--run`, `--epoch`) comes first.
//! `steps` has those of single steps, `whole` the runs that advance themselves, `way` abort and resume.

mod steps;
mod way;
mod whole;

use std::time::Duration;

use tokio::time::timeout;
use writefence_admin::Call;
use writefence_admin::api::{ApiError, Code, Run, RunKind, RunState, Timestamp, Verb};
use writefence_admin::runbook::{Fact, RunFacts, Started, check_run};

use super::book::in_progress;
use super::desk::Desk;
use super::error::{internal, refused};
use super::work::end;
use crate::upstream::Region;

pub(crate) use steps::{open_writes, prepare, promote, verify, watch_drain};
pub(crate) use way::{abort, resume, turn_back};
pub(crate) use whole::{drill, failover, switchover};

type Verdict<T> = Result<T, ApiError>;

/// How long an old primary that may be dead is asked, before a run that stands still gives way.
const LAST_WORD: Duration = Duration::from_secs(1);

/// The comparison that the caller asked for.
fn compared(desk: &Desk, call: &Call) -> Verdict<Option<RunFacts>> {
    let live = desk.book.live();
    check_run(
        &call.expect,
        live.as_ref().map(|facts| facts.run.as_str()),
        desk.actor.epoch().value(),
    )?;
    Ok(live)
}

fn shown(desk: &Desk) -> Verdict<Run> {
    desk.run()
        .ok_or_else(|| internal("the run has no document"))
}

fn started(call: &Call, kind: RunKind, from: Option<&Region>, reason: &str) -> Started {
    Started {
        group: call.group.clone(),
        run_kind: kind,
        from: from.map(Region::to_string),
        to: None,
        reason: reason.to_owned(),
        actor: call.actor.to_string(),
        budget_ms: None,
        accept_loss: false,
        force_stragglers: false,
        fence_only: false,
    }
}

async fn begin(desk: &Desk, call: &Call, verb: Verb, started: Started) -> Verdict<()> {
    desk.book.begin(&run_id(), started).await?;
    let reason = desk.book.facts().map(|facts| facts.started.reason);
    let reason = reason.unwrap_or_default();
    tracing::info!(group = %call.group, verb = %verb, actor = %call.actor, reason, "run begun");
    noted(desk, call, verb).await
}

async fn noted(desk: &Desk, call: &Call, verb: Verb) -> Verdict<()> {
    desk.book
        .note(Fact::Verb {
            verb,
            actor: call.actor.to_string(),
        })
        .await
}

/// Sorts by time to the millisecond; the rest keeps two daemons apart.
pub(crate) fn run_id() -> String {
    let at = Timestamp::now().to_string();
    let digits: String = at.chars().filter(char::is_ascii_digit).collect();
    let (day, time) = digits.split_at(8.min(digits.len()));
    format!("{day}-{time}-{:04x}", rand::random::<u16>())
}

/// No live run, or one whose opening is behind it: that one is closed with what it left undone.
pub(crate) async fn make_room(desk: &Desk, live: Option<RunFacts>) -> Verdict<()> {
    let Some(live) = live else { return Ok(()) };
    let has_opened = live.opened.is_some() && !desk.actor.is_fenced();
    if !has_opened || desk.book.is_working() || live.state == RunState::Aborting {
        return Err(in_progress(&live));
    }
    let step = live
        .step
        .map_or_else(|| "none".to_owned(), |step| step.to_string());
    let text = format!("superseded before it was verified; its last step was {step}");
    desk.book.note(Fact::Exception { text }).await?;
    go_on(desk, &live).await?;
    end(desk, RunState::Done, None).await
}

/// As `make_room`, and a run that stands still before its point of no return gives way too where its
/// old primary has died under it: then it can go neither forward nor back. While that answers the run
/// is somebody's, and only who names it takes over from it. Says what was ended.
async fn make_way(desk: &Desk, call: &Call, live: Option<RunFacts>) -> Verdict<Option<String>> {
    let Some(run) = &live else { return Ok(None) };
    if run.pnr.is_some() || run.opened.is_some() || desk.book.is_working() {
        make_room(desk, live).await?;
        return Ok(None);
    }
    let is_named = call.expect.run.as_deref() == Some(run.run.as_str());
    let old = desk.accepted();
    let asked = desk.servers.observe(&old);
    let answers = !is_named && matches!(timeout(LAST_WORD, asked).await, Ok(Ok(_)));
    if answers {
        let text = format!(
            "`abort` it, or take over from it with --run {}: {old} answers",
            run.run
        );
        return Err(in_progress(run).hint(text));
    }
    let error = refused(Code::Superseded, "a failover took over").run(&run.run);
    go_on(desk, run).await?;
    end(desk, RunState::Failed, Some(error)).await?;
    let of = &run.started;
    Ok(Some(format!(
        "run {} ({}, {}, by {}) was ended before its point of no return",
        run.run, of.run_kind, of.reason, of.actor
    )))
}

/// An interrupted run is running again, if only to be ended.
async fn go_on(desk: &Desk, run: &RunFacts) -> Verdict<()> {
    if run.state != RunState::Interrupted {
        return Ok(());
    }
    desk.book
        .note(Fact::State {
            state: RunState::Running,
            error: None,
        })
        .await
}

/// The group has a primary, and this is it.
fn primary(desk: &Desk, named: &str) -> Verdict<Region> {
    decided(desk)?;
    let region = desk.region(named)?;
    let accepted = desk.accepted();
    if region == accepted {
        return Ok(region);
    }
    Err(refused(
        Code::WrongRegion,
        format!("the accepted primary is {accepted}, not {region}"),
    ))
}

fn decided(desk: &Desk) -> Verdict<()> {
    if desk.actor.is_decided() {
        return Ok(());
    }
    Err(refused(
        Code::NotFenced,
        "the group has no primary yet that was decided upon",
    )
    .hint("`writefencectl open-writes --primary R` decides; `status` shows the regions"))
}

fn is_open(desk: &Desk) -> Verdict<()> {
    if !desk.actor.is_fenced() {
        return Ok(());
    }
    Err(refused(
        Code::Precondition,
        "writes are fenced already and no run is live",
    )
    .hint("`writefencectl open-writes --primary R` decides where they go on"))
}

/// A region to move to.
fn destination(desk: &Desk, named: &str) -> Verdict<Region> {
    decided(desk)?;
    let region = desk.region(named)?;
    if region == desk.accepted() {
        return Err(refused(
            Code::WrongRegion,
            format!("{region} is the primary already"),
        ));
    }
    Ok(region)
}
