//! The `status` document: what is, per group, without any waiting.
//!
//! Built from memory and from the last probes, so it is answered even when every database is
//! gone. A value that no probe has shown yet is `null`.

use serde::{Deserialize, Serialize};

use super::{Drain, Run, Timestamp};

/// `GET /v1/status`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Status {
    /// The daemon's release.
    pub version: String,
    /// When this daemon started.
    pub started: Timestamp,
    /// Every group, in the order of the configuration.
    pub groups: Vec<GroupStatus>,
}

/// One group: what fails over as one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct GroupStatus {
    /// Its name in the configuration.
    pub name: String,
    /// `fenced` only when all lanes are.
    pub phase: Phase,
    /// The fence's answer; null while open.
    pub answer: Option<FenceAnswer>,
    /// Raised by every phase change.
    pub epoch: u64,
    /// The region of the accepted target; null if none is accepted (no state yet).
    pub primary: Option<String>,
    /// The gate's two lanes.
    pub lanes: Lanes,
    /// What is admitted or waits.
    pub in_flight: InFlight,
    /// The drain in force or the last one of this epoch.
    pub drain: Option<Drain>,
    /// Every region, in the order of the configuration.
    pub regions: Vec<RegionStatus>,
    /// Replication connections: they hold no permit and are no sessions.
    #[serde(default)]
    pub replication: u64,
    /// The live run, or the last one until the next begins.
    pub run: Option<Run>,
    /// What an operator has to know first, as sentences; empty when all is well.
    pub notices: Vec<String>,
}

/// Whether writes pass.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Phase {
    /// Writes pass.
    Open,
    /// New writes are held or rejected.
    Fenced,
}

/// What a fence does with new writes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum FenceAnswer {
    /// They wait, bounded in number, bytes and time.
    Hold,
    /// They are refused at once.
    Reject,
}

/// Both lanes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Lanes {
    /// Requests of the HTTP front.
    pub http: LaneStatus,
    /// Statements of the PostgreSQL front; the TCP front belongs here too.
    pub sql: LaneStatus,
}

/// One lane.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct LaneStatus {
    /// Whether writes pass in this lane.
    pub phase: Phase,
    /// The fence's answer in this lane; null while open.
    pub answer: Option<FenceAnswer>,
    /// Permits alive in this lane.
    pub in_flight: u64,
}

/// Counts of a group. Null is "not known", which is not 0.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct InFlight {
    /// Admitted, outcome not known yet, client still there.
    pub executing: u64,
    /// Admitted, outcome not known yet, client gone.
    pub orphaned: u64,
    /// Read-write transactions that hold a permit.
    pub open_transactions: u64,
    /// Writes that wait for the gate to open.
    pub held: u64,
    /// Writes whose upstream was lost before their outcome was known.
    pub unknown: u64,
    /// Transactions prepared on the primary; null if it could not be asked.
    pub prepared_transactions: Option<u64>,
}

/// What the last probe of a region showed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RegionStatus {
    /// Its name in the configuration.
    pub name: String,
    /// Where its host name leads in this epoch, with the port; null before it was asked for.
    #[serde(default)]
    pub address: Option<String>,
    /// What the server says it is.
    pub role: Option<Role>,
    /// Whether the server itself would take writes.
    pub writable: Option<bool>,
    /// PostgreSQL's system identifier, as text.
    pub system_identifier: Option<String>,
    /// PostgreSQL's timeline.
    pub timeline: Option<u32>,
    /// Insert position of a primary, replay position of a standby, as `X/X`.
    pub lsn: Option<String>,
    /// Bytes behind the primary.
    pub lag_bytes: Option<u64>,
    /// Seconds behind the primary.
    pub lag_seconds: Option<f64>,
    /// Null before the first probe has ended, and for a region that is not probed.
    pub reachable: Option<bool>,
    /// Milliseconds since the last probe ended.
    pub last_probe_ms: Option<u64>,
    /// Why the region cannot be reached or used, as a sentence.
    pub problem: Option<String>,
}

/// What a server says it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Not in recovery.
    Primary,
    /// In recovery.
    Standby,
}
