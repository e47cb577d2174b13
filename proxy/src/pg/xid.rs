//! The transaction's id, asked for before its COMMIT is sent (`sql.track_xid`).
//!
//! With it a COMMIT whose answer was lost can be looked up later. Not covered are writes outside of a
//! transaction, which have no id before they run, and a COMMIT in the same message or run as what it
//! commits; those are left to the observer's samples.

use super::frame::cstr;
use super::message::{bind_head, body, own, parse_head};
use super::session::{End, Session};
use super::track::Tx;

const QUESTION: &str = "SELECT pg_catalog.pg_current_xact_id_if_assigned()::pg_catalog.text";

/// What is known of the open transaction's id.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) enum Xid {
    /// Nobody has asked.
    #[default]
    NotAsked,
    /// It has none: nothing was written.
    None,
    /// This one.
    Known(u64),
}

impl Xid {
    /// From the answer to the question.
    pub(crate) fn read(row: Option<&Option<String>>) -> Self {
        match row.and_then(Option::as_deref).map(str::parse) {
            Some(Ok(xid)) => Self::Known(xid),
            Some(Err(_)) | None => Self::None,
        }
    }

    pub(crate) fn known(self) -> Option<u64> {
        match self {
            Self::Known(xid) => Some(xid),
            Self::NotAsked | Self::None => None,
        }
    }
}

impl Session {
    /// The group that begins with this message ends the transaction, and its id is still to be
    /// asked for.
    pub(crate) fn wants_xid(&self, message: &[u8]) -> bool {
        self.group.settings.load().track_xid
            && self.track.tx == Tx::Open
            && self.xid == Xid::NotAsked
            && !self.track.unsynced()
            && self.commits(message)
    }

    fn commits(&self, message: &[u8]) -> bool {
        match message.first() {
            Some(b'Q') => cstr(body(message)).is_some_and(|(text, _)| is_commit(text)),
            Some(b'P') => parse_head(message).is_some_and(|(_, text)| is_commit(text)),
            Some(b'B') => bind_head(message)
                .and_then(|(_, statement)| self.track.find(statement))
                .is_some_and(|prepared| is_commit(prepared.text())),
            _ => false,
        }
    }

    /// Asks for the id. Nothing of the client's is in flight.
    pub(crate) async fn learn_xid(&mut self) -> Result<(), End> {
        let mut run = Vec::new();
        own(&mut run, QUESTION);
        if let Some(answer) = self.question(&run, 1).await? {
            self.xid = Xid::read(answer.rows.first());
        }
        Ok(())
    }
}

/// By the first word: what is missed costs the knowledge of an id, nothing else.
fn is_commit(text: &[u8]) -> bool {
    let text = text.trim_ascii_start();
    let end = text
        .iter()
        .position(|b| !b.is_ascii_alphabetic())
        .unwrap_or(text.len());
    let word = text.get(..end).unwrap_or_default();
    word.eq_ignore_ascii_case(b"commit")
        || word.eq_ignore_ascii_case(b"end")
        || (word.eq_ignore_ascii_case(b"prepare")
            && text
                .get(end..)
                .unwrap_or_default()
                .trim_ascii_start()
                .get(..11)
                .is_some_and(|next| next.eq_ignore_ascii_case(b"transaction")))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ends_a_transaction_is_known_by_its_first_words() {
        for text in [
            "COMMIT",
            " commit;",
            "End",
            "commit and chain",
            "PREPARE  TRANSACTION 'x'",
        ] {
            assert!(is_commit(text.as_bytes()), "{text}");
        }
        for text in [
            "",
            "ROLLBACK",
            "committed",
            "PREPARE p AS SELECT 1",
            "ENDING",
        ] {
            assert!(!is_commit(text.as_bytes()), "{text}");
        }
    }

    #[test]
    fn no_id_is_not_an_id() {
        assert_eq!(Xid::read(None), Xid::None);
        assert_eq!(Xid::read(Some(&None)), Xid::None);
        assert_eq!(Xid::read(Some(&Some("731".into()))).known(), Some(731));
    }
}
