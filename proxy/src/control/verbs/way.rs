//! Turning a run back, and taking one up that was interrupted or stands still.
//!
//! Before the point of no return drain and barrier are seen anew; behind it there is only forward.

use std::sync::Arc;

use writefence_admin::Call;
use writefence_admin::api::{Code, Run, RunKind, RunState, Step, StepState, Verb};
use writefence_admin::runbook::{Fact, RunFacts, check_abort, first_step, steps_of};

use super::super::desk::Desk;
use super::super::error::refused;
use super::super::steps::Asked;
use super::super::work::{Job, launch};
use super::whole::rehearsal;
use super::{Verdict, compared, noted, shown};

pub(crate) async fn abort(desk: &Arc<Desk>, call: Call) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let live = live.ok_or_else(|| refused(Code::NothingToAbort, "no run is live"))?;
    turn_back(desk, &live, &call.actor.to_string(), "abort").await?;
    shown(desk)
}

/// Takes a run back that has neither passed its point of no return nor opened. The caller holds the
/// desk's verbs.
pub(crate) async fn turn_back(
    desk: &Arc<Desk>,
    live: &RunFacts,
    actor: &str,
    why: &str,
) -> Verdict<()> {
    check_abort(live)?;
    if live.opened.is_some() && live.state != RunState::Aborting {
        return Err(refused(
            Code::PastPointOfNoReturn,
            format!("run {} has opened writes in {}", live.run, desk.accepted()),
        )
        .run(&live.run));
    }
    if live.state != RunState::Aborting {
        // The task stops at its next safe point; the record decides the race with the point of no
        // return.
        desk.halt.send_replace(true);
        if let Err(error) = desk.actor.turn_back(actor, why).await {
            desk.halt.send_replace(false);
            return Err(error);
        }
    }
    if !desk.book.is_working() {
        launch(desk, Job::Back, Asked::default(), vec![]);
    }
    Ok(())
}

pub(crate) async fn resume(desk: &Arc<Desk>, call: Call) -> Verdict<Run> {
    let _verbs = desk.verbs.lock().await;
    let live = compared(desk, &call)?;
    let live = live.ok_or_else(|| refused(Code::NothingToResume, "no run is live"))?;
    if desk.book.is_working() {
        return shown(desk);
    }
    match live.state {
        RunState::Aborting => {
            launch(desk, Job::Back, Asked::default(), vec![]);
            return shown(desk);
        }
        RunState::Interrupted => {
            noted(desk, &call, Verb::Resume).await?;
            let state = RunState::Running;
            desk.book.note(Fact::State { state, error: None }).await?;
        }
        RunState::Running if live.started.run_kind != RunKind::Steps || live.pnr.is_some() => {
            noted(desk, &call, Verb::Resume).await?;
        }
        RunState::Running
        | RunState::Done
        | RunState::Aborted
        | RunState::RolledBack
        | RunState::Failed => {
            return Err(refused(
                Code::NothingToResume,
                format!("run {} is not interrupted but {}", live.run, live.state),
            )
            .hint("a run of single steps goes on with its next verb")
            .run(live.run));
        }
    }
    again(desk, &live);
    shown(desk)
}

/// Takes a run up where it may be taken up: from its fence on before the point of no return, since
/// drain and barrier have to be seen anew; behind it from the first step that is not done.
pub(super) fn again(desk: &Arc<Desk>, live: &RunFacts) {
    let mut steps = match live.started.run_kind {
        RunKind::Steps => steps_until(live),
        RunKind::Switchover | RunKind::Failover => Step::ALL.to_vec(),
        RunKind::Drill => rehearsal(live.started.fence_only),
    };
    let fenced = live.step(Step::Fence).state != StepState::Pending;
    let job = if live.pnr.is_some() || live.opened.is_some() {
        Job::Steps(steps)
    } else if fenced && live.is_behind(first_step()) {
        steps.retain(|step| *step > Step::Fence);
        Job::Again(Step::Fence, steps)
    } else {
        Job::Again(first_step(), steps)
    };
    launch(desk, job, Asked::default(), vec![]);
}

/// A run of single steps does not go further by a resume than its verbs had taken it.
fn steps_until(live: &RunFacts) -> Vec<Step> {
    if live.opened.is_some() {
        return steps_of(Verb::OpenWrites);
    }
    match live.pnr {
        Some(_) => steps_of(Verb::Promote),
        None => steps_of(Verb::Prepare),
    }
}
