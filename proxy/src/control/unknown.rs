//! Ends what is unknown by proof.
//!
//! A write that lost its upstream blocks every drain until its backend is shown to be gone: then
//! nothing more can come of it, whatever came of it. Whether it was committed is a second question
//! and is asked of the new primary before anybody writes there.

use std::time::{Duration, SystemTime};

use tokio::time::sleep;
use writefence_admin::api::Timestamp;

use super::desk::Desk;
use crate::shutdown::Shutdown;
use crate::unknown::UnknownWrite;
use crate::upstream::Region;

/// Between two questions while something is unknown.
const ASK_EVERY: Duration = Duration::from_millis(250);

/// Taken off the age of a loss: the wall clock of the record and the backend's start are read on
/// different machines.
const CLOCKS: Duration = Duration::from_secs(2);

/// Asks the servers as long as something is unknown, and waits otherwise.
pub(crate) async fn watch(desk: &Desk, mut stop: Shutdown) {
    while !stop.is_stopping() {
        for target in desk.group.targets.regions() {
            settle(desk, &target.region).await;
        }
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(ASK_EVERY) => {}
            () = stop.stopping() => {}
        }
    }
}

async fn settle(desk: &Desk, region: &Region) {
    let here = |write: &UnknownWrite| write.region == region.as_str();
    let blocking: Vec<_> = desk
        .group
        .unknown
        .blocking()
        .into_iter()
        .filter(here)
        .collect();
    if blocking.is_empty() {
        return;
    }
    let asked = blocking
        .iter()
        .map(|write| (write.pid, age(write)))
        .collect();
    // No answer, or one without the privilege to see everything, proves nothing.
    let Ok(alive) = desk.servers.alive(region, asked).await else {
        return;
    };
    for write in blocking.iter().filter(|write| !alive.contains(&write.pid)) {
        desk.group.unknown.resolve(write.id, "backend_gone");
        tracing::info!(group = %desk.group.name, write = write.id, "its backend is gone");
    }
}

/// After evidence about the old primary: nothing can be committed there any more, so what is still
/// blocking ends. Its outcome is looked for on the new primary by its transaction id; ids are only
/// known where sessions track them.
pub(crate) async fn resolve_after(desk: &Desk, old: &Region) {
    for write in desk.group.unknown.blocking() {
        if write.region == old.as_str() {
            desk.group.unknown.resolve(write.id, "backend_gone");
        }
    }
}

/// Once writes pass, transaction ids are given out anew and an old one may read as committed: what
/// was not resolved before stays unresolvable.
pub(crate) fn settle_after_open(desk: &Desk) {
    for write in desk.group.unknown.list() {
        if matches!(write.outcome.as_str(), "unknown" | "backend_gone") {
            desk.group.unknown.resolve(write.id, "unresolvable");
        }
    }
}

fn age(write: &UnknownWrite) -> Duration {
    let at: Option<Timestamp> =
        serde_json::from_value(serde_json::Value::String(write.at.clone())).ok();
    let since = at.and_then(|at| SystemTime::now().duration_since(at.as_system_time()).ok());
    since.unwrap_or_default().saturating_sub(CLOCKS)
}
