//! What the gate counts, for metrics and documents.
//!
//! Statistics only: nothing is decided by them. Each held write ends in exactly one of the held
//! counts, so that their sum is `held_total` at any instant.

use super::{epoch::Epoch, phase::Lane};

/// The counts of one lane.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LaneCounts {
    /// Permits issued since the start.
    pub admitted_total: u64,
    /// Permits ended since the start, lost ones included; `admitted - released` is in flight.
    pub released_total: u64,
    /// Writes taken into the waiting room since the start.
    pub held_total: u64,
    /// Of these: admitted in the end.
    pub held_released: u64,
    /// Refused because their time was over.
    pub held_expired: u64,
    /// Dropped because their client left.
    pub held_abandoned: u64,
    /// Refused because the fence came to reject.
    pub held_refused: u64,
    /// Cancelled by their client.
    pub held_cancelled: u64,
    /// Waiting now.
    pub held_waiting: u64,
    /// Bytes of those waiting now.
    pub held_bytes: u64,
    /// Not taken into the waiting room because it was full; not part of `held_total`.
    pub turned_away_total: u64,
}

/// The counts of a gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// Epoch at the time of counting.
    pub epoch: Epoch,
    /// HTTP lane.
    pub http: LaneCounts,
    /// SQL lane.
    pub sql: LaneCounts,
    /// Writes with unknown outcome now.
    pub unknown: u64,
}

impl Counts {
    /// The counts of one lane.
    pub fn lane(&self, lane: Lane) -> &LaneCounts {
        match lane {
            Lane::Http => &self.http,
            Lane::Sql => &self.sql,
        }
    }
}

/// How a held write ends other than by admission.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum End {
    /// Its time was over.
    Expired,
    /// The fence came to reject.
    Refused,
    /// Its client cancelled it.
    Cancelled,
    /// Its client left.
    Abandoned,
}
