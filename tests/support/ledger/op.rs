//! One operation of a client, and what the client may conclude about it.

use std::time::Duration;

use serde::Serialize;
use tokio_postgres::error::{DbError, Error, Severity};

use super::shape::Shape;

/// What the client knows at the end of an operation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// The server said that it is done.
    Acked,
    /// A fence said that it was not executed.
    Refused,
    /// Another definite no: an error on a living connection, or the loss came before anything
    /// that could take effect was sent.
    Failed,
    /// The connection ended (or SQLSTATE 08007) between the sending and the answer.
    Unknown,
    /// There was no connection to send it on.
    NoConnection,
}

/// The client-made name of a write: what its rows carry.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub struct Id {
    /// Shape of the client.
    pub shape: Shape,
    /// Number among the clients of its shape.
    pub client: i16,
    /// Counts from 1; 0 for an attempt to connect, which writes nothing.
    pub seq: i32,
}

/// One operation as its client saw it. Times count from the start of the load.
#[derive(Debug, Clone, Serialize)]
pub struct Op {
    /// Which one.
    pub id: Id,
    /// When it was begun.
    pub start: Duration,
    /// When its outcome was known.
    pub end: Duration,
    /// What is known.
    pub outcome: Outcome,
    /// The server's code, where it gave one.
    pub sqlstate: Option<String>,
    /// Whether the connection went with it.
    pub lost: bool,
}

/// Whether anything that could take effect had been sent when the connection was lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// The statement, or the COMMIT of the transaction, never left.
    No,
    /// It may have arrived.
    Maybe,
}

/// An operation that was not acknowledged.
#[derive(Debug, Clone)]
pub struct Failure {
    /// The server's code, where it gave one.
    pub sqlstate: Option<String>,
    /// Whether the connection is gone.
    pub lost: bool,
    /// What had been sent.
    pub sent: Sent,
    /// Whether the text says that the statement was not executed.
    pub not_executed: bool,
}

impl Failure {
    /// From the driver's error, with what had been sent by then.
    #[must_use]
    pub fn of(error: &Error, sent: Sent) -> Self {
        let server = error.as_db_error();
        // Some proxies leave out the field that is never translated.
        let fatal = |e: &DbError| match e.parsed_severity() {
            Some(severity) => matches!(severity, Severity::Fatal | Severity::Panic),
            None => is_fatal(e.severity()),
        };
        Self {
            sqlstate: error.code().map(|code| code.code().to_owned()),
            // An error that didn't come from the server came from the socket.
            lost: server.is_none_or(fatal),
            sent,
            not_executed: server.is_some_and(|e| {
                says_not_executed(e.message()) || e.detail().is_some_and(says_not_executed)
            }),
        }
    }

    /// The connection went without a word.
    #[must_use]
    pub const fn lost(sqlstate: Option<String>, sent: Sent) -> Self {
        Self {
            sqlstate,
            lost: true,
            sent,
            not_executed: false,
        }
    }

    /// What a careful client may conclude. 25006 is the fence's usual code; a listener may be
    /// configured to another, and then the text says what happened. Class 08 is a connection's
    /// trouble: told by a proxy about its server, it leaves open what became of the statement.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        let code = self.sqlstate.as_deref().unwrap_or_default();
        // A status of HTTP has three digits, and other than the fence's own answer it leaves that
        // open too.
        let may_have_happened = self.lost || code.starts_with("08") || code.len() == 3;
        match code {
            "08007" => Outcome::Unknown,
            "25006" => Outcome::Refused,
            _ if self.not_executed => Outcome::Refused,
            _ if may_have_happened && self.sent == Sent::Maybe => Outcome::Unknown,
            _ => Outcome::Failed,
        }
    }
}

pub(super) fn is_fatal(severity: &str) -> bool {
    matches!(severity, "FATAL" | "PANIC")
}

pub(super) fn says_not_executed(text: &str) -> bool {
    text.contains("not executed")
}
