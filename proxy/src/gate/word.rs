//! The atomic words of the gate, and the only place that names an `Ordering`.
//!
//! Per lane there are two: `word` (epoch and phase in one, so that one load shows both) and
//! `count` (writes in flight). Admission stores to the count and then loads the word, a fence
//! stores to the word and then loads the count. Changing anything here wants a case in `model`.

use super::{
    atomics::{AtomicU64, Ordering},
    epoch::Epoch,
    phase::{Answer, Look, Phase},
    seam::{Mutant, Seam},
};

const FENCED: u64 = 1;
const REJECT: u64 = 2;
const RELEASING: u64 = 4;
/// Bits below the epoch.
const PHASE_BITS: u32 = 8;

/// One lane's words. They share a cache line on purpose: whoever admits has just taken the line
/// for the count, so the look costs nothing more. The alignment (two lines, for processors that
/// fetch pairs) keeps the other lane's traffic away.
#[repr(align(128))]
pub(super) struct LaneWord {
    word: AtomicU64,
    count: AtomicU64,
    admitted: AtomicU64,
    released: AtomicU64,
    seam: Seam,
}

impl LaneWord {
    pub(super) fn new(look: Look, seam: Seam) -> Self {
        let lane = Self {
            word: AtomicU64::new(0),
            count: AtomicU64::new(0),
            admitted: AtomicU64::new(0),
            released: AtomicU64::new(0),
            seam,
        };
        // The values are stored rather than built in, so that they take their place in the one
        // order of all sequentially consistent accesses.
        lane.set(look);
        lane.count.store(0, lane.storing());
        lane
    }

    /// Count first, look second. If a writer looked first, a fence could slip in between: the
    /// drain would find nobody in flight while this write is already on its way to the old
    /// primary. Counted first, either the drain sees us or we see the fence (G2).
    /// Both sides store one word and then load the other, which acquire/release does not
    /// order; hence SeqCst on all four accesses.
    ///
    /// The caller is counted afterwards, whatever it sees.
    pub(super) fn count_then_look(&self) -> Look {
        if self.seam.has(Mutant::LookBeforeCount) {
            let look = self.look();
            self.count.fetch_add(1, self.changing());
            return look;
        }
        self.count.fetch_add(1, self.changing());
        self.look()
    }

    /// Ends one count and returns how many are left. Release is what hands the write's effects
    /// to the drain that sees the fall; SeqCst because the releasing side then looks for
    /// listeners, while a listener enrols and then looks at the count.
    pub(super) fn leave(&self) -> u64 {
        self.count.fetch_sub(1, self.changing()).wrapping_sub(1)
    }

    /// What the lane shows now.
    pub(super) fn look(&self) -> Look {
        unpack(self.word.load(self.loading()))
    }

    /// Changes what the lane shows. Only with the room's lock held: moves don't race.
    pub(super) fn set(&self, look: Look) {
        self.word.store(pack(look), self.storing());
    }

    /// Writes in flight. A newcomer that is about to be refused shows for an instant.
    pub(super) fn in_flight(&self) -> u64 {
        self.count.load(self.loading())
    }

    /// Statistics decide nothing, so they need no order.
    pub(super) fn note_admitted(&self) {
        self.admitted.fetch_add(1, Ordering::Relaxed);
    }

    /// Release, so that whoever sees this end also sees the admission before it.
    pub(super) fn note_released(&self) {
        self.released.fetch_add(1, Ordering::Release);
    }

    /// (admitted, released) since the start. Released is read first, so that the difference is
    /// never negative.
    pub(super) fn totals(&self) -> (u64, u64) {
        let released = self.released.load(Ordering::Acquire);
        (self.admitted.load(Ordering::Relaxed), released)
    }

    fn changing(&self) -> Ordering {
        let weak = self.seam.has(Mutant::AcquireRelease);
        if weak {
            Ordering::AcqRel
        } else {
            Ordering::SeqCst
        }
    }

    fn loading(&self) -> Ordering {
        let weak = self.seam.has(Mutant::AcquireRelease);
        if weak {
            Ordering::Acquire
        } else {
            Ordering::SeqCst
        }
    }

    fn storing(&self) -> Ordering {
        let weak = self.seam.has(Mutant::AcquireRelease);
        if weak {
            Ordering::Release
        } else {
            Ordering::SeqCst
        }
    }
}

/// A counter that takes part in the same single order as the lane's words: unknown outcomes,
/// listeners of a bell, and flags (0 or 1). All SeqCst for the reason given above.
pub(super) struct Count(AtomicU64);

impl Count {
    pub(super) fn new() -> Self {
        let count = Self(AtomicU64::new(0));
        count.set(0);
        count
    }

    /// Adds one and returns the new value.
    pub(super) fn add(&self) -> u64 {
        self.0.fetch_add(1, Ordering::SeqCst).wrapping_add(1)
    }

    /// Takes one and returns the new value.
    pub(super) fn sub(&self) -> u64 {
        self.0.fetch_sub(1, Ordering::SeqCst).wrapping_sub(1)
    }

    pub(super) fn value(&self) -> u64 {
        self.0.load(Ordering::SeqCst)
    }

    pub(super) fn set(&self, value: u64) {
        self.0.store(value, Ordering::SeqCst);
    }
}

fn pack(look: Look) -> u64 {
    let phase = match look.phase {
        Phase::Open if look.releasing => RELEASING,
        Phase::Open => 0,
        Phase::Fenced(Answer::Hold) => FENCED,
        Phase::Fenced(Answer::Reject) => FENCED | REJECT,
    };
    look.epoch.value() << PHASE_BITS | phase
}

fn unpack(word: u64) -> Look {
    let phase = match (word & FENCED, word & REJECT) {
        (0, _) => Phase::Open,
        (_, 0) => Phase::Fenced(Answer::Hold),
        (_, _) => Phase::Fenced(Answer::Reject),
    };
    Look {
        epoch: Epoch::new(word >> PHASE_BITS),
        phase,
        releasing: word & RELEASING != 0,
    }
}
