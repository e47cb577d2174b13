//! The task that advances a run, and how it ends.
//!
//! One task per group at a time. It goes over the steps of a verb; where it stops decides what
//! becomes of the run: a planned move that fails before its point of no return goes back by
//! itself, everything else stays fenced and waits for the operator.

use std::sync::Arc;

use writefence_admin::api::{ApiError, Finding, RunKind, RunState, Step};
use writefence_admin::runbook::Fact;
use writefence_config::Moment;

use super::desk::Desk;
use super::hooks;
use super::measure::measured;
use super::steps::{Asked, Course, Elsewhere, Stop, Why, go_back};

/// What the task is to do.
#[derive(Debug)]
pub(crate) enum Job {
    /// These steps, as far as they are not behind.
    Steps(Vec<Step>),
    /// This step again, whatever it was, then these.
    Again(Step, Vec<Step>),
    /// Fence, and show an idle group as drained.
    Prepare,
    /// Open without a promotion of ours.
    Open(Elsewhere),
    /// The way back.
    Back,
}

/// Starts the task. The caller holds the desk's verbs and has found nobody working.
pub(crate) fn launch(desk: &Arc<Desk>, job: Job, asked: Asked, found: Vec<Finding>) {
    desk.halt.send_replace(false);
    desk.book.set_working(true);
    let desk = Arc::clone(desk);
    let tasks = desk.tasks.clone();
    tasks.spawn(async move {
        // Also when a step panics: the run then stands still and says so, instead of looking busy.
        let _rest = Rest(Arc::clone(&desk));
        if let Err(error) = work(&desk, job, asked, found).await {
            tracing::error!(group = %desk.group.name, error = %error, "the run stands still");
            desk.trouble.store(Arc::new(Some(error)));
        } else {
            desk.trouble.store(Arc::new(None));
        }
    });
}

struct Rest(Arc<Desk>);

impl Drop for Rest {
    fn drop(&mut self) {
        self.0.book.set_working(false);
    }
}

async fn work(
    desk: &Arc<Desk>,
    job: Job,
    asked: Asked,
    found: Vec<Finding>,
) -> Result<(), ApiError> {
    if matches!(job, Job::Back) {
        return go_back(desk, Why::Abort).await;
    }
    let mut course = Course::new(Arc::clone(desk), asked)?.with_findings(found);
    let done = match &job {
        Job::Steps(steps) => course.advance(steps).await,
        Job::Again(first, rest) => match course.again_from(*first).await {
            Ok(()) => course.advance(rest).await,
            Err(stop) => Err(stop),
        },
        Job::Prepare => match course.advance(&[Step::Preflight, Step::Fence]).await {
            Ok(()) => course.drain_if_idle().await,
            Err(stop) => Err(stop),
        },
        Job::Open(elsewhere) => course.open_elsewhere(elsewhere).await,
        Job::Back => Ok(()),
    };
    drop(course);
    settle(desk, &job, done).await
}

async fn settle(desk: &Arc<Desk>, job: &Job, done: Result<(), Stop>) -> Result<(), ApiError> {
    let Some(facts) = desk.book.live() else {
        return Ok(());
    };
    if facts.state == RunState::Aborting {
        return go_back(desk, Why::Abort).await;
    }
    match done {
        Ok(()) if facts.started.run_kind == RunKind::Drill => rehearsed(desk).await,
        Ok(()) => {
            let back = matches!(job, Job::Open(Elsewhere::Back | Elsewhere::First(_)));
            if facts.is_behind(Step::Report) || back {
                end(desk, RunState::Done, None).await
            } else {
                Ok(())
            }
        }
        // Told to stop and not aborting: the daemon itself is stopping.
        Err(Stop::Told) => Ok(()),
        Err(Stop::Failed(error)) => failed(desk, error).await,
    }
}

async fn failed(desk: &Arc<Desk>, error: ApiError) -> Result<(), ApiError> {
    let Some(facts) = desk.book.live() else {
        return Err(error);
    };
    let by_itself = matches!(facts.started.run_kind, RunKind::Switchover | RunKind::Drill);
    let goes_back = by_itself && facts.pnr.is_none();
    // A step of an operator's own pace that did not come through is for that operator to repeat.
    let stands = facts.started.run_kind != RunKind::Steps || facts.pnr.is_some();
    if stands && !goes_back {
        hooks::at(desk, Moment::OnFailure).await?;
    }
    if facts.opened.is_some() {
        // Writes pass; what is wrong now does not hold up the next run.
        return match facts.started.run_kind {
            RunKind::Steps => Ok(()),
            RunKind::Switchover | RunKind::Failover | RunKind::Drill => {
                end(desk, RunState::Failed, Some(error)).await
            }
        };
    }
    if !goes_back {
        // The step's record says why; a failure outside of a step is told by the caller.
        return if facts.error.is_some() {
            Ok(())
        } else {
            Err(error)
        };
    }
    match desk.actor.turn_back("writefence", &error.message).await {
        Ok(()) => go_back(desk, Why::Failed(error)).await,
        Err(unturned) => Err(unturned),
    }
}

/// The end of a rehearsal: the way back is part of what is rehearsed.
async fn rehearsed(desk: &Arc<Desk>) -> Result<(), ApiError> {
    desk.actor
        .turn_back("writefence", "the rehearsal is over")
        .await?;
    go_back(desk, Why::Rehearsed).await
}

/// Ends the run on record.
pub(crate) async fn end(
    desk: &Desk,
    state: RunState,
    error: Option<ApiError>,
) -> Result<(), ApiError> {
    if let Some(facts) = desk.book.live()
        && facts.fence.is_some()
        && facts.measured.is_none()
    {
        let measured = measured(desk, &facts).await;
        desk.book.note(Fact::Measured(measured)).await?;
    }
    desk.book.note(Fact::State { state, error }).await?;
    desk.tally.run(state);
    desk.book.sync().await
}
