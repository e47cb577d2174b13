//! The certificate that a promotion rests on, and the evidence in it.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What `promote` demands: nothing of the epoch is in flight, and the old primary is barred.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Certificate {
    /// The group.
    pub group: String,
    /// The fence's epoch.
    pub epoch: u64,
    /// When the fence fell.
    pub fenced_at: Timestamp,
    /// Writes in flight: 0, or there is no certificate.
    pub executing: u64,
    /// Writes without a client in flight: 0, or there is no certificate.
    pub orphaned: u64,
    /// Unknown outcomes that the operator accepted.
    pub unknown: u64,
    /// What bars the old primary.
    pub evidence: Evidence,
    /// The log position that the candidate must reach; null if the old primary could not say.
    pub fence_lsn: Option<String>,
    /// The old primary's system identifier, as text.
    pub system_identifier: Option<String>,
    /// The old primary's timeline.
    pub timeline: Option<u32>,
    /// Members that have acknowledged the fence; empty without a fleet.
    pub acks: Vec<String>,
}

/// What shows that the old primary takes no more writes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Evidence {
    /// Of which kind.
    pub kind: EvidenceKind,
    /// When it was established.
    pub at: Timestamp,
    /// What was seen or done, as a sentence.
    pub detail: String,
}

/// Kinds of evidence about the old primary.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum EvidenceKind {
    /// Reachable and made read-only, every foreign session ended.
    Barrier,
    /// Seen to be shut down.
    Stopped,
    /// Powered off or cut off by a command.
    Stonith,
    /// Cannot commit without the candidate.
    Sync,
    /// The operator's word, with a reason.
    Override,
}

impl fmt::Display for EvidenceKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}
