//! The bounds of the process: everything that queues, waits or is kept has one.

use std::time::Duration;

use crate::defaults;
use crate::raw::{Findings, Section};
use crate::value;

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
    /// Sessions of one user at a time; 0: no limit of its own.
    pub sessions_per_user: usize,
    /// Sessions in one database at a time; 0: no limit of its own.
    pub sessions_per_database: usize,
    /// A session without a transaction that says nothing for this long is ended; 0: never.
    pub idle_timeout: Duration,
    /// A session that says nothing for this long inside a transaction is ended; 0: never.
    pub idle_in_transaction_timeout: Duration,
    /// Bytes of one message of a client.
    pub message: usize,
}

/// `[tcp]`: what the kernel is asked to do for every connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Tcp {
    /// Silence after which the kernel asks whether the peer is there.
    pub keepalive_idle: Duration,
    /// Between two such questions without an answer.
    pub keepalive_interval: Duration,
    /// Questions without an answer after which the connection is given up.
    pub keepalive_probes: u32,
    /// How long bytes sent to a server may stay unacknowledged.
    pub unacknowledged: Duration,
}

impl Default for Tcp {
    fn default() -> Self {
        Self {
            keepalive_idle: defaults::KEEPALIVE_IDLE.default,
            keepalive_interval: defaults::KEEPALIVE_INTERVAL.default,
            keepalive_probes: u32::try_from(defaults::KEEPALIVE_PROBES.default).unwrap_or(1),
            unacknowledged: defaults::UNACKNOWLEDGED.default,
        }
    }
}

impl Tcp {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        let probes = section.count("keepalive_probes", &defaults::KEEPALIVE_PROBES, found);
        Self {
            keepalive_idle: section.duration("keepalive_idle", &defaults::KEEPALIVE_IDLE, found),
            keepalive_interval: section.duration(
                "keepalive_interval",
                &defaults::KEEPALIVE_INTERVAL,
                found,
            ),
            keepalive_probes: u32::try_from(probes).unwrap_or(u32::MAX),
            unacknowledged: section.duration("unacknowledged", &defaults::UNACKNOWLEDGED, found),
        }
    }
}

/// `[console]`: who may use PgBouncer's console. Nobody named: there is none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Console {
    /// May do everything.
    pub admin_users: Vec<String>,
    /// May look only.
    pub stats_users: Vec<String>,
}

impl Console {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            admin_users: section
                .read("admin_users", found, value::texts(USERS))
                .unwrap_or_default(),
            stats_users: section
                .read("stats_users", found, value::texts(USERS))
                .unwrap_or_default(),
        }
    }
}

const USERS: &str = "a list of user names, such as [\"ops\"]";

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
            sessions_per_user: section.count(
                "sessions_per_user",
                &defaults::SESSIONS_PER_USER,
                found,
            ),
            sessions_per_database: section.count(
                "sessions_per_database",
                &defaults::SESSIONS_PER_DATABASE,
                found,
            ),
            idle_timeout: section.duration("idle_timeout", &defaults::IDLE_TIMEOUT, found),
            idle_in_transaction_timeout: section.duration(
                "idle_in_transaction_timeout",
                &defaults::IDLE_IN_TRANSACTION_TIMEOUT,
                found,
            ),
            message: section.size("message", &defaults::MESSAGE, found),
        }
    }
}
