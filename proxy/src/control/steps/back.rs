//! The way back, from a fence to the old primary.
//!
//! First the durable state `aborting`, which voids every certificate; then the barrier is lifted;
//! then the gate opens. In any other order a successor could promote on the strength of a barrier
//! that no longer stands. A way back that fails stays `aborting` and is taken up by asking again.

use std::sync::Arc;

use writefence_admin::api::{ApiError, Code, Exit, RunState};
use writefence_config::Moment;

use super::super::desk::Desk;
use super::super::error::refused;
use super::super::hooks;
use super::super::unknown;
use super::super::work::end;
use crate::failpoint;
use crate::upstream::Wanted;

/// Why a run goes back, and what it ends as.
#[derive(Clone, Debug)]
pub(crate) enum Why {
    /// An operator asked.
    Abort,
    /// A drill has come to its end.
    Rehearsed,
    /// It failed before its point of no return.
    Failed(ApiError),
}

/// Goes back and ends the run. The run is `aborting` already.
pub(crate) async fn go_back(desk: &Arc<Desk>, why: Why) -> Result<(), ApiError> {
    let run = desk.book.facts().map(|facts| facts.run).unwrap_or_default();
    failpoint::after("aborting");
    // Sessions stay where they are: nobody is to log in ahead any more.
    let cleared = desk.group.targets.set_candidate(None);
    debug_assert!(cleared.is_ok(), "no candidate is a region of every group");
    if desk.actor.is_fenced() {
        reopen(desk, &run).await?;
    }
    // Writes pass by now: nothing that a hook does or fails to do holds them up.
    hooks::at(desk, Moment::OnAbort).await?;
    if matches!(why, Why::Failed(_)) {
        hooks::at(desk, Moment::OnFailure).await?;
    }
    let (state, error) = match why {
        Why::Abort => (RunState::Aborted, None),
        Why::Rehearsed => (RunState::RolledBack, None),
        // What was never met is told by its own exit code; a run that was under way and gave up
        // has rolled back.
        Why::Failed(error) if error.code.exit() == Exit::Precondition => {
            (RunState::Failed, Some(error))
        }
        Why::Failed(error) => (RunState::RolledBack, Some(error)),
    };
    end(desk, state, error).await
}

async fn reopen(desk: &Arc<Desk>, run: &str) -> Result<(), ApiError> {
    let accepted = desk.group.targets.accepted();
    let region = &accepted.region;
    desk.servers.unbar(region, &desk.ticket(run)).await?;
    failpoint::after("lift");
    // Still a primary, and nothing was promoted: the others are asked, a silent one proves nothing
    // and is known to no certificate.
    for target in desk
        .group
        .targets
        .regions()
        .iter()
        .filter(|t| t.region != *region)
    {
        let Ok(seen) = desk.servers.observe(&target.region).await else {
            continue;
        };
        if seen.writable == Some(true) {
            let text = format!("{} takes writes: it was promoted meanwhile", target.region);
            return Err(refused(Code::IdentityMismatch, text).hint(
                "writes stay fenced; decide with `open-writes --primary R` which one it is",
            ));
        }
    }
    let wanted = accepted.identity.map_or(Wanted::First, Wanted::Same);
    let checked = desk.servers.check(region, wanted, None, None).await?;
    drop(checked);
    // The same server goes on, so it can go on being asked; what it can tell now is told before.
    unknown::settle(desk, region).await;
    failpoint::before("reopen");
    // The target stays, so what is still in flight does no harm: it runs on the very server that
    // is opened again.
    desk.actor.reopen().await?;
    tracing::info!(group = %desk.group.name, region = %region, "writes pass again");
    desk.servers.refresh();
    failpoint::after("reopen");
    Ok(())
}
