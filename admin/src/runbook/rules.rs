//! Which states may follow which, and who may abort or resume.
//!
//! The daemon asks these before it writes a record; [`super::fold`] asks them again of what it
//! reads. So a journal that the daemon could not have written is noticed.

use super::{RunFacts, RunState};
use crate::Expect;
use crate::api::{ApiError, Code};

/// Whether a run may go from one state to another. Staying is not a move.
pub const fn may_become(from: RunState, to: RunState) -> bool {
    match from {
        RunState::Running => {
            matches!(
                to,
                RunState::Interrupted | RunState::Aborting | RunState::Done | RunState::Failed
            )
        }
        RunState::Interrupted => matches!(to, RunState::Running | RunState::Aborting),
        // A successor that finds `aborting` goes on aborting; it is never running again.
        RunState::Aborting => {
            matches!(
                to,
                RunState::Aborted | RunState::RolledBack | RunState::Failed
            )
        }
        RunState::Done | RunState::Aborted | RunState::RolledBack | RunState::Failed => false,
    }
}

/// The state to record when a daemon finds this run at its start; `None`: stays as it is.
pub const fn after_restart(state: RunState) -> Option<RunState> {
    match state {
        RunState::Running => Some(RunState::Interrupted),
        RunState::Interrupted
        | RunState::Aborting
        | RunState::Done
        | RunState::Aborted
        | RunState::RolledBack
        | RunState::Failed => None,
    }
}

/// Whether the run may be aborted; also when it is aborting already, since repeats are allowed.
///
/// # Errors
/// `nothing_to_abort` for a run that has ended, `past_point_of_no_return` behind it.
pub fn check_abort(facts: &RunFacts) -> Result<(), ApiError> {
    if facts.state.is_final() {
        return Err(ApiError::new(
            Code::NothingToAbort,
            format!("run {} has ended: {}", facts.run, facts.state),
        )
        .run(&facts.run));
    }
    let Some(candidate) = &facts.pnr else {
        return Ok(());
    };
    Err(ApiError::new(
        Code::PastPointOfNoReturn,
        format!(
            "run {} is past its point of no return towards {}",
            facts.run, candidate.region
        ),
    )
    .hint(format!(
        "only forward: `writefencectl resume --run {}`",
        facts.run
    ))
    .run(&facts.run))
}

/// Whether the run may be resumed: it was interrupted, or stands still behind its point of no
/// return, where a failed step can only be repeated. Whether somebody works on it is for the
/// daemon to know.
///
/// # Errors
/// `nothing_to_resume` otherwise.
pub fn check_resume(facts: &RunFacts) -> Result<(), ApiError> {
    match facts.state {
        RunState::Interrupted => Ok(()),
        RunState::Running if facts.pnr.is_some() => Ok(()),
        state => Err(ApiError::new(
            Code::NothingToResume,
            format!("run {} is not interrupted but {state}", facts.run),
        )
        .run(&facts.run)),
    }
}

/// Compares what the caller expects with the live run and the group's epoch.
///
/// # Errors
/// `wrong_run`, `wrong_epoch`.
pub fn check_run(expect: &Expect, live: Option<&str>, epoch: u64) -> Result<(), ApiError> {
    if let Some(wanted) = expect.run.as_deref()
        && live != Some(wanted)
    {
        let found = live.map_or_else(|| "no run is live".to_owned(), |id| format!("{id} is live"));
        let error = ApiError::new(
            Code::WrongRun,
            format!("run {wanted} was expected, {found}"),
        )
        .hint("`writefencectl status` shows the group's run")
        .epoch(epoch);
        return Err(live.map_or(error.clone(), |id| error.run(id)));
    }
    match expect.epoch {
        Some(wanted) if wanted != epoch => Err(ApiError::new(
            Code::WrongEpoch,
            format!("epoch {wanted} was expected, the group is at {epoch}"),
        )
        .hint("somebody changed the phase meanwhile; look at `writefencectl status`")
        .epoch(epoch)),
        _ => Ok(()),
    }
}
