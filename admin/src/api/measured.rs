//! What a run cost, as the daemon's own data path saw it.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// Measurements of one run, and the objectives that were in force. What nobody saw is null: with no
/// writer at work there is no first write behind the opening.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct Measured {
    /// From the last outcome learned before the opening (or the fence, where nothing was in flight)
    /// to the first one behind it; of the writes that waited, where any did.
    pub write_gap_ms: Option<u64>,
    /// The last outcome learned of a write admitted before the opening; null if none was in flight
    /// when the fence fell.
    pub last_write_before: Option<Timestamp>,
    /// The first outcome learned behind the opening.
    pub first_write_after: Option<Timestamp>,
    /// That one had waited behind the fence, so it is a write for certain; otherwise it may have
    /// been a read, since while open every statement is counted.
    pub first_was_held: Option<bool>,
    /// The longest that a session was without a server that it could read from.
    pub read_gap_ms: Option<u64>,
    /// Writes that waited behind the fence.
    pub held: Option<u64>,
    /// The longest that one waited.
    pub longest_hold_ms: Option<u64>,
    /// Statements refused by the fence.
    pub refused: Option<u64>,
    /// Held writes that were refused because their time was over.
    pub expired: Option<u64>,
    /// Writes whose outcome is unknown, now.
    pub unknown: Option<u64>,
    /// Sessions moved to the new primary.
    pub sessions_moved: Option<u64>,
    /// Sessions ended because they could not be moved.
    pub sessions_ended: Option<u64>,
    /// When the old primary last answered before the run; the least that a failover's outage lasted.
    pub old_primary_last_seen: Option<Timestamp>,
    /// Log of the old primary that the new one does not have, bytes: 0 where that was shown, the
    /// least it can be where it was last seen beyond the fork, null where nobody can tell.
    pub lost_bytes: Option<u64>,
    /// The objective for the time of recovery.
    pub rto_ms: Option<u64>,
    /// The objective for the loss, as time.
    pub rpo_ms: Option<u64>,
}
