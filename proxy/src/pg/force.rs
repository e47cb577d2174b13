//! An operator's `--force`: what keeps a drain waiting is undone.
//!
//! A running statement is cancelled, a COPY is failed, a transaction or a run that is left open is
//! rolled back. The permit ends with the server's answer, as always. The client keeps its
//! connection and learns of it in order: by the error of what it runs, or by a failed transaction.

use super::frame::put;
use super::message::own;
use super::refuse;
use super::session::{End, Session, Virtual};
use super::track::Tx;

/// No PostgreSQL parses it, so a run that it is part of fails as a whole.
const FAIL: &[u8] = b"writefence undoes this run\0";

/// As PostgreSQL logs it.
const WHY: &[u8] = b"ended by the operator of writefence\0";

impl Session {
    /// The operator's word was given.
    pub(crate) async fn undo(&mut self) -> Result<(), End> {
        if self.permit.is_none() || self.server.is_none() {
            return Ok(());
        }
        self.undoing = true;
        let copying = self.track.copy_in;
        if !self.track.answered() && !copying {
            self.send_cancel();
        }
        self.chores().await
    }

    /// Something is left to be undone, and it can be now.
    pub(crate) fn undo_due(&self) -> bool {
        self.undoing
            && self.server.is_some()
            && self.client_rest == 0
            && self.server_rest == 0
            && !self.passing
            && self.cancelling.is_none()
            && (self.track.copy_in || self.track.synced())
            && (!self.track.answered() || self.track.tx != Tx::Idle || self.track.copy_in)
    }

    /// Undoes it.
    pub(crate) async fn undo_now(&mut self) -> Result<(), End> {
        if self.track.copy_in && !self.track.unsynced() {
            // The answer goes the ordinary way; data the client still sends is ignored there. A
            // transaction around it is rolled back next.
            if let Some(server) = &mut self.server {
                put(server.leg.queue(), b'f', &[WHY]);
                self.track.copy_end();
            }
            return Ok(());
        }
        self.undoing = false;
        if self.track.unsynced() {
            return self.fail_run().await;
        }
        let mut rollback = Vec::new();
        own(&mut rollback, "ROLLBACK");
        self.ask_server(&rollback, 1).await?;
        if self.server.is_none() {
            return Ok(()); // Lost: told already.
        }
        self.track.tx = Tx::Idle;
        self.sealed = false;
        self.virt = Virtual::Failed("BEGIN".into());
        refuse::undone().notice(self.client.queue());
        self.release();
        self.recheck();
        Ok(())
    }

    /// Fails the run that the client has not closed, and drops what it still sends of it.
    pub(crate) async fn fail_run(&mut self) -> Result<(), End> {
        self.abort_run().await?;
        if self.server.is_some() {
            refuse::undone().error(self.client.queue());
            self.drop_to_sync = true;
            self.release();
        }
        self.recheck();
        Ok(())
    }

    /// Has the server roll back a run that no Sync has closed: a Sync alone would commit it.
    pub(crate) async fn abort_run(&mut self) -> Result<(), End> {
        let mut close = Vec::new();
        if self.track.copy_in {
            put(&mut close, b'f', &[WHY]);
        } else {
            put(&mut close, b'P', &[b"\0", FAIL, &[0, 0]]);
        }
        put(&mut close, b'S', &[]);
        self.track.sync();
        self.track.failed();
        let status = self.ask_server(&close, 1).await?;
        if self.server.is_some() {
            self.track.ready(status, &self.eyes);
        }
        Ok(())
    }
}
