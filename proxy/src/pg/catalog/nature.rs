//! What running an object may do: the small algebra that verdicts about a user's objects come from.
//!
//! An object does at most what all its parts do together, so natures are only ever joined, and
//! joining takes nothing away. What is found of an object therefore never depends on the order in
//! which its parts are looked at, and going round in a recursion comes to an end.

use crate::pg::classify::Effects;

/// What running something may do, as far as its parts tell.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Nature {
    /// Durable effects that PostgreSQL's read-only mode lets pass.
    pub effects: Effects,
    /// It may lift the read-only setting wall two stands on.
    pub way_out: bool,
    /// A part of it could not be looked through, or writes what read-only mode refuses: PostgreSQL
    /// has to decide.
    pub unknown: bool,
    /// It is marked immutable or stable although it has effects: planning a statement may already
    /// run it, so that EXPLAIN does.
    pub folds: bool,
}

impl Nature {
    /// Leaves nothing behind.
    pub const HARMLESS: Self = Self {
        effects: Effects::NONE,
        way_out: false,
        unknown: false,
        folds: false,
    };

    /// PostgreSQL has to decide.
    pub const UNKNOWN: Self = Self {
        effects: Effects::NONE,
        way_out: false,
        unknown: true,
        folds: false,
    };

    /// Both together.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            effects: self.effects.and(other.effects),
            way_out: self.way_out | other.way_out,
            unknown: self.unknown | other.unknown,
            folds: self.folds | other.folds,
        }
    }

    /// Whether running it may leave something behind that PostgreSQL lets pass.
    pub fn has_effects(self) -> bool {
        self.way_out || self.effects != Effects::NONE
    }

    /// Whether nothing speaks against it.
    pub fn is_harmless(self) -> bool {
        self == Self::HARMLESS
    }
}
