//! Tables, bounds and time of the gate, with tokio's clock paused. Orderings and interleavings are
//! proven in `model`.

mod drains;
mod durable;
mod gap;
mod permits;
mod phases;
mod rooms;
mod watching;

use std::{
    pin::pin,
    sync::Arc,
    task::{Context, Waker},
    time::Duration,
};

use tokio::time::{Instant, advance, timeout};

use super::{phase::Move, *};

const MS: Duration = Duration::from_millis(1);

fn limits() -> Limits {
    Limits {
        held: 100,
        held_bytes: 1000,
        release_burst: 4,
    }
}

fn plan() -> Plan {
    let now = Instant::now();
    let hold = Duration::from_secs(20);
    Plan {
        grace: now + 3000 * MS,
        deadline: now + 8000 * MS,
        hold,
        begin: Begin::Auto,
        all: false,
    }
}

fn soon() -> Instant {
    Instant::now() + Duration::from_secs(20)
}

fn open_gate() -> Arc<Gate> {
    let gate = Gate::new(limits(), Epoch::new(6));
    gate.open();
    gate
}

fn holding_gate() -> Arc<Gate> {
    let gate = open_gate();
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    gate
}

fn permit(gate: &Arc<Gate>) -> Permit {
    gate.admit(Lane::Sql).expect("the gate is open")
}

fn park(gate: &Arc<Gate>) -> Parked {
    gate.park(Lane::Sql, 1, soon()).expect("there is room")
}

fn look(epoch: u64, phase: Phase, releasing: bool) -> Look {
    Look {
        epoch: Epoch::new(epoch),
        phase,
        releasing,
    }
}

fn is_called(parked: &mut Parked) -> bool {
    parked
        .poll_turn(&mut Context::from_waker(Waker::noop()))
        .is_ready()
}

fn sum_of_ends(counts: &LaneCounts) -> u64 {
    counts.held_released
        + counts.held_expired
        + counts.held_abandoned
        + counts.held_refused
        + counts.held_cancelled
        + counts.held_waiting
}
