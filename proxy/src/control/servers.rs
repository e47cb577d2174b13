//! The databases as a run sees them.
//!
//! A seam: the steps are tested against servers that do as the test says, and drivers of other
//! kinds fit in here. Every call is bounded in time and says what it found as a sentence; a server
//! that does not answer is an error, never a silence.

use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::ApiError;
use writefence_admin::runbook::{FenceLsn, Pinned};

use crate::evidence::{Life, NextXid, WriteFate};
use crate::sessions::OwnBackend;
use crate::upstream::{
    CheckedTarget, Identity, Loss, Lsn, Need, Observation, Prepared, Region, Survey, Wanted,
};

/// What a call to a server comes to.
pub(crate) type Work<'a, T> = Pin<Box<dyn Future<Output = Result<T, ApiError>> + Send + 'a>>;

/// Our own logins in a region at the time of asking.
pub(crate) type Own = Arc<dyn Fn() -> Vec<OwnBackend> + Send + Sync>;

/// The last probe of a region.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// What it showed, or why it showed nothing.
    pub(crate) answer: Result<Observation, String>,
    /// The last one that was answered, kept while the server is silent.
    pub(crate) last: Option<Observation>,
    /// When that one was asked.
    pub(crate) last_at: Option<Instant>,
    /// When it was asked: what happened since may be missing in it.
    pub(crate) at: Instant,
}

impl Seen {
    /// The answer, if there was one.
    pub(crate) fn known(&self) -> Option<&Observation> {
        self.answer.as_ref().ok()
    }

    /// The same of a server that has been asked again and says nothing: it is not known to answer.
    pub(crate) fn overdue(self: Arc<Self>, waits: Duration) -> Arc<Self> {
        if self.answer.is_err() {
            return self;
        }
        let ms = waits.as_millis();
        Arc::new(Self {
            answer: Err(format!("it was asked {ms} ms ago and has not answered yet")),
            ..(*self).clone()
        })
    }
}

/// On whose behalf a server is closed or opened: so that a late call of an earlier run, or another
/// daemon's, is recognised by the server's own marker.
#[derive(Clone, Debug)]
pub(crate) struct Ticket {
    /// The run.
    pub(crate) run: String,
    /// The epoch of its fence.
    pub(crate) epoch: u64,
    /// The primary that is meant.
    pub(crate) identity: Option<Identity>,
}

/// Which sessions of an earlier daemon are asked about.
#[derive(Clone, Debug)]
pub(crate) enum Older {
    /// These process ids.
    Listed(Vec<i32>),
    /// Any session older than this daemon that runs something.
    Any,
}

/// On what ground a commit log is believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Under {
    /// It is still the life of the server that gave the ids out.
    SameLife(Life),
    /// It is the promoted successor's, and this was its next id before anybody wrote there.
    Successor(NextXid),
}

/// What is left of a barrier just before the point of no return.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum StillBarred {
    /// All of it.
    Stands,
    /// It stands, and somebody has written since the fence LSN was taken: how it was noticed.
    Written(String),
}

/// See the module.
pub(crate) trait Servers: Send + Sync {
    /// Whether there are databases: without one there is nothing to bar, to wait for and to identify.
    fn has_database(&self) -> bool {
        true
    }

    /// The program that promotes where there is no database, if there is one.
    fn driver(&self) -> Option<String> {
        None
    }

    /// The last probe of a region, from memory; `None` before the first ended.
    fn seen(&self, region: &Region) -> Option<Arc<Seen>>;

    /// Asks a region now.
    fn observe<'a>(&'a self, region: &'a Region) -> Work<'a, Observation>;

    /// Asks a region for its surroundings, and what the observer lacks there for these needs.
    fn survey<'a>(&'a self, region: &'a Region, needs: &'a [Need]) -> Work<'a, Survey>;

    /// The first value of a query that may not write.
    fn ask<'a>(&'a self, region: &'a Region, sql: &'a str) -> Work<'a, Option<String>>;

    /// What this daemon's own connections call themselves; `None` where there are none.
    fn observers(&self) -> Option<String>;

    /// Opens what a run will need of these regions, so that no login falls into the write gap.
    fn warm<'a>(&'a self, regions: &'a [Region]) -> Work<'a, ()>;

    /// Lifts a barrier of ours that a candidate has kept from when it was the primary, while it takes
    /// no writes yet; without effect where there is none.
    fn clear<'a>(&'a self, candidate: &'a Region, ticket: &'a Ticket) -> Work<'a, ()>;

    /// Checks a region's server for a role, with its timeline's history. With a ticket, a barrier
    /// of ours that is found there is lifted first: it survives a rejoin in the server's own files.
    /// An observation of this moment saves asking once more.
    fn check<'a>(
        &'a self,
        region: &'a Region,
        wanted: Wanted,
        lift: Option<&'a Ticket>,
        seen: Option<Observation>,
    ) -> Work<'a, CheckedTarget>;

    /// Puts the barrier up in a region: read-only by default, foreign sessions ended, no open
    /// write left. Answers with what was done.
    fn bar<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        own: Own,
        until: Instant,
    ) -> Work<'a, String>;

    /// Whether the barrier of this run still stands, and nobody has written since its fence LSN.
    fn barred<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        own: Own,
    ) -> Work<'a, StillBarred>;

    /// Takes the barrier of this run down; without effect where there is none.
    fn unbar<'a>(&'a self, region: &'a Region, ticket: &'a Ticket) -> Work<'a, ()>;

    /// Makes everything acknowledged so far durable and says where the log then ends.
    fn fence_lsn<'a>(
        &'a self,
        region: &'a Region,
        ticket: &'a Ticket,
        until: Instant,
    ) -> Work<'a, FenceLsn>;

    /// Waits until a standby has replayed up to a position.
    fn replayed<'a>(
        &'a self,
        region: &'a Region,
        lsn: &'a FenceLsn,
        until: Instant,
    ) -> Work<'a, Lsn>;

    /// What a candidate is pinned by: its identifier and the timeline it receives.
    fn pin<'a>(&'a self, region: &'a Region) -> Work<'a, Pinned>;

    /// Promotes the pinned candidate if it still is what it was, and waits until it is a primary.
    /// One that is a primary on a higher timeline already is not asked again.
    fn promote<'a>(&'a self, pinned: &'a Pinned, until: Instant) -> Work<'a, Observation>;

    /// Which sessions of an earlier daemon are still there; `age` is how long this one runs.
    fn older<'a>(&'a self, region: &'a Region, which: Older, age: Duration) -> Work<'a, Vec<i32>>;

    /// Which of these backends, each lost so long ago, are still there.
    fn alive<'a>(&'a self, region: &'a Region, lost: Vec<(i32, Duration)>) -> Work<'a, Vec<i32>>;

    /// Transaction ids of the backends that have one now, with their process ids.
    fn running_xids<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<(i32, u64)>>;

    /// What became of transactions, in the order given, by a region's commit log.
    fn fates<'a>(
        &'a self,
        region: &'a Region,
        under: Under,
        xids: Vec<u64>,
    ) -> Work<'a, Vec<WriteFate>>;

    /// Users of a region with their SCRAM verifiers as far as they have one.
    fn verifiers<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<(String, String)>>;

    /// Prepared transactions of all databases in a region.
    fn prepared<'a>(&'a self, region: &'a Region) -> Work<'a, Vec<Prepared>>;

    /// Commits something small and says where.
    fn canary<'a>(&'a self, region: &'a Region, run: &'a str) -> Work<'a, Lsn>;

    /// Whether the last answered probe of `old` shows that no commit can be acknowledged there
    /// without `to`: what shows it, or why it is not shown.
    fn synchronous(&self, old: &Region, to: &Region) -> Result<String, String>;

    /// Has a region's name asked for again, and followed if the same server answers there.
    fn renew<'a>(&'a self, _region: &'a Region) -> Work<'a, ()> {
        Box::pin(async { Ok(()) })
    }

    /// Has every region probed now, since something has changed that is shown to operators.
    fn refresh(&self);
}

/// The wish for a successor of the identity in force.
pub(crate) fn successor(of: Identity, fence_lsn: Option<Lsn>, accept_loss: bool) -> Wanted {
    let loss = if accept_loss {
        Loss::Accepted
    } else {
        Loss::Refused
    };
    Wanted::Successor {
        of,
        fence_lsn,
        loss,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::tests::fake::primary;

    #[test]
    fn a_server_that_leaves_a_probe_unanswered_is_not_known_to_answer() {
        let (at, seen) = (Instant::now(), primary("a", 1));
        let shown = Arc::new(Seen {
            answer: Ok(seen.clone()),
            last: Some(seen.clone()),
            last_at: Some(at),
            at,
        });
        let overdue = shown.overdue(Duration::from_millis(2500));
        assert!(overdue.known().is_none());
        let why = overdue.answer.clone().unwrap_err();
        assert_eq!(why, "it was asked 2500 ms ago and has not answered yet");
        assert_eq!((&overdue.last, overdue.last_at), (&Some(seen), Some(at)));
        // What it failed by says more.
        let again = Arc::clone(&overdue).overdue(Duration::from_secs(9));
        assert_eq!(again.answer, Err(why));
    }
}
