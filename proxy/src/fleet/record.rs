//! The values a store keeps: the gate's phase and the daemon's own life.
//!
//! These are formats on disk; a field may be added, none may change its meaning.

use serde::{Deserialize, Serialize};

/// A group's phase as it must survive a restart.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct GateRecord {
    /// Format of this file.
    pub version: u32,
    /// The group's name, also the file's.
    pub group: String,
    /// The epoch of the phase; grows with each write.
    pub epoch: u64,
    /// Open or fenced.
    pub phase: StoredPhase,
    /// The region that takes writes, or took them last.
    pub primary: String,
    /// Which server the primary is, so that another one under its address is refused.
    #[serde(default)]
    pub identity: Option<StoredIdentity>,
    /// The run that made this phase.
    #[serde(default)]
    pub run: Option<String>,
    /// When, RFC 3339.
    pub at: String,
}

/// The phase on disk. How a fence answers does not survive: a restart has nobody held.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum StoredPhase {
    /// A first start that has not been decided: the regions have not all answered yet.
    New,
    /// Writes pass.
    Open,
    /// Writes are held or refused.
    Fenced,
}

/// A server's identity as plain values: the system identifier as text, since it fills 64 bits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoredIdentity {
    /// `pg_control_system().system_identifier`.
    pub system_identifier: String,
    /// Timeline.
    pub timeline: u32,
    /// Where the timeline left its parent, as `X/X`.
    #[serde(default)]
    pub fork_lsn: Option<String>,
}

/// One life of the daemon.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct InstanceRecord {
    /// Format of this file.
    pub version: u32,
    /// Random, made at the first start and kept: where epochs are comparable.
    #[serde(default)]
    pub store: String,
    /// Random, new for each start.
    pub incarnation: String,
    /// When it began, RFC 3339.
    pub started: String,
    /// Kernel boot, so that a successor knows whether un-synced appends can be trusted.
    pub boot: String,
    /// Process id, for people.
    pub pid: u32,
    /// True once it stopped with nothing in flight.
    pub clean: bool,
    /// Groups whose state exists; one that is listed and has no file has lost it.
    pub groups: Vec<String>,
}

/// Format written by this version.
pub const VERSION: u32 = 1;
