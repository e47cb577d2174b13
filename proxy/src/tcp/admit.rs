//! A new connection at the gate: admitted, held or turned away.

use std::time::Duration;

use tokio::io::Interest;
use tokio::net::TcpStream;
use tokio::time::{Instant, sleep};
use writefence_config::NewConnections;

use super::Front;
use super::figures::Fate;
use crate::gate::{Answer, End, Lane, Parked, Permit, Phase, Turn};
use crate::shutdown::Shutdown;

/// What a held connection counts for in the waiting room: its task and its socket. Its bytes stay
/// with the kernel.
const HELD_BYTES: usize = 2048;

/// How long a connection waits behind those that leave the waiting room first.
const BEHIND: Duration = Duration::from_secs(20);

/// Between two looks at a held client that has sent something and waits: the kernel says once that
/// there is something to read, not when the client leaves after that.
const LOOK: Duration = Duration::from_millis(100);

/// What became of it.
pub(super) enum Admitted {
    Permit(Permit),
    /// Turned away, and why. Nothing was sent anywhere.
    Not(Fate, &'static str),
}

/// Takes a connection through the gate. Nothing of the client is read before it is admitted.
pub(super) async fn admit(front: &Front, client: &TcpStream, stop: &mut Shutdown) -> Admitted {
    let gate = &front.group.gate;
    let look = match gate.admit(Lane::Sql) {
        Ok(permit) => return Admitted::Permit(permit),
        Err(look) => look,
    };
    // Behind those that leave first even a listener that refuses waits: the gate is open.
    if front.new == NewConnections::Refuse && look.phase != Phase::Open {
        return Admitted::Not(Fate::Refused, "fenced");
    }
    let hold = gate.plan().map_or(BEHIND, |plan| plan.hold);
    match gate.park(Lane::Sql, HELD_BYTES, Instant::now() + hold) {
        Ok(parked) => wait(parked, client, stop).await,
        Err(_) => Admitted::Not(Fate::Refused, "fenced, and not held"),
    }
}

async fn wait(mut parked: Parked, client: &TcpStream, stop: &mut Shutdown) -> Admitted {
    loop {
        // Every arm may be dropped: a call stays due, the others only look.
        let turn = tokio::select! {
            turn = parked.turn() => turn,
            () = left(client) => {
                parked.finish(End::Abandoned);
                return Admitted::Not(Fate::Abandoned, "its client left while it was held");
            }
            () = stop.stopping() => {
                parked.finish(End::Refused);
                return Admitted::Not(Fate::Refused, "the daemon stops");
            }
        };
        if turn == Turn::Expired {
            parked.finish(End::Expired);
            return Admitted::Not(Fate::Refused, "held too long");
        }
        match parked.ask() {
            Ok(permit) => return Admitted::Permit(permit),
            Err(look) if look.phase == Phase::Fenced(Answer::Reject) => {
                parked.finish(End::Refused);
                return Admitted::Not(Fate::Refused, "the fence was set to refuse");
            }
            Err(_) => {}
        }
    }
}

/// Resolves when the client has closed or reset. One that has only shut its own direction counts
/// too: it cannot be told from one that is gone, and what is held must not run for nobody.
async fn left(client: &TcpStream) {
    loop {
        match client.ready(Interest::READABLE).await {
            Ok(ready) if !ready.is_read_closed() => sleep(LOOK).await,
            Ok(_) | Err(_) => return,
        }
    }
}
