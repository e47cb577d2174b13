//! A held write: parked, called, asking again, gone.
//!
//! Being called is a rumour, not an admission: an operator may have fenced again, at a higher
//! epoch, before the waiting task got to run. So a held write always goes back through admission,
//! keeps its place and its first deadline, and may find itself refused after all (G4). The room's
//! bounds are in `room`, the pace at which writes are called in `release`.

use std::{
    future::poll_fn,
    sync::Arc,
    task::{Context, Poll},
};

use tokio::time::Instant;

use super::{
    Gate,
    counts::{End, LaneCounts},
    error::Refusal,
    permit::Permit,
    phase::{Answer, Lane, Look, Pass, Phase},
    room::Seat,
    time::{Alarm, now},
};

/// What a held write should do now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// Something changed: ask.
    Ask,
    /// Its time is over: refuse it.
    Expired,
}

/// One held write. Dropping it counts it as abandoned.
#[must_use = "dropping a held write abandons it"]
pub struct Parked {
    gate: Arc<Gate>,
    seat: Arc<Seat>,
    place: u64,
    lane: Lane,
    bytes: usize,
    until: Instant,
    since: Instant,
    alarm: Alarm,
    /// Already counted out; the drop has nothing left to do.
    left: bool,
}

impl Gate {
    /// Takes a write of `bytes` into the waiting room until `until` at the latest. If the lane
    /// has come to admit newcomers meanwhile, its turn is at once.
    ///
    /// # Errors
    /// The fence rejects, `until` is over, or the room is full; the write was not executed.
    pub fn park(
        self: &Arc<Self>,
        lane: Lane,
        bytes: usize,
        until: Instant,
    ) -> Result<Parked, Refusal> {
        let mut room = self.room();
        let look = self.look(lane);
        if look.phase == Phase::Fenced(Answer::Reject) {
            return Err(Refusal::Fenced { epoch: look.epoch });
        }
        if now() >= until {
            return Err(Refusal::Expired { epoch: look.epoch });
        }
        let (place, seat) = room.take(lane, bytes, !must_wait(look))?;
        drop(room);
        let alarm = Alarm::at(until);
        let gate = Arc::clone(self);
        Ok(Parked {
            gate,
            seat,
            place,
            lane,
            bytes,
            until,
            since: now(),
            alarm,
            left: false,
        })
    }
}

/// Whether a write that found the lane like this stays in its place until called.
const fn must_wait(look: Look) -> bool {
    match look.phase {
        Phase::Open => look.releasing,
        Phase::Fenced(Answer::Hold) => true,
        // It asks at once and learns that it is refused.
        Phase::Fenced(Answer::Reject) => false,
    }
}

impl Parked {
    /// Waits for the write's turn. Safe to drop at any point: a call not reported stays due.
    pub async fn turn(&mut self) -> Turn {
        poll_fn(|cx| self.poll_turn(cx)).await
    }

    /// The same, for a loop that polls. A deadline that is over counts before a call: past it
    /// nothing leaves this room towards the upstream (G4).
    pub fn poll_turn(&mut self, cx: &mut Context<'_>) -> Poll<Turn> {
        // Registered first: a call between the two is then either seen or wakes.
        self.seat.waker.register(cx.waker());
        if now() >= self.until {
            return Poll::Ready(Turn::Expired);
        }
        if self.seat.is_called() {
            return Poll::Ready(Turn::Ask);
        }
        if self.alarm.poll(cx) {
            return Poll::Ready(Turn::Expired);
        }
        Poll::Pending
    }

    /// Goes through admission again. Admitted, the stay is over and counts as released; refused,
    /// the write has kept its place and its deadline: wait for the next turn, or finish it if the
    /// look says that the fence rejects.
    ///
    /// # Errors
    /// What the gate looked like when it did not admit.
    pub fn ask(&mut self) -> Result<Permit, Look> {
        let called = self.seat.is_called();
        let pass = if called { Pass::Called } else { Pass::Newcomer };
        match self.gate.admit_as(self.lane, pass) {
            Ok(permit) => {
                self.leave(|counts| &mut counts.held_released);
                Ok(permit.held())
            }
            Err(look) => {
                if called {
                    self.wait_again();
                }
                Err(look)
            }
        }
    }

    /// Back to its place, unless the lane has moved on since the refusal: looked at under the
    /// lock of phase changes, so that no open in between forgets this write.
    fn wait_again(&self) {
        let mut room = self.gate.room();
        if must_wait(self.gate.look(self.lane)) {
            room.put_back(self.lane, self.place, &self.seat);
        }
    }

    /// Ends the stay without admission.
    pub fn finish(mut self, end: End) {
        self.leave(|counts| match end {
            End::Expired => &mut counts.held_expired,
            End::Refused => &mut counts.held_refused,
            End::Cancelled => &mut counts.held_cancelled,
            End::Abandoned => &mut counts.held_abandoned,
        });
    }

    /// The write's own deadline, in the fence under which it came (G4).
    pub fn until(&self) -> Instant {
        self.until
    }

    fn leave(&mut self, count: impl FnOnce(&mut LaneCounts) -> &mut u64) {
        if !std::mem::replace(&mut self.left, true) {
            self.gate.gauge.held(self.since);
            self.gate
                .room()
                .leave(self.lane, self.place, self.bytes, count);
        }
    }
}

impl Drop for Parked {
    fn drop(&mut self) {
        self.leave(|counts| &mut counts.held_abandoned);
    }
}
