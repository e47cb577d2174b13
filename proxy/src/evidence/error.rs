//! Why evidence could not be had.

use std::time::Duration;

use super::clear::ForeignWriters;
use super::lost::NextXid;
use super::marker::Held;
use crate::upstream::wire::QueryError;
use crate::upstream::{Lsn, Mismatch, Timeline};

/// Why a barrier does not stand, or was not lifted.
#[derive(Debug, thiserror::Error)]
pub enum BarrierError {
    /// The server could not be asked; what took effect is unknown, the call may be repeated.
    #[error("the barrier could not be worked on")]
    Query(#[from] QueryError),
    /// The observer's role lacks rights.
    #[error("the observer's role lacks rights; as a superuser run: {}", .grants.join(" "))]
    Privilege {
        /// Statements that would give them.
        grants: Vec<String>,
    },
    /// This is not the server that was meant.
    #[error("this is not the server that was meant")]
    OtherServer(#[from] Mismatch),
    /// Somebody else's barrier, or a later one of ours.
    #[error(transparent)]
    Held(#[from] Held),
    /// Another observer is at work on this server's barrier.
    #[error(
        "another observer{} is at work on the barrier of this server, for {after:?} already",
        .pid.map(|pid| format!(" (backend {pid})")).unwrap_or_default()
    )]
    Busy {
        /// Its backend, if it can be seen.
        pid: Option<i32>,
        /// How long was waited.
        after: Duration,
    },
    /// The server does not read its configuration anew.
    #[error("the server has not reloaded its configuration within {after:?}; see its log")]
    NotReloaded {
        /// How long was waited.
        after: Duration,
    },
    /// The setting did not take the value that was set.
    #[error(
        "default_transaction_read_only is {found} (source: {from}) and not {wanted} after a reload"
    )]
    NotInForce {
        /// The value in the observer's session.
        found: String,
        /// Where PostgreSQL says it comes from.
        from: String,
        /// What was set.
        wanted: &'static str,
    },
    /// The setting is on, and nothing says that a barrier set it.
    #[error(
        "default_transaction_read_only is on (source: {from}{}) and no barrier of ours set it; \
         reset it there, or open with another primary",
        .file.as_ref().map(|file| format!(", file {file}")).unwrap_or_default()
    )]
    NotOurs {
        /// Where PostgreSQL says it comes from.
        from: String,
        /// The file, if it may be seen.
        file: Option<String>,
    },
    /// Somebody has written since the fence LSN was taken. Take it again, let the candidate catch
    /// up, and ask again.
    #[error(
        "the next transaction id is {}, {} wanted: somebody has written since the fence LSN",
        .found.value(), .wanted.value()
    )]
    Written {
        /// The server's.
        found: NextXid,
        /// As it was when the fence LSN was taken.
        wanted: NextXid,
    },
    /// Backends that write, or could, and cannot be ended.
    #[error(transparent)]
    Foreign(#[from] ForeignWriters),
}

/// Why there is no fence LSN.
#[derive(Debug, thiserror::Error)]
pub enum FenceLsnError {
    /// The server could not be asked.
    #[error("the fence LSN could not be taken")]
    Query(#[from] QueryError),
    /// Others write to the log all the time, so its end is never on disk.
    #[error("the log is flushed up to {flushed}, {wanted} wanted: others are still writing")]
    NotFlushed {
        /// The flush position.
        flushed: Lsn,
        /// The insert position that was to be covered.
        wanted: Lsn,
    },
}

/// Why a candidate did not reach the fence LSN.
#[derive(Debug, thiserror::Error)]
pub enum NotCaughtUp {
    /// The candidate could not be asked.
    #[error("the candidate could not be asked for its position")]
    Query(#[from] QueryError),
    /// Time is up.
    #[error(
        "the candidate has replayed {}, {wanted} wanted",
        .replayed.map_or_else(|| "nothing that it would tell".to_owned(), |lsn| lsn.to_string())
    )]
    Behind {
        /// What it last said.
        replayed: Option<Lsn>,
        /// The fence LSN.
        wanted: Lsn,
    },
    /// It is not a standby any more.
    #[error("the candidate is no longer in recovery: somebody else promoted it")]
    Promoted,
    /// It follows another timeline, on which positions mean something else.
    #[error("the candidate follows timeline {found}, {wanted} wanted")]
    OtherTimeline {
        /// The timeline it receives.
        found: Timeline,
        /// The old primary's.
        wanted: Timeline,
    },
}
