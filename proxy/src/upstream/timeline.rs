//! Positions in PostgreSQL's log: `Timeline` and `Lsn`.
//!
//! Both are read from text that a server sent and are only ever compared, never computed with.
//! An LSN says nothing about another timeline beyond the point where the two parted.

use std::fmt;
use std::str::FromStr;

use super::error::{BadLsn, BadTimeline};

/// A byte position in the write-ahead log, written by PostgreSQL as `16/B374D848`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Lsn(u64);

impl Lsn {
    /// From the plain number, as kept in a journal.
    pub const fn new(position: u64) -> Self {
        Self(position)
    }

    /// The plain number.
    pub const fn value(self) -> u64 {
        self.0
    }

    /// Bytes of log between an earlier position and this one; 0 when it is not earlier.
    pub const fn bytes_since(self, earlier: Self) -> u64 {
        self.0.saturating_sub(earlier.0)
    }
}

impl fmt::Display for Lsn {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:X}/{:X}", self.0 >> 32, self.0 & 0xFFFF_FFFF)
    }
}

impl FromStr for Lsn {
    type Err = BadLsn;

    fn from_str(text: &str) -> Result<Self, BadLsn> {
        let bad = || BadLsn {
            text: text.to_owned(),
        };
        let (high, low) = text.split_once('/').ok_or_else(bad)?;
        let half = |digits: &str| {
            let plain = !digits.is_empty() && digits.bytes().all(|b| b.is_ascii_hexdigit());
            if plain {
                u32::from_str_radix(digits, 16).ok()
            } else {
                None
            }
        };
        let (high, low) = half(high).zip(half(low)).ok_or_else(bad)?;
        Ok(Self(u64::from(high) << 32 | u64::from(low)))
    }
}

/// PostgreSQL's own timeline number, raised by each promotion. Starts at 1.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Timeline(u32);

impl Timeline {
    /// `None` for 0, which PostgreSQL uses for "none".
    pub const fn new(number: u32) -> Option<Self> {
        if number == 0 {
            None
        } else {
            Some(Self(number))
        }
    }

    /// The plain number.
    pub const fn value(self) -> u32 {
        self.0
    }
}

impl fmt::Display for Timeline {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Timeline {
    type Err = BadTimeline;

    fn from_str(text: &str) -> Result<Self, BadTimeline> {
        let number = text.parse().ok().and_then(Self::new);
        number.ok_or_else(|| BadTimeline {
            text: text.to_owned(),
        })
    }
}
