//! How long writes were stopped, as measured.

use super::*;

#[tokio::test(start_paused = true)]
async fn a_gap_reaches_from_the_last_end_before_to_the_first_behind() {
    let gate = open_gate();
    let in_flight = permit(&gate);
    advance(MS).await;
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    let mut held = park(&gate);
    advance(10 * MS).await;
    drop(in_flight);
    advance(30 * MS).await;
    assert_eq!(gate.gap().length(), None);
    gate.open();
    assert!(is_called(&mut held));
    let admitted = held.ask().expect("it is called");
    advance(5 * MS).await;
    drop(admitted);
    let gap = gate.gap();
    assert_eq!(gap.length(), Some(35 * MS));
    assert_eq!((gap.longest_hold, gap.first_was_held), (40 * MS, true));
    // What comes later belongs to no gap.
    advance(MS).await;
    drop(permit(&gate));
    assert_eq!(gate.gap(), gap);
}

#[tokio::test(start_paused = true)]
async fn a_read_behind_the_opening_ends_no_gap_of_a_write_that_waited() {
    let gate = open_gate();
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    let mut held = park(&gate);
    advance(10 * MS).await;
    gate.open();
    let read = permit(&gate);
    advance(MS).await;
    drop(read);
    assert!(gate.gap().awaits_held);
    assert!(is_called(&mut held));
    let admitted = held.ask().expect("it is called");
    advance(MS).await;
    drop(admitted);
    let gap = gate.gap();
    assert_eq!((gap.length(), gap.first_was_held), (Some(12 * MS), true));
    assert!(!gap.awaits_held);
}

#[tokio::test(start_paused = true)]
async fn of_writes_that_waited_and_left_the_first_end_at_all_is_taken_after_a_second() {
    let gate = open_gate();
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    let held = park(&gate);
    gate.open();
    drop(held);
    advance(MS).await;
    drop(permit(&gate));
    advance(1001 * MS).await;
    drop(permit(&gate));
    let gap = gate.gap();
    assert_eq!((gap.length(), gap.first_was_held), (Some(MS), false));
    assert!(!gap.awaits_held);
}

#[tokio::test(start_paused = true)]
async fn with_nothing_in_flight_a_gap_begins_with_the_fence() {
    let gate = holding_gate();
    advance(20 * MS).await;
    gate.open();
    advance(2 * MS).await;
    drop(permit(&gate));
    let gap = gate.gap();
    assert_eq!((gap.length(), gap.last_end), (Some(22 * MS), None));
    assert!(!gap.first_was_held);
}

#[tokio::test(start_paused = true)]
async fn a_fence_behind_a_fence_belongs_to_the_same_gap_and_one_behind_an_opening_does_not() {
    let gate = holding_gate();
    advance(10 * MS).await;
    gate.fence(&Lane::ALL, Answer::Reject, plan());
    let first = gate.gap().fenced;
    assert_eq!(first, Some(Instant::now() - 10 * MS));
    gate.open();
    advance(10 * MS).await;
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    assert_eq!(gate.gap().fenced, Some(Instant::now()));
}

#[tokio::test(start_paused = true)]
async fn an_outcome_that_is_not_known_ends_no_gap() {
    let gate = open_gate();
    let in_flight = permit(&gate);
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    advance(MS).await;
    let lost = in_flight.lose();
    assert_eq!(gate.gap().last_end, None);
    lost.resolve();
}
