//! Proofs of the gate: every interleaving and every memory ordering within bounds.
//!
//! ```text
//! cargo test -p writefence --lib gate::                             panics, durable order, unknown
//! cargo test -p writefence --lib --features loom-gate gate::model       memory orderings
//! cargo test -p writefence --lib --features shuttle-gate gate::model    hold, wake, re-fence, drain
//! ```
//!
//! The gate under proof is the gate that serves: the features only exchange its atomics and locks
//! (`atomics`) and take its timers away (`time`). loom knows C11's weak orderings but only few
//! threads and steps; shuttle knows interleavings only, but of whole scenes; stateright knows all
//! orders of commands, crashes and store failures.
//!
//! Each proof takes a fault to plant (`seam`) and must fail with it, by the property named:
//!
//! | planted fault | noticed by |
//! |---|---|
//! | look before count, acquire/release | `orderings`: a drained gate has no permit |
//! | notify before decrement | `orderings`, `interleavings`: a drain is woken by the last end |
//! | uncount before unknown, unknown read first | `orderings`: a lost permit never hides |
//! | woken counts as admitted | `interleavings`, `orderings`: called is not admitted |
//! | double release on panic | `panics`: a panic ends its own permit once |
//! | open before fsync, fsync before fence | `durable_order`: memory is never more open than disk |
//! | `drained` ignores `unknown` | `unknown`, `orderings`: a lost permit never hides |

#[cfg(not(any(feature = "loom-gate", feature = "shuttle-gate")))]
mod durable_order;
#[cfg(all(feature = "shuttle-gate", not(feature = "loom-gate")))]
mod interleavings;
#[cfg(feature = "loom-gate")]
mod orderings;
#[cfg(not(any(feature = "loom-gate", feature = "shuttle-gate")))]
mod panics;
#[cfg(not(any(feature = "loom-gate", feature = "shuttle-gate")))]
mod unknown;

use std::{sync::Arc, time::Duration};

use tokio::time::Instant;

use super::{
    Begin, Epoch, Gate, Limits, Plan,
    seam::{Mutant, Seam},
};

/// A fenced gate with a waiting room for a few, called one by one.
fn gate(planted: Option<Mutant>) -> Arc<Gate> {
    let limits = Limits {
        held: 8,
        held_bytes: 1024,
        release_burst: 1,
    };
    Gate::with_seam(limits, Epoch::new(1), Seam::with(planted))
}

/// Later than any proof takes: time plays no part in them.
fn far() -> Instant {
    Instant::now() + Duration::from_secs(86_400)
}

fn plan() -> Plan {
    let hold = Duration::from_secs(86_400);
    Plan {
        grace: far(),
        deadline: far(),
        hold,
        begin: Begin::Auto,
        all: false,
    }
}

/// Asserts that `proof` fails, and by the property whose words are given: a proof that fails for
/// another reason proves nothing about the fault.
#[cfg(any(feature = "loom-gate", feature = "shuttle-gate"))]
fn assert_fails_by(property: &str, proof: impl FnOnce()) {
    use std::panic::{AssertUnwindSafe, catch_unwind};
    let panic = catch_unwind(AssertUnwindSafe(proof)).expect_err("the proof missed the fault");
    let text = panic
        .downcast_ref::<String>()
        .cloned()
        .or_else(|| panic.downcast_ref::<&str>().map(ToString::to_string))
        .expect("a panic carries text");
    assert!(
        text.contains(property),
        "failed, but not by “{property}”: {text}"
    );
}
