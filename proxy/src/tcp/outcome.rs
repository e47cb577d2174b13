//! What is known when a connection has ended, and where that is noted.

use super::Front;
use super::figures::Fate;
use crate::gate::Permit;
use crate::requests::RequestGuard;
use crate::unknown::{UnknownWrite, now_rfc3339, outcome};

/// How a connection to a server ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Ending {
    /// The server closed it.
    Closed,
    /// It broke.
    Broken,
    /// We gave it up.
    GivenUp,
}

/// What is known of what was sent over it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// The server is done with it.
    Known,
    /// It may be done, or may still be running.
    Unknown,
}

impl Outcome {
    /// A server that closes after we did has come to the end of what was sent. One that closes first
    /// has, if it answered after the last byte that it got; else something was on its way. And a
    /// connection that broke or was given up says nothing of what it was still to answer.
    pub(super) const fn of(ending: Ending, unanswered: bool, shut: bool) -> Self {
        match (ending, unanswered, shut) {
            (_, false, _) | (Ending::Closed, true, true) => Self::Known,
            (Ending::Closed | Ending::Broken | Ending::GivenUp, true, _) => Self::Unknown,
        }
    }
}

/// Ends the permit, or moves it to the unknown outcomes.
pub(super) fn record(
    front: &Front,
    permit: Permit,
    entry: &RequestGuard,
    region: &str,
    outcome: Outcome,
) {
    if outcome == Outcome::Known {
        drop(permit);
        return;
    }
    front.group.tcp.count(Fate::Unknown);
    let write = UnknownWrite {
        id: 0,
        at: now_rfc3339(),
        region: region.to_owned(),
        // No backend: nothing that PostgreSQL shows can end it.
        pid: 0,
        user: String::new(),
        database: String::new(),
        client: entry.client().to_string(),
        digest: Some(format!("tcp:{}", front.service)),
        idempotency_key: None,
        request: None,
        xid: None,
        single: false,
        timeline: None,
        generation: None,
        outcome: outcome::UNKNOWN.to_owned(),
    };
    let id = front.group.unknown.record(permit.lose(), write);
    tracing::warn!(
        group = %front.group.name,
        service = %front.service,
        client = %entry.client(),
        write = id,
        "a connection was lost with something unanswered: its outcome is unknown"
    );
}
