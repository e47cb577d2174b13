//! A group inside a read-only transaction of ours: DO, CALL.
//!
//! Their code may end the transaction it runs in and make the next one read-write, which wall two
//! alone does not stop. Inside a block PostgreSQL refuses that (2D000). The client sees none of it:
//! it gets the group's own answers, and the status of a session without a transaction.

use super::kept::Wrap;
use super::message::{Report, own};
use super::refuse;
use super::session::{End, Session};

/// What PostgreSQL says when such a group would have written, or ended our transaction: a write, an
/// end of the transaction, READ WRITE asked for.
const WROTE: [&str; 3] = ["25006", "2D000", "25001"];

/// Whether this SQLSTATE tells that the group in flight is a write.
pub(crate) fn tells_write(sqlstate: &str, wrap: Wrap) -> bool {
    match wrap {
        Wrap::None => sqlstate == WROTE[0],
        Wrap::Around | Wrap::ToEnd(_) => WROTE.contains(&sqlstate),
    }
}

impl Session {
    /// Begins the transaction. False when the group has been refused instead.
    pub(crate) async fn wrap(&mut self) -> Result<bool, End> {
        self.close_unsynced().await?;
        let mut message = Vec::new();
        own(&mut message, "BEGIN READ ONLY");
        let begun = self.question(&message, 1).await?;
        if begun.is_some_and(|answer| answer.status == b'T') {
            self.kept.wrap = Wrap::Around;
            return Ok(true);
        }
        let report = match &self.server {
            Some(_) => self
                .fence()
                .write("it could not be run in a read-only transaction"),
            None => self.lost_at("BEGIN"),
        };
        self.refuse_group(&report).await?;
        Ok(false)
    }

    /// The group is answered: ends the transaction, then tells the client that it may go on.
    pub(crate) async fn unwrap(&mut self, status: u8) -> Result<(), End> {
        let end = if status == b'T' { "COMMIT" } else { "ROLLBACK" };
        let mut message = Vec::new();
        own(&mut message, end);
        let part = self.kept.part;
        let ended = self.question(&message, 1).await?;
        // A server that was lost took with it what was kept; what the client is owed stays.
        self.kept.part = part;
        let mut failed = status != b'T';
        let trouble = match &ended {
            None => Some(self.lost_at(end)),
            Some(answer) => answer.error.as_ref().map(|(sqlstate, message)| {
                if tells_write(sqlstate, self.kept.wrap) {
                    self.kept.mark_misjudged();
                    return self.fence().write("PostgreSQL found that it writes");
                }
                Report {
                    severity: "ERROR",
                    sqlstate: sqlstate.clone(),
                    message: message.clone(),
                    ..Report::default()
                }
            }),
        };
        self.kept.wrap = Wrap::None;
        if self.kept.misjudged() {
            return self.on_misjudged().await;
        }
        self.kept.answered();
        let withheld = self.kept.let_go().unwrap_or_default();
        self.client.queue().extend_from_slice(&withheld);
        if let Some(report) = trouble {
            failed = true;
            report.error(self.client.queue());
        }
        self.close_here(failed);
        Ok(())
    }

    /// The server was lost at a statement of ours, with nothing undecided.
    pub(crate) fn lost_at(&self, statement: &str) -> Report {
        let region = self.group.targets.accepted().region.clone();
        refuse::lost(
            region.as_str(),
            &format!("it was lost at {statement}"),
            true,
        )
    }
}
