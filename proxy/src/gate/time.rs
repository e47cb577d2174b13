//! The gate's door to the runtime: the clock, alarms, and the task of a rate-shaped release.
//!
//! The proof builds have no runtime: there no alarm ever rings and the proof itself drives a
//! release, step by step. Time is proven apart, with tokio's paused clock.

use std::{sync::Weak, task::Context};

use tokio::time::Instant;

use super::Gate;

/// Now, by tokio's clock (which tests pause).
pub(super) fn now() -> Instant {
    Instant::now()
}

/// Wakes its poller at an instant. The timer is made at the first poll: most waits end without.
pub(super) struct Alarm {
    at: Instant,
    #[cfg(not(all(test, any(feature = "loom-gate", feature = "shuttle-gate"))))]
    sleep: Option<std::pin::Pin<Box<tokio::time::Sleep>>>,
}

#[cfg(not(all(test, any(feature = "loom-gate", feature = "shuttle-gate"))))]
mod runtime {
    use std::time::Duration;

    use tokio::time::{MissedTickBehavior, interval_at, sleep_until};

    use super::{Alarm, Context, Gate, Instant, Weak, now};
    use crate::gate::release::Step;

    /// Pace of a release. Shorter is below the timer's grain, longer would show in the write gap.
    const TICK: Duration = Duration::from_millis(1);

    impl Alarm {
        pub(in crate::gate) fn at(at: Instant) -> Self {
            Self { at, sleep: None }
        }

        /// True once the instant has come; until then the poller is woken when it comes.
        pub(in crate::gate) fn poll(&mut self, cx: &mut Context<'_>) -> bool {
            if now() >= self.at {
                return true;
            }
            let at = self.at;
            let sleep = self.sleep.get_or_insert_with(|| Box::pin(sleep_until(at)));
            sleep.as_mut().poll(cx).is_ready()
        }
    }

    /// Calls the rest of the waiting room, a burst per tick. The task holds the gate weakly and
    /// ends with the release, so shutdown need not wait for it.
    pub(in crate::gate) fn go_on_releasing(gate: Weak<Gate>, release: u64, burst: usize) {
        let first = now() + TICK;
        tokio::spawn(async move {
            let mut ticks = interval_at(first, TICK);
            // A late tick is made up for: the rate holds on average.
            ticks.set_missed_tick_behavior(MissedTickBehavior::Burst);
            let mut burst = burst;
            loop {
                ticks.tick().await;
                let Some(gate) = gate.upgrade() else { return };
                match gate.release_step(release, burst) {
                    Step::Done => return,
                    Step::More => {}
                    // Those that waited through the fence are gone. Newcomers may arrive as fast
                    // as they are called, for ever; the growing burst outruns them.
                    Step::OnlyNewcomers => burst = burst.saturating_mul(2),
                }
            }
        });
    }
}

#[cfg(all(test, any(feature = "loom-gate", feature = "shuttle-gate")))]
mod runtime {
    use super::{Alarm, Context, Gate, Instant, Weak, now};

    impl Alarm {
        pub(in crate::gate) fn at(at: Instant) -> Self {
            Self { at }
        }

        pub(in crate::gate) fn poll(&mut self, _: &mut Context<'_>) -> bool {
            now() >= self.at
        }
    }

    pub(in crate::gate) fn go_on_releasing(_: Weak<Gate>, _: u64, _: usize) {}
}

pub(super) use runtime::go_on_releasing;
