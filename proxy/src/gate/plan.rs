//! What control hands to a fence: its times and its manner, and the bounds of the waiting room.
//!
//! Plain data. Where the numbers come from (configuration, command line) is not known here.

use std::time::Duration;

use tokio::time::Instant;

/// Times and manner of the fence in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Plan {
    /// Until then an open transaction may still write; after it, only end.
    pub grace: Instant,
    /// After it whatever still holds a permit is a straggler.
    pub deadline: Instant,
    /// How long one write may be held, counted from its own arrival.
    pub hold: Duration,
    /// What becomes of a BEGIN.
    pub begin: Begin,
    /// Scope "all": reads are answered like writes.
    pub all: bool,
}

/// What a fence does with a BEGIN that is not READ ONLY.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Begin {
    /// Held under `hold`, deferred under `reject`.
    Auto,
    /// Answered at once and sent with the first statement.
    Defer,
    /// Always held.
    Hold,
}

/// Bounds of the waiting room; both lanes share it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most writes held at one time.
    pub held: usize,
    /// Most bytes held at one time.
    pub held_bytes: usize,
    /// Held writes called per millisecond after an open; 0 counts as 1, for nobody would ever
    /// leave.
    pub release_burst: usize,
}
