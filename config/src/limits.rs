//! The bounds of the process: everything that queues, waits or is kept has one.

use std::time::Duration;

use crate::defaults;
use crate::raw::{Findings, Section};

/// `[limits]`, for the whole daemon.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Downstream sessions at a time.
    pub sessions: usize,
    /// From accept to the end of the login, downstream.
    pub login_timeout: Duration,
    /// From connect to the end of the login, upstream.
    pub connect_timeout: Duration,
    /// Held writes at a time, per group.
    pub held: usize,
    /// Bytes of held writes, per group.
    pub held_bytes: usize,
    /// Held writes let go per millisecond when the gate opens.
    pub release_burst: usize,
    /// Sessions logged in to a new target at a time, in the background.
    pub moves: usize,
}

impl Limits {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            sessions: section.count("sessions", &defaults::SESSIONS, found),
            login_timeout: section.duration("login_timeout", &defaults::LOGIN_TIMEOUT, found),
            connect_timeout: section.duration("connect_timeout", &defaults::CONNECT_TIMEOUT, found),
            held: section.count("held", &defaults::HELD, found),
            held_bytes: section.size("held_bytes", &defaults::HELD_BYTES, found),
            release_burst: section.count("release_burst", &defaults::RELEASE_BURST, found),
            moves: section.count("moves", &defaults::MOVES, found),
        }
    }
}
