//! The waiting room as plain data: who waits, in which order, within which bounds.
//!
//! Used under one lock, which is also the lock of every phase change, so a write never parks
//! between "the phase changes" and "those that wait are called". Places are numbered once; a
//! called write that must wait again takes its old place (G4: the order and the first deadline
//! stay).

use std::{collections::BTreeMap, sync::Arc};

use futures_util::task::AtomicWaker;

use super::{
    counts::LaneCounts, drain::Drain, error::Refusal, phase::Lane, plan::Limits, word::Count,
};

/// What the waiting task and the room share.
pub(super) struct Seat {
    /// 1 once called: the task should ask. Changed under the room's lock only.
    called: Count,
    pub(super) waker: AtomicWaker,
}

impl Seat {
    pub(super) fn is_called(&self) -> bool {
        self.called.value() == 1
    }

    fn set_called(&self, called: bool) {
        self.called.set(u64::from(called));
    }
}

#[derive(Default)]
struct Queue {
    /// Not yet called, by place.
    waiting: BTreeMap<u64, Arc<Seat>>,
    counts: LaneCounts,
}

/// See the module.
pub(super) struct Room {
    limits: Limits,
    queues: [Queue; 2],
    next_place: u64,
    held: usize,
    held_bytes: usize,
    /// Raised by each phase change that opens: a release of an earlier one stops.
    pub(super) release: u64,
    /// First place that was not there when the gate opened.
    pub(super) newcomers_from: u64,
    pub(super) drain: Option<Arc<Drain>>,
    pub(super) drains: u64,
}

impl Room {
    pub(super) fn new(limits: Limits) -> Self {
        Self {
            limits,
            queues: Default::default(),
            next_place: 0,
            held: 0,
            held_bytes: 0,
            release: 0,
            newcomers_from: 0,
            drain: None,
            drains: 0,
        }
    }

    pub(super) fn next_place(&self) -> u64 {
        self.next_place
    }

    /// Takes a write in at the end of its lane; `called` if it need not wait at all.
    pub(super) fn take(
        &mut self,
        lane: Lane,
        bytes: usize,
        called: bool,
    ) -> Result<(u64, Arc<Seat>), Refusal> {
        if let Some(refusal) = self.lacks_room_for(bytes) {
            self.queues[lane.index()].counts.turned_away_total += 1;
            return Err(refusal);
        }
        let place = self.next_place;
        self.next_place += 1;
        self.held += 1;
        self.held_bytes += bytes;
        let seat = Arc::new(Seat {
            called: Count::new(),
            waker: AtomicWaker::new(),
        });
        let queue = &mut self.queues[lane.index()];
        queue.counts.held_total += 1;
        queue.counts.held_waiting += 1;
        queue.counts.held_bytes += bytes as u64;
        if called {
            seat.set_called(true);
        } else {
            queue.waiting.insert(place, Arc::clone(&seat));
        }
        Ok((place, seat))
    }

    fn lacks_room_for(&self, bytes: usize) -> Option<Refusal> {
        let Limits {
            held,
            held_bytes,
            release_burst: _,
        } = self.limits;
        if self.held >= held {
            return Some(Refusal::RoomFull { limit: held });
        }
        let fits = self
            .held_bytes
            .checked_add(bytes)
            .is_some_and(|sum| sum <= held_bytes);
        (!fits).then_some(Refusal::RoomBytes { limit: held_bytes })
    }

    /// A called write was not admitted and takes its place again.
    pub(super) fn put_back(&mut self, lane: Lane, place: u64, seat: &Arc<Seat>) {
        seat.set_called(false);
        self.queues[lane.index()]
            .waiting
            .insert(place, Arc::clone(seat));
    }

    /// Ends one stay; `count` picks the count in which it ends.
    pub(super) fn leave(
        &mut self,
        lane: Lane,
        place: u64,
        bytes: usize,
        count: impl FnOnce(&mut LaneCounts) -> &mut u64,
    ) {
        self.held -= 1;
        self.held_bytes -= bytes;
        let queue = &mut self.queues[lane.index()];
        queue.waiting.remove(&place);
        queue.counts.held_waiting -= 1;
        queue.counts.held_bytes -= bytes as u64;
        *count(&mut queue.counts) += 1;
    }

    /// Calls up to `most` of those waiting in `lanes`, first come first called, over all lanes.
    /// The caller wakes them after it has let go of the lock.
    pub(super) fn call(&mut self, lanes: &[Lane], most: usize) -> Vec<Arc<Seat>> {
        let mut called = Vec::new();
        while called.len() < most {
            let Some((_, lane)) = self.first_of(lanes) else {
                break;
            };
            let Some((_, seat)) = self.queues[lane.index()].waiting.pop_first() else {
                break;
            };
            seat.set_called(true);
            called.push(seat);
        }
        called
    }

    /// Place and lane of the next to be called in `lanes`.
    pub(super) fn first_of(&self, lanes: &[Lane]) -> Option<(u64, Lane)> {
        let first = |lane: Lane| {
            let (place, _) = self.queues[lane.index()].waiting.first_key_value()?;
            Some((*place, lane))
        };
        lanes.iter().copied().filter_map(first).min()
    }

    pub(super) fn counts(&self, lane: Lane) -> LaneCounts {
        self.queues[lane.index()].counts
    }
}

/// Wakes those called; with no lock held, since waking may run foreign code.
pub(super) fn wake(called: Vec<Arc<Seat>>) {
    for seat in called {
        seat.waker.wake();
    }
}
