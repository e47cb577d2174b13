//! Permits: the proof that a write was admitted, and its end.
//!
//! A permit ends exactly once, by being dropped when the outcome is known, also when a panic or a
//! cancellation drops it (G5). If the outcome cannot be known any more it is lost, which moves it
//! to the gate's unknown outcomes without an instant in which neither count shows it.

use std::sync::Arc;

use tokio::time::Instant;

use super::{Gate, epoch::Epoch, phase::Lane, seam::Mutant};

/// One admitted write. Made by admission only, not `Clone`; dropping it says that the outcome of
/// the write is known.
#[must_use = "dropping a permit says that the write's outcome is known"]
pub struct Permit {
    gate: Arc<Gate>,
    epoch: Epoch,
    lane: Lane,
    deadline: Option<Instant>,
    /// It waited behind a fence, so it is a write.
    held: bool,
    /// Its outcome will not be learned here.
    lost: bool,
}

impl Permit {
    /// The caller is counted in the lane already; the permit takes over that count.
    pub(super) fn of_counted(gate: Arc<Gate>, epoch: Epoch, lane: Lane) -> Self {
        Self {
            gate,
            epoch,
            lane,
            deadline: None,
            held: false,
            lost: false,
        }
    }

    pub(super) fn held(mut self) -> Self {
        self.held = true;
        self
    }

    pub(super) fn was_held(&self) -> bool {
        self.held
    }

    /// Epoch under which the write was admitted.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Lane in which it counts.
    pub fn lane(&self) -> Lane {
        self.lane
    }

    /// From then on the permit is worth nothing. `None` where no fleet decides.
    pub fn deadline(&self) -> Option<Instant> {
        self.deadline
    }

    /// Whether the permit is worth something at `now`: asked before each write to the upstream
    /// and before an acknowledgement is relayed.
    pub fn valid(&self, now: Instant) -> bool {
        self.deadline.is_none_or(|deadline| now < deadline)
    }

    /// The outcome cannot be learned from this session any more. Counted as unknown first and
    /// only then taken from the lane: a drain that looks in between sees it twice, never not at
    /// all.
    pub fn lose(mut self) -> Lost {
        self.lost = true;
        let gate = Arc::clone(&self.gate);
        if gate.seam.has(Mutant::UncountBeforeUnknown) {
            drop(self);
            gate.unknown.add();
            return Lost { gate };
        }
        gate.unknown.add();
        drop(self);
        Lost { gate }
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        if !self.lost {
            self.gate.gauge.ended(self);
        }
        self.gate.end_permit(self.lane);
        if self.gate.seam.has(Mutant::DoubleReleaseOnPanic) && std::thread::panicking() {
            self.gate.end_permit(self.lane);
        }
    }
}

/// A write whose outcome is unknown; it goes on blocking every drain. Dropping it leaves it
/// counted: only [`Lost::resolve`], called with proof of the outcome, ends it.
#[must_use = "a lost write blocks every drain until it is resolved"]
pub struct Lost {
    gate: Arc<Gate>,
}

impl Lost {
    pub(super) fn inherited(gate: Arc<Gate>) -> Self {
        gate.unknown.add();
        Self { gate }
    }

    /// The outcome is known now, or can't happen any more.
    pub fn resolve(self) {
        if self.gate.unknown.sub() == 0 {
            self.gate.quieter.ring();
        }
    }
}
