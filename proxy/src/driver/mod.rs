//! How a candidate is observed and promoted.
//!
//! A driver carries out; it never decides. What is promoted was chosen and pinned by the run, and a
//! driver must refuse when the server at hand is not in the state that was pinned: a call may be
//! late, and the run that made it may be over.

mod command;
mod driven;
mod error;
mod patroni;
mod postgres;
#[cfg(test)]
mod tests;

/// The program by itself, for groups that have no database to be asked beside it.
pub mod program {
    pub use super::command::{Call, Said, observe, promote_unpinned};
}

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::Instant;

pub use driven::{Driven, Means};
pub use error::DriverError;
pub use postgres::Postgres;

use crate::upstream::{Observation, Timeline};

/// The state in which a candidate may be promoted: a standby of this system, on this timeline.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Pinned {
    /// The group's system identifier.
    pub system_identifier: u64,
    /// The timeline in force, which the candidate must be receiving.
    pub timeline: Timeline,
}

/// A candidate that has left recovery.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Promotion {
    /// Whether this call did it; otherwise it was found done.
    pub by_us: bool,
    /// From the request until the server was out of recovery.
    pub took: Duration,
    /// How often the request had to be repeated (see `postgres`).
    pub repeats: u32,
    /// The server right afterwards. Whether this is an acceptable primary is for the check of the
    /// target to say.
    pub observation: Observation,
}

/// One way to deal with a candidate.
pub trait Driver: Send + Sync {
    /// Looks at it.
    fn observe(&self) -> BoxFuture<'_, Result<Observation, DriverError>>;

    /// Promotes it if it is in the pinned state, and returns when it is out of recovery. A
    /// candidate that is out of recovery already is answered with its observation.
    fn promote(
        &self,
        pinned: Pinned,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Promotion, DriverError>>;
}
