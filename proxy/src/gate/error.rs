//! Why the waiting room does not take a write.
//!
//! All of them mean: not executed. The words a client sees are made by the fronts.

use super::epoch::Epoch;

/// A write was not taken into the waiting room, and was not executed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The fence rejects instead of holding.
    #[error("writes are fenced at epoch {epoch} and the fence rejects them")]
    Fenced {
        /// Epoch of the fence.
        epoch: Epoch,
    },
    /// As many writes are held as may be.
    #[error("the waiting room holds {limit} writes, which is its limit")]
    RoomFull {
        /// The limit, in writes.
        limit: usize,
    },
    /// The held writes have as many bytes as they may.
    #[error("with this write the waiting room would hold more than its limit of {limit} bytes")]
    RoomBytes {
        /// The limit, in bytes.
        limit: usize,
    },
    /// The write's own deadline is over already.
    #[error("writes are fenced at epoch {epoch} and this one may not wait any longer")]
    Expired {
        /// Epoch of the fence.
        epoch: Epoch,
    },
}
