//! The audit as the daemon shows it.

use serde::{Deserialize, Serialize};

/// `GET /v1/audit?after=<seq>&limit=<n>`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AuditPage {
    /// The public key, as a C2SP `vkey`: what `audit verify --key` takes.
    pub key: String,
    /// Records written so far.
    pub size: u64,
    /// The newest signed checkpoint; whoever keeps a copy of it elsewhere sees a cut end.
    pub checkpoint: String,
    /// Records behind `after` as they stand on disk, byte for byte.
    pub lines: Vec<String>,
    /// The number of the last of them; the next call's `after`.
    pub last: u64,
    /// Nothing follows.
    pub end: bool,
    /// Why records wait to be written; null if none do.
    pub broken: Option<String>,
}
