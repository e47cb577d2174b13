//! Admission of a request that may write, and its wait at a fence.
//!
//! A held request has sent nothing: its body stays with the client as far as the client's own
//! buffers go, and a client that asked for "100 Continue" is not told to go on. A client that leaves
//! is dropped and counted and its request never runs; it is looked at once more at the moment its
//! turn comes. Of one HTTP/2 connection at most half of the streams are held, so that its reads
//! always find one.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use http::HeaderMap;
use tokio::time::Instant;
use writefence_config as config;

use super::Front;
use super::refuse::Why;
use super::request::{Peer, Tally};
use super::server::Downstream;
use crate::gate::{Answer, End, Lane, Look, Parked, Permit, Phase, Refusal, Turn};
use crate::shutdown::Shutdown;

/// For a request that comes while held ones leave, when the fence's plan is gone already.
const BEHIND: Duration = Duration::from_secs(20);

/// Why a request was not admitted.
#[derive(Debug)]
pub(super) enum NotAdmitted {
    /// It is to be refused.
    Refused(Why),
    /// Its client has left.
    Left,
}

/// Asks the gate, and waits where the fence holds.
pub(super) async fn admit(
    front: &Front,
    down: &mut Downstream,
    peer: &Peer,
    ask: Ask,
) -> Result<Permit, NotAdmitted> {
    let gate = &front.group.gate;
    let look = match gate.admit(Lane::Http) {
        Ok(permit) => return Ok(permit),
        Err(look) => look,
    };
    let rejects = look.phase == Phase::Fenced(Answer::Reject)
        || (ask.answer == Some(config::Answer::Reject) && is_fenced(look));
    if rejects {
        return Err(NotAdmitted::Refused(Why::Fenced));
    }
    let _share = Share::take(peer, down, front.listener.streams)?;
    let hold = gate.plan().map_or(BEHIND, |plan| plan.hold);
    let hold = ask.patience.map_or(hold, |patience| patience.min(hold));
    let parked = gate.park(Lane::Http, ask.bytes, Instant::now() + hold);
    let parked = parked.map_err(|refusal| {
        NotAdmitted::Refused(match refusal {
            Refusal::Fenced { .. } => Why::Fenced,
            Refusal::RoomFull { .. } | Refusal::RoomBytes { .. } => Why::RoomFull,
            Refusal::Expired { .. } => Why::HeldTooLong,
        })
    })?;
    wait(parked, down, peer.stop.clone()).await
}

/// What is known of the request that asks.
#[derive(Clone, Copy, Debug)]
pub(super) struct Ask {
    /// Bytes that it takes here while it waits.
    pub(super) bytes: usize,
    /// How its route wants a fence to answer.
    pub(super) answer: Option<config::Answer>,
    /// How long its client waits, where it said so.
    pub(super) patience: Option<Duration>,
}

async fn wait(
    mut parked: Parked,
    down: &mut Downstream,
    mut stop: Shutdown,
) -> Result<Permit, NotAdmitted> {
    loop {
        // Every arm may be dropped: a turn not taken stays due, and the others only look.
        let turn = tokio::select! {
            turn = parked.turn() => Some(turn),
            () = down.until_left() => None,
            () = stop.stopping() => {
                parked.finish(End::Refused);
                return Err(NotAdmitted::Refused(Why::Stopping));
            }
        };
        match turn {
            Some(Turn::Ask) if !down.is_gone() => match parked.ask() {
                Ok(permit) => return Ok(permit),
                // The answer was changed to reject while it waited.
                Err(look) if look.phase == Phase::Fenced(Answer::Reject) => {
                    parked.finish(End::Refused);
                    return Err(NotAdmitted::Refused(Why::Fenced));
                }
                Err(_) => {}
            },
            Some(Turn::Expired) => {
                parked.finish(End::Expired);
                return Err(NotAdmitted::Refused(Why::HeldTooLong));
            }
            Some(Turn::Ask) | None => {
                parked.finish(End::Abandoned);
                return Err(NotAdmitted::Left);
            }
        }
    }
}

const fn is_fenced(look: Look) -> bool {
    matches!(look.phase, Phase::Fenced(_))
}

/// A held stream's part of its HTTP/2 connection.
struct Share(Option<Arc<Tally>>);

impl Share {
    fn take(peer: &Peer, down: &Downstream, streams: usize) -> Result<Self, NotAdmitted> {
        if !down.is_http2() {
            return Ok(Self(None));
        }
        let share = Self(Some(Arc::clone(&peer.tally)));
        // Counted first, so that two that come at once do not both fit.
        if peer.tally.held.fetch_add(1, Ordering::SeqCst) >= (streams / 2).max(1) {
            return Err(NotAdmitted::Refused(Why::ShareFull));
        }
        Ok(share)
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        if let Some(tally) = &self.0 {
            tally.held.fetch_sub(1, Ordering::SeqCst);
        }
    }
}

/// How long a client says it waits: gRPC's timeout, and what some clients and proxies send.
pub(super) fn patience(headers: &HeaderMap) -> Option<Duration> {
    let text = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(timeout) = text("grpc-timeout") {
        let (digits, unit) = timeout.split_at_checked(timeout.len().checked_sub(1)?)?;
        let n: u64 = digits.parse().ok().filter(|_| digits.len() <= 8)?;
        return match unit {
            "H" => Some(Duration::from_secs(n * 3600)),
            "M" => Some(Duration::from_secs(n * 60)),
            "S" => Some(Duration::from_secs(n)),
            "m" => Some(Duration::from_millis(n)),
            "u" => Some(Duration::from_micros(n)),
            "n" => Some(Duration::from_nanos(n)),
            _ => None,
        };
    }
    let seconds: u32 = text("request-timeout")?.parse().ok()?;
    Some(Duration::from_secs(seconds.into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_own_patience_bounds_its_wait() {
        let of = |name: &'static str, value: &str| {
            let mut headers = HeaderMap::new();
            headers.insert(name, value.parse().unwrap());
            patience(&headers)
        };
        assert_eq!(of("grpc-timeout", "500m"), Some(Duration::from_millis(500)));
        assert_eq!(of("grpc-timeout", "2S"), Some(Duration::from_secs(2)));
        assert_eq!(of("request-timeout", "3"), Some(Duration::from_secs(3)));
        for bad in ["", "S", "99999999999S", "1x", "-1S"] {
            assert_eq!(of("grpc-timeout", bad), None, "{bad:?}");
        }
    }
}
