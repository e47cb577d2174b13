//! Memory orderings, by loom: every execution that C11 allows of each scene, with no bound.
//!
//! Wakers are plain flags here instead of an executor: what is proven is that a task which found
//! something in flight is woken afterwards.

use std::{
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::SeqCst},
    },
    task::{Context, Poll, Wake, Waker},
};

use loom::{
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    thread,
};

use super::{assert_fails_by, far, gate, plan};
use crate::gate::{Answer, Gate, Lane, Outcome, Turn, release::Step, seam::Mutant};

const DRAINED: &str = "G2: drained, but a permit is alive";
const FENCED: &str = "G1: a fenced lane issued a permit";
const WOKEN: &str = "the last end did not wake the drain";
const VISIBLE: &str = "drained, but the write's effect is not visible";
const HIDDEN: &str = "G2: drained, but an outcome is unknown";

fn open_gate(planted: Option<Mutant>) -> Arc<Gate> {
    let gate = gate(planted);
    gate.open();
    gate
}

fn drained(gate: &Arc<Gate>) -> bool {
    gate.start_drain(None, far()).outcome() == Some(Outcome::Drained)
}

#[derive(Default)]
struct Flag(AtomicBool);

impl Wake for Flag {
    fn wake(self: Arc<Self>) {
        self.0.store(true, SeqCst);
    }
}

/// Writers come while the fence falls and keep what they get.
fn admission_against_fence(writers: usize, planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let admit = |_| {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.admit(Lane::Sql).ok())
        };
        let writers: Vec<_> = (0..writers).map(admit).collect();
        let epoch = gate.fence(&Lane::ALL, Answer::Reject, plan());
        let drained = drained(&gate);
        for writer in writers {
            let permit = writer.join().expect("the thread ends");
            assert!(!drained || permit.is_none(), "{DRAINED}");
            assert!(
                permit.is_none_or(|permit| permit.epoch() < epoch),
                "{FENCED}"
            );
        }
        assert_eq!(gate.in_flight(Lane::Sql), 0, "G5: every permit ended once");
    });
}

/// The last write ends while a drain comes to wait.
fn end_against_wait(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let permit = gate.admit(Lane::Sql).ok();
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        let writer = thread::spawn(move || drop(permit));
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let pending = {
            let mut quiet = pin!(gate.quiet(Lane::Sql));
            let pending = quiet
                .as_mut()
                .poll(&mut Context::from_waker(&waker))
                .is_pending();
            writer.join().expect("the thread ends");
            assert!(!pending || flag.0.load(SeqCst), "{WOKEN}");
            pending
        };
        assert!(!pending || drained(&gate));
    });
}

/// A write comes and goes, admitted or refused, while the fence falls and a drain comes to wait.
fn newcomer_against_wait(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let writer = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || drop(gate.admit(Lane::Sql)))
        };
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        let flag = Arc::new(Flag::default());
        let waker = Waker::from(Arc::clone(&flag));
        let mut quiet = pin!(gate.quiet(Lane::Sql));
        let pending = quiet
            .as_mut()
            .poll(&mut Context::from_waker(&waker))
            .is_pending();
        writer.join().expect("the thread ends");
        assert!(!pending || flag.0.load(SeqCst), "{WOKEN}");
    });
}

/// A session goes to sleep on a watch while the phase changes.
fn watch_against_fence() {
    loom::model(move || {
        let gate = open_gate(None);
        let operator = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.fence(&Lane::ALL, Answer::Reject, plan()))
        };
        let flag = Arc::new(Flag::default());
        let watch = gate.watch();
        watch.register(&Waker::from(Arc::clone(&flag)));
        let before = gate.look(Lane::Sql).epoch;
        let epoch = operator.join().expect("the thread ends");
        assert!(
            before == epoch || flag.0.load(SeqCst),
            "neither seen nor woken"
        );
    });
}

/// A writer comes while the gate is fenced, opened and fenced again (G3).
fn admission_against_two_fences(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let writer = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.admit(Lane::Sql).ok())
        };
        let first = gate.fence(&Lane::ALL, Answer::Reject, plan());
        let first_drained = drained(&gate);
        let opened = gate.open();
        let second = gate.fence(&Lane::ALL, Answer::Reject, plan());
        assert!(
            first < opened && opened < second,
            "G3: an epoch did not grow"
        );
        let drained = drained(&gate);
        if let Some(permit) = writer.join().expect("the thread ends") {
            assert!(!drained, "{DRAINED}");
            assert!(!first_drained || permit.epoch() > first, "{DRAINED}");
            assert!(
                permit.epoch() != first && permit.epoch() < second,
                "{FENCED}"
            );
        }
    });
}

/// What a write did under its permit is visible to whoever sees the drain end.
fn end_hands_over(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let permit = gate.admit(Lane::Sql).ok();
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        let effect = Arc::new(AtomicU64::new(0));
        let writer = {
            let effect = Arc::clone(&effect);
            thread::spawn(move || {
                effect.store(1, Relaxed);
                drop(permit);
            })
        };
        assert!(!drained(&gate) || effect.load(Relaxed) == 1, "{VISIBLE}");
        writer.join().expect("the thread ends");
    });
}

/// A permit is lost while a drain looks.
fn loss_against_drain(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = open_gate(planted);
        let permit = gate.admit(Lane::Sql).ok();
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        let session = thread::spawn(move || permit.map(super::super::Permit::lose));
        assert!(!drained(&gate), "{HIDDEN}");
        let lost = session.join().expect("the thread ends");
        assert!(!drained(&gate), "{HIDDEN}");
        lost.expect("the permit was there").resolve();
        assert!(drained(&gate), "a resolved outcome blocks nothing");
    });
}

/// A held write is called, and the gate is fenced again before it asks.
fn call_against_refence(planted: Option<Mutant>) {
    loom::model(move || {
        let gate = gate(planted);
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let mut parked = gate.park(Lane::Sql, 1, far()).expect("the room is empty");
        let waiter = thread::spawn(move || {
            let waker = Waker::noop();
            let turn = parked.poll_turn(&mut Context::from_waker(waker));
            (turn == Poll::Ready(Turn::Ask))
                .then(|| parked.ask().ok())
                .flatten()
        });
        gate.open();
        let epoch = gate.fence(&Lane::ALL, Answer::Hold, plan());
        let drained = drained(&gate);
        let permit = waiter.join().expect("the thread ends");
        assert!(!drained || permit.is_none(), "{DRAINED}");
        assert!(
            permit.is_none_or(|permit| permit.epoch() < epoch),
            "{FENCED}"
        );
    });
}

/// A newcomer parks while the last step of a release is taken: it is called, now or by the next.
fn park_against_the_end_of_a_release() {
    loom::model(|| {
        let gate = gate(None);
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let park = |gate: &Arc<Gate>| gate.park(Lane::Sql, 1, far()).expect("there is room");
        let _held = [park(&gate), park(&gate)];
        gate.open();
        let release = gate.room().release;
        let task = {
            let gate = Arc::clone(&gate);
            thread::spawn(move || gate.release_step(release, 1))
        };
        let refused = gate.admit(Lane::Sql).is_err();
        let mut newcomer = park(&gate);
        if task.join().expect("the thread ends") != Step::Done {
            assert!(refused, "a newcomer passed those that waited");
            assert_eq!(gate.release_step(release, 1), Step::Done);
        }
        let turn = newcomer.poll_turn(&mut Context::from_waker(Waker::noop()));
        assert_eq!(
            turn,
            Poll::Ready(Turn::Ask),
            "forgotten in the waiting room"
        );
        assert!(newcomer.ask().is_ok() && !gate.look(Lane::Sql).releasing);
    });
}

#[test]
fn nobody_is_forgotten_at_the_end_of_a_release() {
    park_against_the_end_of_a_release();
}

#[test]
fn a_drained_gate_has_no_permit() {
    admission_against_fence(1, None);
    admission_against_fence(2, None);
    admission_against_two_fences(None);
}

#[test]
fn a_drain_is_woken_by_the_last_end() {
    end_against_wait(None);
    newcomer_against_wait(None);
}

#[test]
fn a_change_is_seen_or_wakes() {
    watch_against_fence();
}

#[test]
fn a_drain_sees_what_the_drained_writes_did() {
    end_hands_over(None);
}

#[test]
fn a_lost_permit_never_hides_from_a_drain() {
    loss_against_drain(None);
}

#[test]
fn a_called_write_is_not_admitted_by_the_call() {
    call_against_refence(None);
}

#[test]
fn the_proof_notices_look_before_count() {
    assert_fails_by(DRAINED, || {
        admission_against_fence(1, Some(Mutant::LookBeforeCount))
    });
}

#[test]
fn the_proof_notices_acquire_release_in_place_of_sequential_consistency() {
    assert_fails_by(DRAINED, || {
        admission_against_fence(1, Some(Mutant::AcquireRelease))
    });
}

#[test]
fn the_proof_notices_a_notification_before_the_decrement() {
    assert_fails_by(WOKEN, || {
        end_against_wait(Some(Mutant::NotifyBeforeDecrement))
    });
}

#[test]
fn the_proof_notices_a_loss_uncounted_before_it_is_unknown() {
    assert_fails_by(HIDDEN, || {
        loss_against_drain(Some(Mutant::UncountBeforeUnknown))
    });
}

#[test]
fn the_proof_notices_a_drain_that_reads_unknown_first() {
    assert_fails_by(HIDDEN, || {
        loss_against_drain(Some(Mutant::UnknownReadFirst))
    });
}

#[test]
fn the_proof_notices_a_drain_that_ignores_unknown() {
    assert_fails_by(HIDDEN, || {
        loss_against_drain(Some(Mutant::DrainedIgnoresUnknown))
    });
}

#[test]
fn the_proof_notices_a_woken_write_that_counts_as_admitted() {
    assert_fails_by(DRAINED, || {
        call_against_refence(Some(Mutant::WokenIsAdmitted))
    });
}
