//! Panics: a permit dropped by unwinding ends once, and only itself.
//!
//! Plain threads of the standard library: the model checkers run many threads on one, which
//! confuses whether it is panicking.

use std::panic::{AssertUnwindSafe, catch_unwind};

use super::{far, gate, plan};
use crate::gate::{Answer, Gate, Lane, Outcome, Permit, seam::Mutant};

fn panic_with(permit: Permit) {
    let caught = catch_unwind(AssertUnwindSafe(move || {
        let _permit = permit;
        std::panic::resume_unwind(Box::new("a session failed"));
    }));
    assert!(caught.is_err());
}

/// One session panics while another's write goes on: whether a drain then is right.
fn a_drain_after_a_panic_is_right(planted: Option<Mutant>) -> bool {
    let gate = gate(planted);
    gate.open();
    let bystander = gate.admit(Lane::Sql).ok();
    let permit = gate.admit(Lane::Sql).expect("the gate is open");
    panic_with(permit);
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, far());
    let waits_for_bystander = drain.outcome().is_none() && in_flight(&gate) == 1;
    drop(bystander);
    waits_for_bystander && drain.outcome() == Some(Outcome::Drained) && in_flight(&gate) == 0
}

fn in_flight(gate: &Gate) -> u64 {
    gate.in_flight(Lane::Sql)
}

#[test]
fn a_panic_ends_its_own_permit_once() {
    assert!(a_drain_after_a_panic_is_right(None));
}

#[test]
fn the_proof_notices_a_double_release_on_panic() {
    assert!(!a_drain_after_a_panic_is_right(Some(
        Mutant::DoubleReleaseOnPanic
    )));
}
