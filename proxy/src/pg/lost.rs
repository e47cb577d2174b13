//! A server that is gone: what is known of the outcome, and who is told.
//!
//! A write that was on its way and may have lasted leaves an unknown outcome (08007), which is
//! recorded before anybody is told and never rounded to "not executed". Where nothing can have
//! lasted the client hears that instead (08006).

use std::hash::{DefaultHasher, Hash, Hasher};

use super::kept::Part;
use super::lasting::{is_single, may_last, tx_behind};
use super::message::ready;
use super::refuse;
use super::session::{End, Session, Virtual};
use super::track::Tx;
use crate::sessions::{SessionState, WallState};
use crate::unknown::{UnknownWrite, now_rfc3339, outcome};

/// SQLSTATEs of a FATAL after which the session lives on: the server is being stopped or has crashed.
/// Where it goes on and only this backend was ended, `kicked` finds that out.
const SURVIVED: [&[u8]; 3] = [b"57P01", b"57P02", b"57P03"];

/// The SQLSTATE of an error; empty where there is none.
fn sqlstate(frame: &[u8]) -> &[u8] {
    super::message::report_field(super::message::body(frame), b'C').unwrap_or_default()
}

/// A short name for a statement text, equal for equal texts. It says nothing of the values in it.
pub(crate) fn digest(text: &[u8]) -> String {
    let mut hasher = DefaultHasher::new();
    text.hash(&mut hasher);
    let word: String = String::from_utf8_lossy(text)
        .split_whitespace()
        .next()
        .unwrap_or("")
        .chars()
        .filter(char::is_ascii_alphabetic)
        .take(12)
        .collect();
    format!("{}:{:016x}", word.to_ascii_lowercase(), hasher.finish())
}

impl Session {
    /// The server is gone.
    pub(crate) async fn on_server_gone(&mut self, why: &str) -> Result<(), End> {
        let region = match &self.server {
            Some(server) => server.target.region.clone(),
            None => return Ok(()),
        };
        let last_words = self.last_words.take();
        if let Some(end) = self.own_end(last_words.as_deref()) {
            return Err(end);
        }
        let said = last_words.as_deref().unwrap_or_default();
        let suspicion = self.suspect(sqlstate(said));
        let undecided = self.undecided();
        if undecided {
            self.record_unknown();
        } else {
            self.release();
        }
        let owed = self.track.owed() + usize::from(self.track.unsynced());
        let in_transaction = self.track.tx != Tx::Idle;
        let goes_on = tx_behind(self.track.tx, self.track.in_flight(), &self.eyes) != Tx::Idle;
        let torn = self.server_rest > 0;
        let unsynced = self.track.unsynced();
        self.drop_server();
        if self.client_gone {
            return Err(End::ClientGone);
        }
        if let Some(suspicion) = suspicion
            && self.was_meant(&suspicion).await
        {
            return Err(match torn {
                true => End::Server,
                false => self.kicked(said, undecided, region.as_str()),
            });
        }
        let report = match undecided {
            true => refuse::unknown(region.as_str()),
            false => refuse::lost(region.as_str(), why, in_transaction),
        };
        if torn || self.kept.armed() && owed > 1 {
            // Half a message of the server's is out: nothing can be said in this protocol any more.
            return Err(End::Server);
        }
        let part = self.kept.part;
        self.kept = super::kept::Kept::default();
        if goes_on {
            self.virt = Virtual::Failed("BEGIN".into());
        }
        if in_transaction && owed == 0 {
            self.untold = Some(Box::new(report.clone()));
        }
        for n in 0..owed {
            report.error(self.client.queue());
            let last = n + 1 == owed;
            if last && part != Part::Whole {
                let out = self.drop_behind(part);
                self.client.queue().extend_from_slice(&out);
            } else if last && unsynced {
                self.drop_to_sync = true;
            } else {
                let status = self.client_status();
                ready(self.client.queue(), status);
            }
        }
        self.recheck();
        Ok(())
    }

    /// A FATAL that a direct connection would have ended by as well.
    fn own_end(&mut self, last_words: Option<&[u8]>) -> Option<End> {
        let frame = last_words?;
        if SURVIVED.contains(&sqlstate(frame)) {
            return None;
        }
        self.client.queue().extend_from_slice(frame);
        if self.undecided() {
            self.record_unknown();
        }
        self.release();
        Some(End::Server)
    }

    /// Whether something that was sent may have taken effect without our knowing.
    fn undecided(&self) -> bool {
        // What was let go as a read is judged once more: its names may stand for something else now.
        let counted = self.permit.is_some() || self.let_go;
        // COPY data whose end was not sent cannot commit.
        if !counted || self.track.copy_in {
            return false;
        }
        may_last(
            self.track.tx,
            self.track.closed(),
            self.track.open_run(),
            &self.eyes,
        )
    }

    fn record_unknown(&mut self) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        self.undoing = false;
        self.handle.set_unproven(false);
        self.handle.set_permitted(false);
        let words = self.track.in_flight().next().map(|g| g.words().to_vec());
        let (region, pid) = match &self.server {
            Some(s) => (s.target.region.to_string(), s.pid),
            None => (String::new(), 0),
        };
        let single = is_single(self.track.tx, self.track.in_flight(), &self.eyes);
        let sighted = &self.group.unknown.sighted;
        let seen = || sighted.xid_of(&region, pid, self.handle.transactions_ended());
        let xid = self.xid.known().or_else(seen).filter(|_| single);
        // The identity in force is that of the session's server only if it is the target.
        let identity = self.group.targets.accepted().identity;
        let home = identity.filter(|_| !self.stale());
        let write = UnknownWrite {
            id: 0,
            at: now_rfc3339(),
            pid,
            user: self.handle.user().to_owned(),
            database: self.handle.database().to_owned(),
            client: self.handle.client().to_string(),
            digest: words.map(|w| digest(&w)),
            idempotency_key: None,
            request: None,
            xid,
            single,
            timeline: home.map(|identity| identity.timeline.value()),
            generation: sighted.generation_of(&region),
            outcome: outcome::UNKNOWN.into(),
            region,
        };
        self.group.unknown.record(permit.lose(), write);
    }

    /// Lets go of the server without a word.
    pub(crate) fn drop_server(&mut self) {
        if let Some(mut server) = self.server.take() {
            self.told = std::mem::take(&mut server.params);
            self.group
                .logins
                .closed(server.target.region.as_str(), server.pid);
        }
        self.handle.set_backend(None);
        self.handle.set_wall(WallState::Down);
        // A cancel on its way is for a backend that is of no concern any more.
        self.cancelling = None;
        self.let_go = false;
        self.track.server_lost();
        self.track.tx = Tx::Idle;
        self.wall.gone();
        self.sealed = false;
        self.temporaries_asked = None;
        self.eyes.policy.temporaries = false;
        self.server_rest = 0;
        self.xid = super::xid::Xid::default();
        self.passing = false;
        self.handle.set_state(SessionState::Idle);
    }
}
