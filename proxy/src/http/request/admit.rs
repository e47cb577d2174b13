//! A write at the gate: let through with a permit, held, or refused. Nothing of it is sent before.

use std::sync::Arc;

use http::header::HeaderMap;

use super::Serving;
use super::ahead::Early;
use crate::gate::Permit;
use crate::http::classify::Manner;
use crate::http::debt::Debt;
use crate::http::hold::{self, Ask, NotAdmitted};
use crate::http::refuse::Why;
use crate::http::server::Gone;
use crate::http::tunnel::Closing;
use crate::requests::{RequestGuard, RequestState};

/// The longest Idempotency-Key that is noted.
const KEY_BYTES: usize = 256;

/// Why a write was not let through. Nothing of it was sent.
pub(super) enum Barred {
    Refused(Why),
    Early(Early),
}

impl From<Gone> for Barred {
    fn from(gone: Gone) -> Self {
        Self::Early(gone.into())
    }
}

impl Serving<'_> {
    /// Takes the request through the gate, with as much of its body as is to be there then. What was
    /// held has read nothing yet: where a fence falls before its body is there, the permit goes back,
    /// as nothing was sent, and the request waits or is refused again.
    pub(super) async fn pass_gate(
        &mut self,
        manner: Manner,
        upgrade: bool,
        entry: &RequestGuard,
    ) -> Result<Permit, Barred> {
        let group = Arc::clone(&self.front.group);
        loop {
            entry.set_state(RequestState::Held);
            let permit = self.admit(manner).await.map_err(|not| match not {
                NotAdmitted::Refused(why) => Barred::Refused(why),
                NotAdmitted::Left => Barred::Early(Early::Gone),
            })?;
            // Also where a stream is not waited for: a fence may have fallen before it was told.
            if self.down.awaits_continue() {
                self.down.go_on().await?;
            }
            if upgrade || self.is_ahead() {
                return Ok(permit);
            }
            entry.set_state(RequestState::Executing);
            // Both arms may be dropped: what was read is kept, and the other only looks.
            tokio::select! {
                gathered = self.gather_ahead() => return gathered.map(|()| permit).map_err(Barred::Early),
                () = Closing::AtFence.due(&group) => drop(permit),
            }
        }
    }

    async fn admit(&mut self, manner: Manner) -> Result<Permit, NotAdmitted> {
        let headers = &self.down.head().headers;
        let ask = Ask {
            bytes: self.ahead_bytes + self.down.unread() + weight(headers),
            answer: manner.answer,
            patience: hold::patience(headers),
        };
        hold::admit(self.front, &mut self.down, self.peer, ask).await
    }

    /// What the permit is owed until the outcome is known.
    pub(super) fn owe(&self, permit: Permit, entry: RequestGuard) -> Debt {
        let key = self.down.head().headers.get("idempotency-key");
        let key = key.and_then(|key| key.to_str().ok());
        let key = key.filter(|key| key.len() <= KEY_BYTES).map(str::to_owned);
        Debt::new(Arc::clone(&self.front.group), permit, entry, key)
    }
}

/// Bytes that headers take here.
fn weight(headers: &HeaderMap) -> usize {
    let each = headers.iter();
    each.map(|(name, value)| name.as_str().len() + value.len() + 64)
        .sum()
}
