//! A client that is gone: its statement is not, and counts until the server has ended it.
//!
//! The session stays as an orphan until the server has answered everything, and then, where a
//! transaction or a run is left open, until the server has closed the connection: by then it has
//! rolled back. Nothing more is sent on the connection, so a cancel can hit nothing but the orphan.
//!
//! PostgreSQL lets an abandoned statement run to its end, and there are clients that send a write
//! and leave. So while the gate is open only what can have no effect any more is cancelled: reads,
//! and statements of a transaction that nobody is left to commit. Once a fence's grace is over an
//! orphaned write is cancelled too: a drain waits for it, and nobody for its answer. A COMMIT is
//! never cancelled: it ends by itself, and cancelling the wait for a synchronous standby would only
//! make visible what may not be there after the move.

use std::time::Duration;

use super::classify::{Kind, Statement};
use super::session::{End, Session};
use super::track::Tx;
use crate::gate::End as HoldEnd;
use crate::gate::Phase;
use crate::sessions::SessionState;

/// How often an orphan is judged anew while the database's catalog has not been read. A reading takes
/// about as long; a backend that runs in vain for that much longer does no harm.
const LOOK_AGAIN: Duration = Duration::from_millis(250);

/// How far an orphan has come.
#[derive(Debug, Default)]
pub(crate) struct Orphan {
    /// A cancel was sent; it is sent once.
    cancelled: bool,
    /// We have closed our direction: the server ends what it has, and then the connection.
    pub(crate) hung_up: bool,
}

impl Session {
    /// The client is gone.
    pub(crate) async fn on_client_gone(&mut self) -> Result<(), End> {
        self.client_gone = true;
        if let Some((parked, _)) = self.parked.take() {
            parked.finish(HoldEnd::Abandoned);
            return Err(End::ClientGone);
        }
        if self.server.is_none() || self.track.quiescent() || self.permit.is_none() {
            self.release();
            return Err(End::ClientGone);
        }
        // The rest of this message will not come, so the server will never run its group.
        if let Some(tag) = self.torn.filter(|_| self.client_rest > 0) {
            self.track.torn(tag);
        }
        self.handle.set_state(SessionState::Orphaned);
        self.cancel_orphan();
        Ok(())
    }

    /// Cancels what an orphan runs, if that is wanted by now.
    pub(crate) fn cancel_orphan(&mut self) {
        if !self.client_gone || self.orphan.cancelled || self.track.answered() {
            return;
        }
        let fenced = self.look.phase != Phase::Open;
        if self.track.copy_in || !self.is_worth_cancelling(fenced && self.grace_over) {
            // Once the catalog is there, what could be anything now may turn out to be a read.
            if !fenced && self.eyes.shelf.catalog().model().is_none() {
                self.timer = Some(Box::pin(tokio::time::sleep(LOOK_AGAIN)));
            }
            return;
        }
        self.orphan.cancelled = true;
        self.send_cancel();
        tracing::info!(
            session = self.handle.id(),
            client = %self.handle.client(),
            "its client has left: its statement is being cancelled"
        );
    }

    fn is_worth_cancelling(&self, drained_for: bool) -> bool {
        let Some(all) = self
            .track
            .in_flight()
            .map(|group| group.judgements(&self.eyes))
            .collect::<Option<Vec<_>>>()
        else {
            // What is not known may be a COMMIT; an operator's `--force` still reaches it.
            return false;
        };
        let mut statements = all.iter().flatten().flat_map(|j| &j.statements);
        if statements.clone().any(may_commit) {
            return false;
        }
        let reads = |s: &Statement| s.verdict == super::classify::Verdict::Read;
        drained_for || self.track.tx != Tx::Idle || statements.all(reads)
    }

    /// True once the server can do nothing more for the client: everything was answered, or what it
    /// waits for will not come.
    pub(crate) fn is_to_hang_up(&self) -> bool {
        let waits_for_client = self.track.copy_in || self.client_rest > 0;
        self.client_gone && !self.orphan.hung_up && (self.track.synced() || waits_for_client)
    }
}

fn may_commit(statement: &Statement) -> bool {
    statement.is_transaction_end()
        || matches!(
            statement.kind,
            Kind::CommitPrepared | Kind::RollbackPrepared
        )
}
