//! The report of a run: what happened when, what it cost, what it rests on.
//!
//! [`Report`] is the document (its schema is `admin/report.schema.json`), [`markdown`] the same for
//! people. Made of the run's journal alone and of what stands beside it in the audit, so that it can
//! be made again long after. Pure: nothing is asked of any server.

mod build;
mod markdown;
#[cfg(test)]
mod tests;

use serde::{Deserialize, Serialize};

use crate::api::{
    DivergedLog, Event, Loss, Measured, Run, Step, StepState, Timestamp, UnknownWrite,
};

pub use build::build;
pub use markdown::markdown;

/// `GET /v1/runs/{id}/report`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Report {
    /// When the report was made.
    pub made: Timestamp,
    /// The daemon's version.
    pub version: String,
    /// The run: what was asked, its steps, its certificate, its exceptions.
    pub run: Run,
    /// Each step that was begun, with its time.
    pub steps: Vec<StepTime>,
    /// Everything that happened, in order.
    pub timeline: Vec<Event>,
    /// What it cost; null if the run has not come to the point where that is measured.
    pub measured: Option<Measured>,
    /// Objectives beside what was reached.
    pub objectives: Objectives,
    /// Where the log was left and gone on with.
    pub lineage: Lineage,
    /// What an unplanned move was said to lose, and what it lost.
    pub loss: Lost,
    /// Writes whose outcome nobody was told, as far as they are still listed.
    pub unknown: Vec<UnknownWrite>,
    /// Where the audit stands; null without one.
    pub audit: Option<Audited>,
}

/// A step and its time.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StepTime {
    /// Which.
    pub step: Step,
    /// How it stands.
    pub state: StepState,
    /// When it was begun last.
    pub started: Option<Timestamp>,
    /// How long it took, milliseconds; null while it goes on, and for one that was skipped.
    pub took_ms: Option<u64>,
}

/// What was to be reached, and what was.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Objectives {
    /// The objective for the time of recovery, milliseconds.
    pub rto_ms: Option<u64>,
    /// How long it took: from the old primary's last sign of life (a failover), else from the last
    /// write before the fence, to the first write behind it.
    pub recovery_ms: Option<u64>,
    /// Whether it was reached; null where that cannot be told.
    pub rto_met: Option<bool>,
    /// The objective for the loss, milliseconds of writes.
    pub rpo_ms: Option<u64>,
    /// Log that is lost, bytes: see `measured.lost_bytes`.
    pub lost_bytes: Option<u64>,
    /// Whether it was reached; null where that cannot be told.
    pub rpo_met: Option<bool>,
}

/// Where the new timeline left the old one.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lineage {
    /// The cluster.
    pub system_identifier: Option<String>,
    /// The old primary's timeline.
    pub old_timeline: Option<u32>,
    /// The position that everything acknowledged lies before.
    pub fence_lsn: Option<String>,
    /// The new primary's timeline.
    pub new_timeline: Option<u32>,
    /// Where it left the old one, by its own history.
    pub fork_lsn: Option<String>,
}

/// Stated and measured; both null for a planned move, which loses nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Lost {
    /// Before the fence.
    pub stated: Option<Loss>,
    /// Behind the promotion, and anew when the old primary is seen again.
    pub measured: Option<DivergedLog>,
}

/// The audit, as it stood when the report was made.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Audited {
    /// The public key.
    pub key: String,
    /// Records.
    pub size: u64,
    /// The signed checkpoint: keep the report elsewhere, and a cut end shows.
    pub checkpoint: String,
}
