//! A drain: waiting until nothing admitted up to an epoch is in flight, as an object.
//!
//! It has an identity, a deadline and one outcome, so that status, the operator and the run speak
//! of the same thing and a command that overtakes it ends it visibly. Its outcome is decided when
//! somebody looks, always by a fresh look at the gate, and never changes afterwards. Who the
//! stragglers are is not known here.

use std::{
    future::poll_fn,
    sync::{Arc, Weak},
    task::Poll,
};

use tokio::time::Instant;

use super::{
    Gate,
    atomics::{Mutex, lock},
    epoch::Epoch,
    phase::{Lane, Phase},
    seam::Mutant,
    time::{Alarm, now},
    word::Count,
};

/// How a drain ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Outcome {
    /// Nothing of its epoch or an earlier one is in flight or unknown (G2).
    Drained,
    /// Nothing is in flight; unknown outcomes were left, which the operator accepted.
    DrainedWithUnknown,
    /// Its deadline came first. The phase stays; a new drain of the same epoch may follow.
    TimedOut,
    /// Another phase change or another drain overtook it.
    Superseded,
}

/// Proof that a drain of this epoch ended well; only a drain makes it. Worth something as long as
/// the gate's epoch is still the same.
#[derive(Debug, PartialEq, Eq)]
pub struct Drained {
    epoch: Epoch,
    unknown_accepted: bool,
}

impl Drained {
    /// Epoch of the drain.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Whether unknown outcomes were left and accepted.
    pub fn unknown_accepted(&self) -> bool {
        self.unknown_accepted
    }
}

/// See the module.
pub struct Drain {
    /// Weak: the gate holds the drain in force.
    gate: Weak<Gate>,
    id: u64,
    epoch: Epoch,
    lane: Option<Lane>,
    deadline: Instant,
    accept_unknown: Count,
    outcome: Mutex<Option<Outcome>>,
}

impl Gate {
    /// Starts a drain of `lane`, or of all lanes, at the epoch of now, which takes the place of
    /// the one in force. A lane that is not fenced never drains: such a drain times out.
    pub fn start_drain(self: &Arc<Self>, lane: Option<Lane>, deadline: Instant) -> Arc<Drain> {
        let mut room = self.room();
        room.drains += 1;
        let drain = Arc::new(Drain {
            gate: Arc::downgrade(self),
            id: room.drains,
            epoch: self.epoch(),
            lane,
            deadline,
            accept_unknown: Count::new(),
            outcome: Mutex::new(None),
        });
        let before = room.drain.replace(Arc::clone(&drain));
        drop(room);
        if let Some(before) = before {
            before.supersede();
        }
        drain
    }

    /// The drain started last, also when it is over.
    pub fn drain(&self) -> Option<Arc<Drain>> {
        self.room().drain.clone()
    }

    /// Resolves when nothing is in flight in `lane` and no outcome is unknown. Says nothing about
    /// later admissions unless the lane is fenced.
    pub async fn quiet(&self, lane: Lane) {
        let listener = self.quieter.listen();
        poll_fn(|cx| {
            listener.register(cx.waker());
            match self.stillness(&[lane]) {
                Stillness::Still => Poll::Ready(()),
                Stillness::OnlyUnknown | Stillness::InFlight => Poll::Pending,
            }
        })
        .await;
    }

    /// Resolves when nothing is in flight in `lane`, whatever is unknown. Says nothing about later
    /// admissions unless the lane is fenced.
    pub async fn idle(&self, lane: Lane) {
        let listener = self.quieter.listen();
        poll_fn(|cx| {
            listener.register(cx.waker());
            match self.in_flight(lane) {
                0 => Poll::Ready(()),
                _ => Poll::Pending,
            }
        })
        .await;
    }

    /// The counts first, unknown second: a lost permit moves from the one to the other, and read
    /// the other way round it could be missed in both.
    fn stillness(&self, lanes: &[Lane]) -> Stillness {
        if self.seam.has(Mutant::UnknownReadFirst) {
            let unknown = self.unknown();
            return Stillness::of(
                lanes.iter().map(|lane| self.in_flight(*lane)).sum(),
                unknown,
            );
        }
        let in_flight = lanes.iter().map(|lane| self.in_flight(*lane)).sum();
        let unknown = match self.seam.has(Mutant::DrainedIgnoresUnknown) {
            true => 0,
            false => self.unknown(),
        };
        Stillness::of(in_flight, unknown)
    }
}

enum Stillness {
    Still,
    OnlyUnknown,
    InFlight,
}

impl Stillness {
    fn of(in_flight: u64, unknown: u64) -> Self {
        match (in_flight, unknown) {
            (0, 0) => Self::Still,
            (0, _) => Self::OnlyUnknown,
            (_, _) => Self::InFlight,
        }
    }
}

impl Drain {
    /// Number of this drain since the start of the program.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// Epoch that it drains.
    pub fn epoch(&self) -> Epoch {
        self.epoch
    }

    /// Lane that it drains; `None` is all.
    pub fn lane(&self) -> Option<Lane> {
        self.lane
    }

    /// When it gives up.
    pub fn deadline(&self) -> Instant {
        self.deadline
    }

    /// How it ended, if it has; looks at the gate.
    pub fn outcome(&self) -> Option<Outcome> {
        let mut outcome = lock(&self.outcome);
        if outcome.is_none() {
            *outcome = self.found();
        }
        *outcome
    }

    /// Waits for the outcome. Safe to drop at any point, and any number may wait.
    pub async fn wait(&self) -> Outcome {
        let Some(gate) = self.gate.upgrade() else {
            return Outcome::Superseded;
        };
        let listener = gate.quieter.listen();
        let mut alarm = Alarm::at(self.deadline);
        poll_fn(|cx| {
            listener.register(cx.waker());
            // The alarm before the look: one that rings now is then seen by the look.
            let _ = alarm.poll(cx);
            self.outcome().map_or(Poll::Pending, Poll::Ready)
        })
        .await
    }

    /// The operator accepts the loss of what is unknown: it no longer blocks this drain.
    pub fn accept_unknown(&self) {
        self.accept_unknown.set(1);
        self.ring();
    }

    /// Another command overtakes it. Without effect once there is an outcome.
    pub fn supersede(&self) {
        self.end_superseded();
        self.ring();
    }

    /// The proof, if the drain ended well.
    pub fn proof(&self) -> Option<Drained> {
        let unknown_accepted = match self.outcome()? {
            Outcome::Drained => false,
            Outcome::DrainedWithUnknown => true,
            Outcome::TimedOut | Outcome::Superseded => return None,
        };
        Some(Drained {
            epoch: self.epoch,
            unknown_accepted,
        })
    }

    /// Without waking anybody: for callers that hold the room's lock.
    pub(super) fn end_superseded(&self) {
        lock(&self.outcome).get_or_insert(Outcome::Superseded);
    }

    fn found(&self) -> Option<Outcome> {
        let Some(gate) = self.gate.upgrade() else {
            return Some(Outcome::Superseded);
        };
        let lanes: &[Lane] = match &self.lane {
            Some(lane) => std::slice::from_ref(lane),
            None => &Lane::ALL,
        };
        let fenced = |lane: &Lane| {
            let look = gate.look(*lane);
            look.epoch == self.epoch && look.phase != Phase::Open
        };
        let accepted = self.accept_unknown.value() == 1;
        match gate.stillness(lanes) {
            // Fenced at our epoch, looked at after the counts, and superseded before any open:
            // so nothing was admitted since the counts were read.
            Stillness::Still if lanes.iter().all(fenced) => Some(Outcome::Drained),
            Stillness::OnlyUnknown if accepted && lanes.iter().all(fenced) => {
                Some(Outcome::DrainedWithUnknown)
            }
            Stillness::Still | Stillness::OnlyUnknown | Stillness::InFlight => {
                (now() >= self.deadline).then_some(Outcome::TimedOut)
            }
        }
    }

    fn ring(&self) {
        if let Some(gate) = self.gate.upgrade() {
            gate.quieter.ring();
        }
    }
}
