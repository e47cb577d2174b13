//! Phase changes, and the ordered release of those that waited.
//!
//! Memory only: what must be durable first is `durable`'s matter, who may call is control's. Every
//! change happens under the room's lock; bells are rung and tasks woken after it.
//!
//! On open the first burst is called at once; if more wait, the lane is `releasing`: newcomers
//! park behind, a task calls a burst per millisecond, and the last call ends the release.

use std::sync::Arc;

use super::{
    Gate,
    atomics::MutexGuard,
    epoch::Epoch,
    phase::{Answer, Lane, Look, Move, Phase},
    plan::Plan,
    room::{Room, wake},
    time::go_on_releasing,
};

/// How far a release is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// Nobody is left, or the gate has moved on.
    Done,
    /// Some that waited through the fence are left.
    More,
    /// Only those are left that came after the open.
    OnlyNewcomers,
}

impl Gate {
    /// Fences `lanes`; a lane not named keeps its phase. Writes that are in flight stay so: see
    /// [`Gate::start_drain`]. A drain in force is superseded.
    pub fn fence(&self, lanes: &[Lane], answer: Answer, plan: Plan) -> Epoch {
        let mut room = self.room();
        // The plan first: whoever sees the fence finds its times.
        self.plan.store(Some(Arc::new(plan)));
        supersede(&room);
        let fenced = |lane| match lanes.contains(&lane) {
            true => Move::Fence(answer),
            false => Move::Stand,
        };
        let epoch = self.step_all(&room, fenced);
        self.gauge.fenced();
        let called = match answer {
            Answer::Hold => Vec::new(),
            // They ask, and learn that they are refused.
            Answer::Reject => room.call(lanes, usize::MAX),
        };
        drop(room);
        wake(called);
        self.ring_all();
        epoch
    }

    /// Gives the fence in force other times; the epoch stays. Without a fence nothing happens.
    pub fn extend(&self, plan: Plan) {
        let room = self.room();
        if self.plan.load().is_none() {
            return;
        }
        self.plan.store(Some(Arc::new(plan)));
        drop(room);
        self.changes.ring();
    }

    /// Opens all lanes and releases those that wait, in order. Needs a tokio runtime if more
    /// wait than one burst.
    pub fn open(self: &Arc<Self>) -> Epoch {
        self.open_locked(self.room())
    }

    /// Opens only if no phase changed since `seen`; otherwise says what the epoch is.
    pub(super) fn open_if(self: &Arc<Self>, seen: Epoch) -> Result<Epoch, Epoch> {
        let room = self.room();
        let found = self.epoch();
        if found != seen {
            return Err(found);
        }
        Ok(self.open_locked(room))
    }

    fn open_locked(self: &Arc<Self>, mut room: MutexGuard<'_, Room>) -> Epoch {
        // Superseded before the words change: a drain that found all quiet found it fenced.
        supersede(&room);
        room.release += 1;
        room.newcomers_from = room.next_place();
        let (release, burst) = (room.release, self.burst);
        let called = room.call(&Lane::ALL, burst);
        let epoch = self.step_all(&room, |lane| match room.first_of(&[lane]) {
            None => Move::Open,
            Some(_) => Move::OpenReleasing,
        });
        let done = room.first_of(&Lane::ALL).is_none();
        self.gauge.opened(epoch, !called.is_empty() || !done);
        self.forget_plan_unless_used(&room);
        drop(room);
        if !done {
            go_on_releasing(Arc::downgrade(self), release, burst);
        }
        wake(called);
        self.ring_all();
        epoch
    }

    /// Calls the next burst of the release numbered `release`, as long as that is the one in
    /// force. A lane that was fenced meanwhile is left out.
    pub(super) fn release_step(&self, release: u64, burst: usize) -> Step {
        let mut room = self.room();
        if room.release != release {
            return Step::Done;
        }
        let lanes: Vec<_> = Lane::ALL
            .into_iter()
            .filter(|lane| self.look(*lane).releasing)
            .collect();
        let called = room.call(&lanes, burst);
        let step = match room.first_of(&lanes) {
            None => Step::Done,
            Some((place, _)) if place >= room.newcomers_from => Step::OnlyNewcomers,
            Some(_) => Step::More,
        };
        if step == Step::Done {
            for lane in lanes {
                self.step(&room, lane, Move::Released);
            }
            self.forget_plan_unless_used(&room);
        }
        drop(room);
        wake(called);
        step
    }

    /// Start-up: the epoch of the durable record, so that ours goes on from there. Never lowers.
    pub fn set_epoch_at_least(&self, epoch: Epoch) {
        let room = self.room();
        if self.epoch() >= epoch {
            return;
        }
        supersede(&room);
        for lane in Lane::ALL {
            let look = self.look(lane);
            self.word(lane).set(Look { epoch, ..look });
        }
        drop(room);
        self.ring_all();
    }

    /// Moves both lanes into one new epoch. `_room` shows that the lock of phase changes is held.
    fn step_all(&self, room: &Room, step: impl Fn(Lane) -> Move) -> Epoch {
        for lane in Lane::ALL {
            self.step(room, lane, step(lane));
        }
        self.epoch()
    }

    fn step(&self, _room: &Room, lane: Lane, step: Move) {
        let word = self.word(lane);
        if let Some(after) = word.look().after(step) {
            word.set(after);
        }
    }

    /// The plan is wanted as long as a lane is fenced or somebody may park.
    fn forget_plan_unless_used(&self, _room: &Room) {
        let used = Lane::ALL.into_iter().map(|lane| self.look(lane));
        if !used
            .into_iter()
            .any(|look| look.phase != Phase::Open || look.releasing)
        {
            self.plan.store(None);
        }
    }

    fn ring_all(&self) {
        self.quieter.ring();
        self.changes.ring();
    }
}

/// Ends the drain in force: it was of an epoch that is over. Its waiters are woken by the caller,
/// without the lock.
fn supersede(room: &Room) {
    if let Some(drain) = &room.drain {
        drain.end_superseded();
    }
}
