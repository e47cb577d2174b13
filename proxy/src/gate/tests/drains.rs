//! Drains: deadlines, what overtakes them, and unknown outcomes.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_drain_waits_for_the_last_permit() {
    let gate = open_gate();
    let (first, second) = (permit(&gate), permit(&gate));
    let epoch = gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, soon());
    let mut wait = pin!(drain.wait());
    drop(first);
    assert!(timeout(MS, &mut wait).await.is_err());
    drop(second);
    assert_eq!(wait.await, Outcome::Drained);
    let proof = drain.proof().expect("it drained");
    assert_eq!((proof.epoch(), proof.unknown_accepted()), (epoch, false));
}

#[tokio::test(start_paused = true)]
async fn a_drain_times_out_and_the_next_has_the_same_epoch() {
    let gate = open_gate();
    let permit = permit(&gate);
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, Instant::now() + 10 * MS);
    assert_eq!(drain.wait().await, Outcome::TimedOut);
    assert!(drain.proof().is_none());
    drop(permit);
    assert_eq!(drain.outcome(), Some(Outcome::TimedOut), "an outcome stays");
    let next = gate.start_drain(None, soon());
    assert_eq!((next.epoch(), next.id()), (drain.epoch(), drain.id() + 1));
    assert_eq!(next.wait().await, Outcome::Drained);
    assert_eq!(drain.outcome(), Some(Outcome::TimedOut));
}

#[tokio::test(start_paused = true)]
async fn a_drain_of_one_lane_does_not_wait_for_the_other() {
    let gate = open_gate();
    let _permit = permit(&gate);
    gate.fence(&[Lane::Http], Answer::Reject, plan());
    let drain = gate.start_drain(Some(Lane::Http), soon());
    assert_eq!(drain.lane(), Some(Lane::Http));
    assert_eq!(drain.wait().await, Outcome::Drained);
}

#[tokio::test(start_paused = true)]
async fn a_lane_that_is_not_fenced_never_drains() {
    let gate = open_gate();
    gate.fence(&[Lane::Http], Answer::Reject, plan());
    let drain = gate.start_drain(None, Instant::now() + 10 * MS);
    assert_eq!(drain.wait().await, Outcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn every_command_that_overtakes_a_drain_ends_it_as_superseded() {
    let commands: [fn(&Arc<Gate>); 4] = [
        |gate| {
            gate.open();
        },
        |gate| {
            gate.fence(&Lane::ALL, Answer::Reject, plan());
        },
        |gate| drop(gate.start_drain(None, soon())),
        |gate| gate.drain().expect("one is in force").supersede(),
    ];
    for command in commands {
        let gate = open_gate();
        let _permit = permit(&gate);
        gate.fence(&Lane::ALL, Answer::Hold, plan());
        let drain = gate.start_drain(None, soon());
        let waiter = tokio::spawn({
            let drain = Arc::clone(&drain);
            async move { drain.wait().await }
        });
        tokio::task::yield_now().await;
        command(&gate);
        assert_eq!(waiter.await.expect("the task ends"), Outcome::Superseded);
        assert!(drain.proof().is_none());
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_outcome_blocks_until_resolved() {
    let gate = open_gate();
    let lost = permit(&gate).lose();
    assert_eq!((gate.in_flight(Lane::Sql), gate.unknown()), (0, 1));
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, soon());
    let mut quiet = pin!(gate.quiet(Lane::Sql));
    assert!(timeout(MS, &mut quiet).await.is_err());
    assert_eq!(drain.outcome(), None);
    lost.resolve();
    quiet.await;
    assert_eq!(drain.outcome(), Some(Outcome::Drained));
}

#[tokio::test(start_paused = true)]
async fn an_idle_lane_may_leave_an_unknown_outcome() {
    let gate = open_gate();
    let write = permit(&gate);
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let mut idle = pin!(gate.idle(Lane::Sql));
    assert!(timeout(MS, &mut idle).await.is_err());
    let lost = write.lose();
    idle.await;
    assert_eq!(gate.unknown(), 1);
    lost.resolve();
}

#[tokio::test(start_paused = true)]
async fn an_unresolved_loss_stays_counted() {
    let gate = open_gate();
    drop(gate.inherit_unknown());
    assert_eq!(gate.unknown(), 1);
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, Instant::now() + 10 * MS);
    assert_eq!(drain.wait().await, Outcome::TimedOut);
}

#[tokio::test(start_paused = true)]
async fn accepted_loss_ends_a_drain_but_not_what_is_in_flight() {
    let gate = open_gate();
    let permit = permit(&gate);
    drop(gate.inherit_unknown());
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let drain = gate.start_drain(None, soon());
    drain.accept_unknown();
    assert_eq!(drain.outcome(), None);
    let mut wait = pin!(drain.wait());
    assert!(timeout(MS, &mut wait).await.is_err());
    drop(permit);
    assert_eq!(wait.await, Outcome::DrainedWithUnknown);
    assert!(drain.proof().expect("it drained").unknown_accepted());
}
