//! The `drain` document: waiting until nothing admitted at or before an epoch is in flight.
//!
//! A drain is an object with an id. A command that overtakes it ends it as `superseded`; after
//! `timed_out` the fence stays and the next `watch-drain` starts a new drain of the same epoch.

use serde::{Deserialize, Serialize};

use super::{ApiError, Code, Timestamp};

/// Answer of `watch-drain` and of `GET /v1/groups/{g}/drains/{id}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Drain {
    /// Names the drain within its group.
    pub id: String,
    /// What is waited for: permits of this epoch and older ones.
    pub epoch: u64,
    /// Null while it goes on.
    pub outcome: Option<DrainOutcome>,
    /// When it began.
    pub started: Timestamp,
    /// When it gives up; null if it never does.
    pub deadline: Option<Timestamp>,
    /// Permits still alive.
    pub lanes: LaneCounts,
    /// Writes of unknown outcome, which block `drained`.
    pub unknown: u64,
    /// Who is still in flight; filled when the deadline has passed, and before as far as known.
    pub stragglers: Vec<Straggler>,
}

/// Permits alive per lane.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct LaneCounts {
    /// Requests.
    pub http: u64,
    /// Statement groups and open transactions.
    pub sql: u64,
}

/// How a drain ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum DrainOutcome {
    /// Nothing of the epoch is alive, and nothing is unknown.
    Drained,
    /// Nothing is alive; unknown outcomes were accepted by the operator.
    DrainedWithUnknown,
    /// Something was alive at the deadline.
    TimedOut,
    /// A later command took over.
    Superseded,
}

/// An in-flight write that outlives the drain.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Straggler {
    /// What it is.
    pub kind: StragglerKind,
    /// Session id, request id or the prepared transaction's identifier.
    pub id: String,
    /// Database user.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    /// Process id of the backend on the server.
    pub pid: Option<i32>,
    /// How long the write has been in flight, milliseconds.
    pub age_ms: Option<u64>,
    /// What it is doing, as in the list of sessions.
    pub state: Option<String>,
    /// Fingerprint of the statement or the request, never its text.
    pub digest: Option<String>,
}

/// Kinds of stragglers.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StragglerKind {
    /// A statement or an open transaction.
    Sql,
    /// A request.
    Http,
    /// A connection of another protocol, which is not looked into.
    Tcp,
    /// A prepared transaction.
    Prepared,
}

impl Drain {
    /// What a drain that has ended means for the command that waited; `Ok` while it goes on.
    pub fn verdict(&self) -> Result<(), ApiError> {
        match self.outcome {
            None | Some(DrainOutcome::Drained | DrainOutcome::DrainedWithUnknown) => Ok(()),
            Some(DrainOutcome::TimedOut) => Err(self.timed_out()),
            Some(DrainOutcome::Superseded) => Err(ApiError::new(
                Code::Superseded,
                format!(
                    "drain {} of epoch {} was superseded by a later command",
                    self.id, self.epoch
                ),
            )
            .hint("`writefencectl status` shows what the group is doing now")
            .epoch(self.epoch)),
        }
    }

    fn timed_out(&self) -> ApiError {
        let message = format!(
            "drain {} timed out with {} statements and {} requests in flight and {} unknown",
            self.id, self.lanes.sql, self.lanes.http, self.unknown
        );
        ApiError::new(Code::DrainTimedOut, message)
            .hint(
                "the fence stays; end the stragglers and run `watch-drain` again, \
                 cancel them with `watch-drain --force`, or `abort`",
            )
            .epoch(self.epoch)
    }
}
