//! A permit on its way through the server behind: it is settled, or its outcome is unknown.
//!
//! Between the two there is nothing. Whatever ends the task of a write that was sent, be it a
//! deadline, an operator, a panic or the end of the daemon, leaves an entry among the unknown
//! outcomes, and that goes on blocking every drain (G5, and A9 of ARCHITECTURE).

use std::sync::Arc;

use tokio::time::Instant;

use crate::gate::{Epoch, Permit};
use crate::group::Group;
use crate::requests::{RequestGuard, RequestState};
use crate::unknown::{UnknownWrite, now_rfc3339, outcome};

/// See the module.
pub(super) struct Debt {
    group: Arc<Group>,
    permit: Option<Permit>,
    request: RequestGuard,
    region: String,
    idempotency_key: Option<String>,
    /// From then on the outcome may be anything.
    sent: bool,
}

impl Debt {
    pub(super) fn new(
        group: Arc<Group>,
        permit: Permit,
        request: RequestGuard,
        idempotency_key: Option<String>,
    ) -> Self {
        request.set_state(RequestState::Executing);
        Self {
            group,
            permit: Some(permit),
            request,
            region: String::new(),
            idempotency_key,
            sent: false,
        }
    }

    pub(super) fn request(&self) -> &RequestGuard {
        &self.request
    }

    /// Epoch under which it was admitted.
    pub(super) fn epoch(&self) -> Option<Epoch> {
        self.permit.as_ref().map(Permit::epoch)
    }

    /// Whether the permit is worth something now.
    pub(super) fn is_valid(&self) -> bool {
        let now = Instant::now();
        self.permit.as_ref().is_some_and(|permit| permit.valid(now))
    }

    /// It goes out now, to this region.
    pub(super) fn send_to(&mut self, region: &str) {
        region.clone_into(&mut self.region);
        self.request.set_region(region);
        self.sent = true;
    }

    /// Whether a byte of it may have gone out.
    pub(super) const fn is_sent(&self) -> bool {
        self.sent
    }

    /// It came back unsent.
    pub(super) fn unsent(&mut self) {
        self.sent = false;
    }

    /// The outcome is known.
    pub(super) fn settle(mut self) {
        self.permit = None;
    }

    /// The outcome cannot be learned any more.
    pub(super) fn lose(mut self, why: &str) {
        self.record(why);
    }

    fn record(&mut self, why: &str) {
        let Some(permit) = self.permit.take() else {
            return;
        };
        let accepted = self.group.targets.accepted();
        let identity = accepted
            .identity
            .filter(|_| accepted.region.as_str() == self.region);
        tracing::warn!(
            group = %self.group.name,
            request = self.request.id(),
            what = self.request.what(),
            region = self.region,
            why,
            "a write has an unknown outcome"
        );
        let write = UnknownWrite {
            id: 0,
            at: now_rfc3339(),
            region: std::mem::take(&mut self.region),
            pid: 0,
            user: String::new(),
            database: String::new(),
            client: self.request.client().to_string(),
            digest: Some(self.request.what().to_owned()),
            idempotency_key: self.idempotency_key.take(),
            request: Some(self.request.id().to_owned()),
            xid: None,
            single: false,
            timeline: identity.map(|identity| identity.timeline.value()),
            generation: None,
            outcome: outcome::UNKNOWN.into(),
        };
        self.group.unknown.record(permit.lose(), write);
    }
}

impl Drop for Debt {
    fn drop(&mut self) {
        if self.sent {
            self.record("the task that waited for it ended");
        }
    }
}
