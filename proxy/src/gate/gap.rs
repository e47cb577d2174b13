//! How long writes were stopped, as the permits themselves show it.
//!
//! Statistics only: nothing is decided by them. Nothing is measured while the gate is open and
//! nobody waits to see it work again: the open path only looks at a flag that does not change (G6).
//! From a fence to the first end of a permit behind the opening, each end is noted.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::time::Instant;

use super::{epoch::Epoch, permit::Permit, time::now};

/// The last stop of writes. What did not happen (yet) is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Gap {
    /// The first fence behind an open gate.
    pub fenced: Option<Instant>,
    /// The last outcome learned of a write that was admitted before the opening; `None` if none
    /// was in flight when the fence fell.
    pub last_end: Option<Instant>,
    /// The opening.
    pub opened: Option<Instant>,
    /// The first outcome learned behind it; of those that waited, where any did.
    pub first_end: Option<Instant>,
    /// That one had waited behind the fence, so it is a write for certain; while open, permits are
    /// taken for reads as well.
    pub first_was_held: bool,
    /// Somebody waited as the gate opened, and none of those has ended: a read that came behind the
    /// opening may have ended before and is no end of the gap.
    pub awaits_held: bool,
    /// The longest time that a write waited.
    pub longest_hold: Duration,
}

impl Gap {
    /// From the last outcome before to the first behind it; `None` until there is one.
    #[must_use]
    pub fn length(&self) -> Option<Duration> {
        let from = self.last_end.or(self.fenced)?;
        Some(self.first_end?.saturating_duration_since(from))
    }
}

/// So long behind an opening the end of a write that waited is looked for; then all of them have left,
/// or run for long, and the open path is to look at nothing but its flag again.
const HELD_PATIENCE: Duration = Duration::from_secs(1);

#[derive(Default)]
struct State {
    gap: Gap,
    /// Epoch of the opening: permits of it and later ones are of behind it.
    opened_at: Option<Epoch>,
}

impl State {
    fn is_behind(&self, permit: &Permit) -> bool {
        self.opened_at.is_some_and(|epoch| permit.epoch() >= epoch)
    }
}

/// See the module.
#[derive(Default)]
pub(super) struct Gauge {
    /// Set from a fence until the first end behind the opening. The standard library's atomics, also
    /// in proofs: no promise of the gate hangs on what is measured.
    armed: AtomicBool,
    state: Mutex<State>,
}

impl Gauge {
    /// A lane was fenced. A fence behind a fence goes on measuring.
    pub(super) fn fenced(&self) {
        let mut state = self.state();
        if state.gap.fenced.is_none() || state.opened_at.is_some() {
            *state = State::default();
            state.gap.fenced = Some(now());
        }
        self.armed.store(true, Ordering::Relaxed);
    }

    /// The gate opened under this epoch; `waited` says that writes were held until then.
    pub(super) fn opened(&self, epoch: Epoch, waited: bool) {
        let mut state = self.state();
        state.opened_at = Some(epoch);
        state.gap.opened = Some(now());
        state.gap.awaits_held = waited;
    }

    /// A permit's outcome is known. A look at one flag unless a gap is being measured. A relaxed
    /// look may miss a fence of this very instant: then the end was before it.
    pub(super) fn ended(&self, permit: &Permit) {
        if self.armed.load(Ordering::Relaxed) {
            self.note(permit);
        }
    }

    #[cold]
    fn note(&self, permit: &Permit) {
        let mut state = self.state();
        let Some(opened) = state.gap.opened.filter(|_| state.is_behind(permit)) else {
            state.gap.last_end = Some(now());
            return;
        };
        let gap = &mut state.gap;
        if gap.first_end.is_none() || permit.was_held() {
            gap.first_end = Some(now());
            gap.first_was_held = permit.was_held();
        }
        let is_late = now().saturating_duration_since(opened) > HELD_PATIENCE;
        if gap.first_was_held || is_late {
            gap.awaits_held = false;
        }
        if !gap.awaits_held {
            self.armed.store(false, Ordering::Relaxed);
        }
    }

    /// A held write left the room.
    pub(super) fn held(&self, since: Instant) {
        let waited = now().saturating_duration_since(since);
        let mut state = self.state();
        state.gap.longest_hold = state.gap.longest_hold.max(waited);
    }

    pub(super) fn gap(&self) -> Gap {
        self.state().gap
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}
