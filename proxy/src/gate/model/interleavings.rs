//! Interleavings, by shuttle: whole scenes of held writers, an operator who fences, opens and
//! fences again, and the release in between, under thousands of schedules.
//!
//! shuttle reports a task that is never woken as a deadlock, so a lost wake fails as well. The
//! bookkeeping of the scene is in the standard library's atomics, which shuttle does not interrupt:
//! between an answer of the gate and its note nothing else runs.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering::SeqCst},
};

use shuttle::{
    future::{JoinHandle, block_on, spawn, yield_now},
    rand::{Rng, thread_rng},
};

use super::{assert_fails_by, far, gate, plan};
use crate::gate::{
    Answer, End, Gate, Lane, LaneCounts, Outcome, Parked, Permit, Phase, Turn, release::Step,
    seam::Mutant,
};

const SCHEDULES: usize = 3_000;
const PREEMPTIONS: usize = 3;
const DRAINED: &str = "G2: a write runs under a drained epoch";
/// shuttle's word for tasks that wait with nobody left to wake them.
const NEVER_WOKEN: &str = "deadlock";

/// What is true in a scene, beside what the gate says.
#[derive(Default)]
struct Scene {
    running: AtomicU64,
    /// Greatest epoch that was declared drained.
    drained: AtomicU64,
}

impl Scene {
    /// A write under its permit, long enough for others to run meanwhile.
    async fn write(&self, permit: Permit) {
        self.running.fetch_add(1, SeqCst);
        for _ in 0..2 {
            assert!(
                permit.epoch().value() > self.drained.load(SeqCst),
                "{DRAINED}"
            );
            yield_now().await;
        }
        self.running.fetch_sub(1, SeqCst);
        drop(permit);
    }

    fn drained_at(&self, epoch: u64) {
        assert_eq!(self.running.load(SeqCst), 0, "{DRAINED}");
        self.drained.store(epoch, SeqCst);
    }
}

/// A held write that asks whenever called, until it is admitted or refused.
async fn held(gate: &Arc<Gate>, scene: &Scene, mut parked: Parked) {
    loop {
        assert_eq!(parked.turn().await, Turn::Ask, "time plays no part here");
        match parked.ask() {
            Ok(permit) => return scene.write(permit).await,
            Err(look) if look.phase == Phase::Fenced(Answer::Reject) => {
                return parked.finish(End::Refused);
            }
            Err(look) => assert!(look.epoch <= gate.look(Lane::Sql).epoch),
        }
    }
}

/// A writer as a front has it: admitted, or held, or refused.
async fn writer(gate: Arc<Gate>, scene: Arc<Scene>) {
    if let Ok(permit) = gate.admit(Lane::Sql) {
        return scene.write(permit).await;
    }
    if let Ok(parked) = gate.park(Lane::Sql, 10, far()) {
        held(&gate, &scene, parked).await;
    }
}

/// A client that leaves while its write is held, at whatever instant.
async fn deserter(gate: Arc<Gate>) {
    if let Ok(parked) = gate.park(Lane::Sql, 10, far()) {
        for _ in 0..thread_rng().gen_range(0..4) {
            yield_now().await;
        }
        drop(parked);
    }
}

/// Opens, and goes on with the release as the runtime's task would.
fn open(gate: &Arc<Gate>) -> JoinHandle<()> {
    gate.open();
    let release = gate.room().release;
    let gate = Arc::clone(gate);
    spawn(async move {
        while gate.release_step(release, 1) != Step::Done {
            yield_now().await;
        }
    })
}

/// Fences, drains, stays so for a while, as a promotion would.
async fn fence_and_drain(gate: &Arc<Gate>, scene: &Scene, answer: Answer) {
    gate.fence(&Lane::ALL, answer, plan());
    let drain = gate.start_drain(None, far());
    assert_eq!(drain.wait().await, Outcome::Drained);
    scene.drained_at(drain.epoch().value());
    yield_now().await;
    assert_eq!(scene.running.load(SeqCst), 0, "{DRAINED}");
}

/// Held, called, fenced again, called again.
fn release_against_refence(planted: Option<Mutant>) {
    block_on(async move {
        let (gate, scene) = (gate(planted), Arc::new(Scene::default()));
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let mut tasks: Vec<_> = (0..3)
            .map(|_| spawn(writer(Arc::clone(&gate), Arc::clone(&scene))))
            .collect();
        tasks.push(spawn(deserter(Arc::clone(&gate))));
        tasks.push(open(&gate));
        fence_and_drain(&gate, &scene, Answer::Hold).await;
        tasks.push(open(&gate));
        for task in tasks {
            task.await.expect("no task fails");
        }
        let look = gate.look(Lane::Sql);
        assert!(
            look.phase == Phase::Open && !look.releasing,
            "the release ends"
        );
        assert_all_left(gate.counts().sql);
    });
}

/// A fence that comes to reject while writes are held and called.
fn release_against_reject(planted: Option<Mutant>) {
    block_on(async move {
        let (gate, scene) = (gate(planted), Arc::new(Scene::default()));
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let mut tasks: Vec<_> = (0..3)
            .map(|_| spawn(writer(Arc::clone(&gate), Arc::clone(&scene))))
            .collect();
        tasks.push(open(&gate));
        fence_and_drain(&gate, &scene, Answer::Reject).await;
        for task in tasks {
            task.await.expect("no task fails");
        }
        assert_all_left(gate.counts().sql);
    });
}

/// Writes that end, in any order, while a drain waits for the last.
fn ends_against_drain(planted: Option<Mutant>) {
    block_on(async move {
        let (gate, scene) = (gate(planted), Arc::new(Scene::default()));
        gate.open();
        let tasks: Vec<_> = (0..3)
            .map(|_| spawn(writer(Arc::clone(&gate), Arc::clone(&scene))))
            .collect();
        fence_and_drain(&gate, &scene, Answer::Reject).await;
        for task in tasks {
            task.await.expect("no task fails");
        }
        assert_eq!(gate.in_flight(Lane::Sql), 0, "G5: every permit ended once");
    });
}

/// A drain that another overtakes: every waiter learns it, and the gate still drains.
fn drain_against_drain() {
    block_on(async {
        let (gate, scene) = (gate(None), Arc::new(Scene::default()));
        gate.open();
        let task = spawn(writer(Arc::clone(&gate), Arc::clone(&scene)));
        gate.fence(&Lane::ALL, Answer::Reject, plan());
        let first = gate.start_drain(None, far());
        let waiter = spawn(async move { first.wait().await });
        fence_and_drain(&gate, &scene, Answer::Reject).await;
        let outcome = waiter.await.expect("no task fails");
        assert!(matches!(outcome, Outcome::Superseded | Outcome::Drained));
        task.await.expect("no task fails");
    });
}

fn assert_all_left(counts: LaneCounts) {
    let LaneCounts {
        held_released,
        held_expired,
        held_abandoned,
        ..
    } = counts;
    let LaneCounts {
        held_refused,
        held_cancelled,
        held_waiting,
        held_bytes,
        ..
    } = counts;
    let left = held_released + held_expired + held_abandoned + held_refused + held_cancelled;
    assert_eq!((held_waiting, held_bytes, left), (0, 0, counts.held_total));
    assert_eq!(counts.admitted_total, counts.released_total);
}

/// Two ways to choose schedules. Random ones switch at every step and so find what needs many
/// switches; PCT runs one task for long and switches at few points, and so finds a task that is
/// overtaken by all of another's work.
fn explore(scene: impl Fn() + Send + Sync + Clone + 'static) {
    shuttle::check_random(scene.clone(), SCHEDULES);
    shuttle::check_pct(scene, SCHEDULES, PREEMPTIONS);
}

#[test]
fn a_called_write_is_not_admitted_by_the_call() {
    explore(|| release_against_refence(None));
}

#[test]
fn a_fence_that_comes_to_reject_refuses_the_held() {
    explore(|| release_against_reject(None));
}

#[test]
fn a_drain_is_woken_by_the_last_end() {
    explore(|| ends_against_drain(None));
}

#[test]
fn an_overtaken_drain_ends() {
    explore(drain_against_drain);
}

#[test]
fn the_proof_notices_a_woken_write_that_counts_as_admitted() {
    let planted = Some(Mutant::WokenIsAdmitted);
    assert_fails_by(DRAINED, || {
        explore(move || release_against_refence(planted))
    });
}

#[test]
fn the_proof_notices_a_notification_before_the_decrement() {
    let planted = Some(Mutant::NotifyBeforeDecrement);
    assert_fails_by(NEVER_WOKEN, || explore(move || ends_against_drain(planted)));
}

#[test]
fn the_proof_notices_look_before_count() {
    let planted = Some(Mutant::LookBeforeCount);
    assert_fails_by(DRAINED, || explore(move || ends_against_drain(planted)));
}
