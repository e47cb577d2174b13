//! Why a candidate was not observed or not promoted.

use std::time::Duration;

use crate::upstream::wire::{LoginError, QueryError};
use crate::upstream::{Mismatch, Timeline};

/// Why a driver has no success to report.
#[derive(Debug, thiserror::Error)]
pub enum DriverError {
    /// No login; nothing was asked.
    #[error("the candidate could not be logged in to")]
    Login(#[from] LoginError),
    /// No answer. If it was a promotion, whether it takes place is unknown: ask again.
    #[error("the candidate did not answer")]
    Query(#[from] QueryError),
    /// It is not the standby that was pinned; nothing was done.
    #[error("the candidate is not the server that was pinned")]
    OtherServer(#[source] Mismatch),
    /// It follows another timeline than the one pinned; nothing was done.
    #[error(
        "the candidate follows {}, the pinned timeline is {wanted}; it was not promoted",
        .found.map_or_else(|| "a timeline it does not tell".to_owned(), |t| format!("timeline {t}"))
    )]
    OtherTimeline {
        /// What it follows.
        found: Option<Timeline>,
        /// What was pinned.
        wanted: Timeline,
    },
    /// The role may not promote; nothing was done.
    #[error("the observer's role may not promote; as a superuser run on the primary: {}", .grants.join(" "))]
    Privilege {
        /// Statements that would give the right.
        grants: Vec<String>,
    },
    /// The server would not take the request.
    #[error("pg_promote() was refused by the candidate without a reason; see its log")]
    NotStarted,
    /// Whoever promotes here refused, failed or contradicts what was pinned; how it says so.
    #[error("{0}")]
    Asked(String),
    /// Requested, but still in recovery. It may leave recovery any moment: ask again.
    #[error("the candidate is still in recovery {after:?} after the promotion was requested")]
    StillInRecovery {
        /// Since the request.
        after: Duration,
    },
}
