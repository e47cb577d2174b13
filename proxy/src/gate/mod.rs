//! The one object that admits writes: one gate per group, with a lane for HTTP and one for SQL.
//!
//! What it promises, cited by number wherever it is upheld or tested:
//!
//! * **G1** A lane that is fenced issues no new permit.
//! * **G2** Once a drain of epoch e returned `drained`, no permit of an epoch ≤ e is alive and
//!   none can be made.
//! * **G3** The epoch only grows, and every phase change raises it.
//! * **G4** A held write leaves by its own first deadline, admitted or refused; the waiting room is
//!   bounded; called is not admitted: it asks again.
//! * **G5** A permit ends exactly once, also on panic and cancellation.
//! * **G6** Admitting while open takes no lock and allocates nothing.
//!
//! It does no IO, reads no configuration and writes no log; it knows neither SQL nor HTTP. Phase
//! changes here are in memory only: `durable` fixes their order with the record on disk, and only
//! control calls them. A write that control cannot see end does not end here either: it stays
//! counted, as in flight or as unknown, and every drain waits for it.

#![warn(clippy::wildcard_enum_match_arm)]

mod atomics;
mod counts;
mod drain;
mod durable;
mod epoch;
mod error;
mod gap;
mod hold;
mod permit;
mod phase;
mod plan;
mod release;
mod room;
mod seam;
mod time;
mod watch;
mod word;

#[cfg(test)]
mod model;
#[cfg(all(test, not(any(feature = "loom-gate", feature = "shuttle-gate"))))]
mod tests;

use std::sync::Arc;

use arc_swap::ArcSwapOption;

use atomics::{Mutex, MutexGuard, lock};
use gap::Gauge;
use phase::Pass;
use room::Room;
use seam::{Mutant, Seam};
use watch::Bell;
use word::{Count, LaneWord};

pub use counts::{Counts, End, LaneCounts};
pub use drain::{Drain, Drained, Outcome};
pub use durable::{DurableError, Record, fence_durably, open_durably};
pub use epoch::Epoch;
pub use error::Refusal;
pub use gap::Gap;
pub use hold::{Parked, Turn};
pub use permit::{Lost, Permit};
pub use phase::{Answer, Lane, Look, Phase};
pub use plan::{Begin, Limits, Plan};
pub use watch::Watch;

/// See the module.
pub struct Gate {
    lanes: [LaneWord; 2],
    /// Writes whose outcome is unknown, of both lanes.
    unknown: Count,
    plan: ArcSwapOption<Plan>,
    /// The waiting room. Its lock is also that of every phase change.
    room: Mutex<Room>,
    /// Rung when a phase, the plan or a target changed.
    changes: Arc<Bell>,
    /// Rung when a count fell to zero and when the drain in force may have ended otherwise.
    quieter: Arc<Bell>,
    /// Held writes called at a time.
    burst: usize,
    /// Measures how long writes are stopped.
    gauge: Gauge,
    seam: Seam,
}

impl Gate {
    /// A gate at `epoch`, fenced and rejecting in all lanes until somebody opens it.
    pub fn new(limits: Limits, epoch: Epoch) -> Arc<Self> {
        Self::with_seam(limits, epoch, Seam::default())
    }

    fn with_seam(limits: Limits, epoch: Epoch, seam: Seam) -> Arc<Self> {
        let look = Look {
            epoch,
            phase: Phase::Fenced(Answer::Reject),
            releasing: false,
        };
        Arc::new(Self {
            lanes: [LaneWord::new(look, seam), LaneWord::new(look, seam)],
            unknown: Count::new(),
            plan: ArcSwapOption::empty(),
            room: Mutex::new(Room::new(limits)),
            changes: Bell::new(),
            quieter: Bell::new(),
            burst: limits.release_burst.max(1),
            gauge: Gauge::default(),
            seam,
        })
    }

    /// What `lane` looks like: one load.
    pub fn look(&self, lane: Lane) -> Look {
        self.word(lane).look()
    }

    /// Admits a write, or shows what it found instead. While open this takes no lock and allocates
    /// nothing (G6): two loads, two additions and the permit's handle on the gate.
    ///
    /// # Errors
    /// The lane is fenced, or held writes leave first (`releasing`): park behind them.
    pub fn admit(self: &Arc<Self>, lane: Lane) -> Result<Permit, Look> {
        self.admit_as(lane, Pass::Newcomer)
    }

    fn admit_as(self: &Arc<Self>, lane: Lane, pass: Pass) -> Result<Permit, Look> {
        let word = self.word(lane);
        let waved_through = pass == Pass::Called && self.seam.has(Mutant::WokenIsAdmitted);
        // This first look can only refuse, which is always safe. It keeps refused newcomers, who
        // may be many and persistent, from showing in the count that a drain waits for.
        let look = word.look();
        if !look.admits(pass) && !waved_through {
            return Err(look);
        }
        let look = word.count_then_look();
        if look.admits(pass) || waved_through {
            word.note_admitted();
            return Ok(Permit::of_counted(Arc::clone(self), look.epoch, lane));
        }
        self.uncount(lane);
        Err(look)
    }

    fn end_permit(&self, lane: Lane) {
        self.word(lane).note_released();
        self.uncount(lane);
    }

    /// Notify after the decrement: a drain that is woken earlier still finds the write in flight,
    /// waits again, and nobody is left to wake it.
    fn uncount(&self, lane: Lane) {
        let word = self.word(lane);
        if self.seam.has(Mutant::NotifyBeforeDecrement) {
            if word.in_flight() == 1 {
                self.quieter.ring();
            }
            word.leave();
            return;
        }
        if word.leave() == 0 {
            self.quieter.ring();
        }
    }

    /// Counts a write of an earlier incarnation whose end nobody saw as unknown.
    pub fn inherit_unknown(self: &Arc<Self>) -> Lost {
        Lost::inherited(Arc::clone(self))
    }

    /// The plan of the fence in force. There is none while the gate is open and nobody waits; a
    /// caller that saw a fence and finds no plan has been overtaken by an open: look again.
    pub fn plan(&self) -> Option<Arc<Plan>> {
        self.plan.load_full()
    }

    /// An ear at the gate.
    pub fn watch(&self) -> Watch {
        Watch::new(&self.changes)
    }

    /// Wakes all watchers, for a change outside the gate that they should look at.
    pub fn wake_all(&self) {
        self.changes.ring();
    }

    /// Writes in flight in `lane`.
    pub fn in_flight(&self, lane: Lane) -> u64 {
        self.word(lane).in_flight()
    }

    /// Writes whose outcome is unknown.
    pub fn unknown(&self) -> u64 {
        self.unknown.value()
    }

    /// The last stop of writes, as measured.
    pub fn gap(&self) -> Gap {
        self.gauge.gap()
    }

    /// All counts.
    pub fn counts(&self) -> Counts {
        let room = self.room();
        let of = |lane| {
            let (admitted_total, released_total) = self.word(lane).totals();
            LaneCounts {
                admitted_total,
                released_total,
                ..room.counts(lane)
            }
        };
        let (http, sql) = (of(Lane::Http), of(Lane::Sql));
        Counts {
            epoch: self.epoch(),
            http,
            sql,
            unknown: self.unknown(),
        }
    }

    fn word(&self, lane: Lane) -> &LaneWord {
        &self.lanes[lane.index()]
    }

    /// Epoch of the gate, equal in both lanes whenever the room's lock is held.
    fn epoch(&self) -> Epoch {
        self.look(Lane::Sql).epoch
    }

    fn room(&self) -> MutexGuard<'_, Room> {
        lock(&self.room)
    }
}
