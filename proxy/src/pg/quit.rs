//! Sessions that are ended whatever they are doing: by the console's KILL, for saying nothing, or for
//! an offence against the protocol.
//!
//! What such a session has in flight is neither cut short nor forgotten: its client is told, and the
//! rest is that of a client that has left (see `orphan`).

use std::future::poll_fn;
use std::time::Duration;

use super::message::Report;
use super::refuse;
use super::session::{End, Session, Virtual};
use super::track::Tx;
use crate::sessions::Quit;

/// How long the last words to a client may take: one that does not read must not keep the session.
const LAST_WORDS: Duration = Duration::from_secs(1);

impl Session {
    /// The session is to end.
    pub(crate) async fn on_quit(&mut self, why: Quit) -> Result<(), End> {
        let settings = self.group.settings.load_full();
        let report = match why {
            Quit::Killed => refuse::ended("the session was ended by KILL on the console"),
            Quit::Idle | Quit::IdleInTransaction => {
                let inside = self.track.tx != Tx::Idle || self.virt != Virtual::None;
                let limit = match inside {
                    true => settings.idle_in_transaction_timeout,
                    false => settings.idle_timeout,
                };
                // Seen from outside; only the session knows whether it is still so.
                let meant = inside == (why == Quit::IdleInTransaction);
                if !meant || limit.is_zero() || !self.says_nothing() {
                    return Ok(());
                }
                refuse::idle(limit, inside)
            }
        };
        self.expel(&report).await
    }

    /// Nothing is asked, nothing is answered, nothing waits.
    fn says_nothing(&self) -> bool {
        self.track.answered()
            && self.parked.is_none()
            && self.cancelling.is_none()
            && self.client.inbox.is_empty()
            && self.client_rest == 0
    }

    /// Tells the client, closes its connection, and lets what is in flight come to its end.
    pub(crate) async fn expel(&mut self, report: &Report) -> Result<(), End> {
        if self.client_gone {
            return Ok(());
        }
        // Half a message of the server's is out: nothing can be said in this protocol any more.
        if self.server_rest == 0 {
            report.error(self.client.queue());
        }
        let told = async {
            self.client.flush().await?;
            poll_fn(|cx| self.client.poll_hang_up(cx, true)).await
        };
        let _ = tokio::time::timeout(LAST_WORDS, told).await;
        self.on_client_gone().await
    }
}
