//! What the HTTP front counts: `writefence_http_*`.
//!
//! Totals only, kept as plain numbers and shown at the scrape. Every label comes from a closed set.

use std::sync::atomic::{AtomicU64, Ordering};

use super::refuse::Why;

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Its verdict was "read" and it was passed on.
    Read,
    /// It was admitted and passed on.
    Write,
    /// Answered here: the health path.
    Local,
    /// Malformed, too large or too slow.
    Bad,
    /// Its client left while it was held, or before it was sent.
    Abandoned,
    /// Its outcome is unknown.
    Unknown,
}

const FATES: [(Fate, &str); 6] = [
    (Fate::Read, "read"),
    (Fate::Write, "write"),
    (Fate::Local, "local"),
    (Fate::Bad, "bad"),
    (Fate::Abandoned, "abandoned"),
    (Fate::Unknown, "unknown"),
];

/// See the module.
#[derive(Debug, Default)]
pub struct HttpFigures {
    fates: [AtomicU64; FATES.len()],
    refused: [AtomicU64; Why::ALL.len()],
    /// Client connections that are open.
    connections: AtomicU64,
    turned_away: AtomicU64,
}

/// One total: name, help, label, value.
pub type Total = (
    &'static str,
    &'static str,
    Option<(&'static str, &'static str)>,
    u64,
);

impl HttpFigures {
    pub(super) fn count(&self, fate: Fate) {
        let at = FATES.iter().position(|(known, _)| *known == fate);
        if let Some(one) = at.and_then(|at| self.fates.get(at)) {
            one.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn refuse(&self, why: Why) {
        let at = Why::ALL.iter().position(|known| *known == why);
        if let Some(one) = at.and_then(|at| self.refused.get(at)) {
            one.fetch_add(1, Ordering::Relaxed);
        }
    }

    pub(super) fn turn_away(&self) {
        self.turned_away.fetch_add(1, Ordering::Relaxed);
    }

    /// Counts a connection as long as the guard lives.
    pub(super) fn connection(&self) -> u64 {
        self.connections.fetch_add(1, Ordering::Relaxed)
    }

    pub(super) fn disconnected(&self) {
        self.connections.fetch_sub(1, Ordering::Relaxed);
    }

    /// All totals.
    pub fn totals(&self) -> Vec<Total> {
        let load = |one: &AtomicU64| one.load(Ordering::Relaxed);
        let fates = FATES.iter().zip(&self.fates).map(|((_, name), one)| {
            (
                "writefence_http_requests_total",
                "HTTP requests by what became of them.",
                Some(("fate", *name)),
                load(one),
            )
        });
        let refused = Why::ALL.iter().zip(&self.refused).map(|(why, one)| {
            (
                "writefence_http_refused_total",
                "HTTP requests that were refused and not executed.",
                Some(("why", why.name())),
                load(one),
            )
        });
        let turned_away = (
            "writefence_http_connections_turned_away_total",
            "HTTP connections closed at the limit of the listener.",
            None,
            load(&self.turned_away),
        );
        fates.chain(refused).chain([turned_away]).collect()
    }

    /// Client connections that are open.
    pub fn connections(&self) -> u64 {
        self.connections.load(Ordering::Relaxed)
    }
}
