//! The same conditions, looked at all the time: what stands in the way is to be known before the
//! night in which it does.
//!
//! Sessions are not asked how they would move, which costs each a query; what they said last
//! counts. A change of the verdict is logged once, not at every look.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::{Instant, sleep};
use writefence_admin::api::{Finding, Level};

use super::super::desk::Desk;
use super::{Sides, of};
use crate::clock;
use crate::shutdown::Shutdown;
use crate::upstream::Region;

/// The first look waits for the probes and for clients, so that it does not cry wolf at a start.
const FIRST: Duration = Duration::from_secs(2);

/// Between two looks at whether the interval is over: it may be changed by a reload.
const STRIDE: Duration = Duration::from_secs(1);

/// Whether a region could take over, as it was found last.
#[derive(Clone, Debug)]
pub(crate) struct Readiness {
    pub(crate) findings: Vec<Finding>,
    pub(crate) at: Instant,
}

impl Readiness {
    /// The worst of it.
    pub(crate) fn level(&self) -> Level {
        let levels = self.findings.iter().map(|finding| finding.level);
        levels.max().unwrap_or(Level::Pass)
    }

    /// What stands in the way, or else what has a price.
    pub(crate) fn worst(&self) -> String {
        let level = self.level();
        let worst = self.findings.iter().filter(|f| f.level == level);
        let texts: Vec<&str> = worst.map(|f| f.sentence.as_str()).collect();
        match level {
            Level::Pass => "could take over".to_owned(),
            Level::Warn | Level::Block => texts.join("; "),
        }
    }
}

/// The last look at each candidate.
#[derive(Debug, Default)]
pub(crate) struct Board(Mutex<BTreeMap<String, Readiness>>);

impl Board {
    /// What was found of a region last; `None` before the first look and for the primary.
    pub(crate) fn of(&self, region: &Region) -> Option<Readiness> {
        self.held().get(region.as_str()).cloned()
    }

    fn put(&self, region: &Region, now: Readiness) -> Option<Level> {
        let before = self.held().insert(region.to_string(), now);
        before.map(|before| before.level())
    }

    fn forget(&self, region: &Region) {
        self.held().remove(region.as_str());
    }

    fn held(&self) -> MutexGuard<'_, BTreeMap<String, Readiness>> {
        // Each change replaces whole values.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Looks at every candidate until the end.
pub(crate) async fn watch(desk: &Arc<Desk>, mut stop: Shutdown) {
    let mut due = clock::now() + FIRST;
    while !stop.is_stopping() {
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(STRIDE) => {}
            () = stop.stopping() => return,
        }
        // Behind a fence servers have better things to do, and a run looks for itself.
        let busy = desk.actor.is_fenced() || desk.book.is_working();
        let latest = clock::now() + desk.settings.load().preflight;
        due = due.min(latest);
        if busy || clock::now() < due {
            continue;
        }
        look(desk).await;
        due = clock::now() + desk.settings.load().preflight;
    }
}

async fn look(desk: &Desk) {
    let from = desk.accepted();
    desk.board.forget(&from);
    for target in desk.group.targets.regions() {
        let to = &target.region;
        if *to == from {
            continue;
        }
        let sides = Sides::ask(desk, &from, to).await;
        let now = Readiness {
            findings: of(desk, &sides),
            at: clock::now(),
        };
        let (level, worst) = (now.level(), now.worst());
        let before = desk.board.put(to, now);
        let (group, region) = (&desk.group.name, to.as_str());
        match (before, level) {
            (before, Level::Block) if before != Some(Level::Block) => {
                tracing::warn!(group = %group, region, why = %worst, "could not take over");
            }
            (Some(Level::Block), Level::Pass | Level::Warn) => {
                tracing::info!(group = %group, region, "could take over again");
            }
            (_, Level::Pass | Level::Warn | Level::Block) => {}
        }
    }
}
