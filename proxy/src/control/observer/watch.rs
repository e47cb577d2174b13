//! The probes: each region is asked every `interval`, and what it showed is kept.
//!
//! A probe's time is when it was asked. It decides nothing; a name is followed only to the server that
//! is known.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};

use super::super::error::{chain, refused};
use super::super::line::Line;
use super::super::servers::Seen;
use super::words::not_asked;
use crate::clock;
use crate::shutdown::Shutdown;
use crate::upstream::{Observation, Role, probe};

/// The shortest time between two probes of a region, whoever asks.
const PROBE_AT_MOST: Duration = Duration::from_secs(1);

/// Probes a region until the end, every `interval`, and after a second at the earliest when
/// `suspected` says that a server surprised a session.
pub(crate) async fn watch(
    line: Arc<Line>,
    interval: impl Fn() -> Duration,
    suspected: impl Fn() -> u64,
    mut stop: Shutdown,
) {
    let mut before = suspected();
    while !stop.is_stopping() {
        look(&line).await;
        let looked = clock::now();
        loop {
            // Every arm may be dropped: a sleep, a look at a flag, and a word that stays said.
            tokio::select! {
                () = tokio::time::sleep(PROBE_AT_MOST.min(interval())) => {}
                () = line.look_now.notified() => break,
                () = stop.stopping() => return,
            }
            if suspected() != before || looked.elapsed() >= interval() {
                before = suspected();
                break;
            }
        }
    }
}

/// Probes a region and keeps what was seen.
async fn look(line: &Line) {
    line.asked.store(Some(Arc::new(clock::now())));
    let (mut at, mut answer) = probed(line).await;
    // One try more: a connection that the server ended since is no sign of a dead server.
    if answer.is_err() {
        (at, answer) = probed(line).await;
    }
    let before = line.seen.load();
    let kept = before
        .as_ref()
        .map(|seen| (seen.last.clone(), seen.last_at))
        .unwrap_or_default();
    let known = before.as_ref().and_then(|seen| seen.last.as_ref());
    let answered = before.as_ref().map(|seen| seen.answer.is_ok());
    match &answer {
        Err(why) if answered != Some(false) => {
            tracing::warn!(region = %line.region, why, "does not answer");
        }
        Ok(_) if answered == Some(false) => {
            tracing::info!(region = %line.region, "answers again");
        }
        Ok(_) | Err(_) => {}
    }
    match &answer {
        Ok(seen) if known.is_none_or(|last| is_same(last, seen)) => line.trust(),
        // Another server: sessions stay where they are, and the identity's guard sees it.
        Ok(_) => {}
        Err(_) => line.doubt(),
    }
    let (last, last_at) = match &answer {
        Ok(seen) => (Some(seen.clone()), Some(at)),
        Err(_) => kept,
    };
    line.seen.store(Some(Arc::new(Seen {
        answer,
        last,
        last_at,
        at,
    })));
    line.asked.store(None);
}

/// What a region says, and when it was asked: what has happened since may be missing in the answer.
async fn probed(line: &Line) -> (Instant, Result<Observation, String>) {
    let at = clock::now();
    let answer = match line.hold(&line.probe).await {
        Err(error) => Err(chain(&error)),
        Ok(mut held) => probe(held.client()).await.map_err(|e| chain(&e)),
    };
    (at, answer)
}

impl Line {
    /// Asks for the name again and follows it, if the server that is known answers there.
    pub(super) async fn renew(&self) -> Result<(), ApiError> {
        let known = self.seen.load_full().and_then(|seen| seen.last.clone());
        let mut client = self.anew().await?;
        let seen = probe(&mut client)
            .await
            .map_err(|e| not_asked(&self.region, &e))?;
        if known.is_none_or(|known| is_same(&known, &seen)) {
            self.follow(client.endpoint());
            return Ok(());
        }
        let text = format!(
            "the name of {} leads to another server now; sessions stay where they are",
            self.region
        );
        Err(refused(Code::IdentityMismatch, text)
            .hint("`writefencectl switchover` or `failover` moves them"))
    }
}

/// The same server by what it says of itself. A primary on another timeline is another primary; a
/// standby follows whatever was promoted, and takes no writes.
fn is_same(before: &Observation, now: &Observation) -> bool {
    let standby = now.role == Some(Role::Standby);
    before.system_identifier == now.system_identifier
        && (standby || before.timeline == now.timeline)
}
