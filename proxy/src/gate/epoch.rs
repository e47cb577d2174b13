//! The gate's own growing number.
//!
//! Every phase change raises it, permits and records carry it, and nothing else happens to it:
//! no arithmetic, no way back (G3). It is unrelated to PostgreSQL's timeline.

use std::fmt;

/// Number of a phase change; a later change always has a greater one (G3).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Epoch(u64);

impl Epoch {
    /// The greatest epoch. The gate's word keeps eight bits for the phase, which leaves 56: at a
    /// thousand phase changes a second they last two million years.
    pub const MAX: Self = Self((1 << 56) - 1);

    /// An epoch read from a durable record. A greater number than [`Epoch::MAX`] can only come
    /// from a damaged record and becomes `MAX`, so that it never turns into a smaller one.
    pub const fn new(value: u64) -> Self {
        if value > Self::MAX.0 {
            Self::MAX
        } else {
            Self(value)
        }
    }

    /// The bare number, for records and documents.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// The epoch of the next phase change.
    pub const fn next(self) -> Self {
        Self::new(self.0 + 1)
    }
}

impl fmt::Display for Epoch {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}
