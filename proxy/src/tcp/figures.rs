//! What the TCP front counts: `writefence_tcp_*`.
//!
//! Totals only, kept as plain numbers and shown at the scrape. Every label comes from a closed set.

use std::sync::atomic::{AtomicU64, Ordering};

/// What became of a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Fate {
    /// Admitted and connected to its server.
    Relayed,
    /// Turned away by the fence, or held too long.
    Refused,
    /// Its client left while it was held.
    Abandoned,
    /// Its server could not be reached; nothing was sent.
    Unreachable,
    /// It ended with something unanswered.
    Unknown,
    /// Closed at the limit of the listener.
    TurnedAway,
}

const FATES: [(Fate, &str); 6] = [
    (Fate::Relayed, "relayed"),
    (Fate::Refused, "refused"),
    (Fate::Abandoned, "abandoned"),
    (Fate::Unreachable, "unreachable"),
    (Fate::Unknown, "unknown"),
    (Fate::TurnedAway, "turned_away"),
];

/// See the module.
#[derive(Debug, Default)]
pub struct TcpFigures {
    fates: [AtomicU64; FATES.len()],
    sent: AtomicU64,
    received: AtomicU64,
}

/// One total: name, help, label, value.
pub type Total = (
    &'static str,
    &'static str,
    (&'static str, &'static str),
    u64,
);

impl TcpFigures {
    pub(super) fn count(&self, fate: Fate) {
        let at = FATES.iter().position(|(known, _)| *known == fate);
        if let Some(one) = at.and_then(|at| self.fates.get(at)) {
            one.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Adds what a connection moved to its server and back, when it has ended.
    pub(super) fn moved(&self, sent: u64, received: u64) {
        self.sent.fetch_add(sent, Ordering::Relaxed);
        self.received.fetch_add(received, Ordering::Relaxed);
    }

    /// All totals.
    pub fn totals(&self) -> Vec<Total> {
        let load = |one: &AtomicU64| one.load(Ordering::Relaxed);
        let fates = FATES.iter().zip(&self.fates).map(|((_, name), one)| {
            (
                "writefence_tcp_connections_total",
                "TCP connections by what became of them.",
                ("fate", *name),
                load(one),
            )
        });
        let bytes = [("to_server", &self.sent), ("to_client", &self.received)];
        let bytes = bytes.into_iter().map(|(way, one)| {
            (
                "writefence_tcp_bytes_total",
                "Bytes of TCP connections that have ended.",
                ("direction", way),
                load(one),
            )
        });
        fates.chain(bytes).collect()
    }
}
