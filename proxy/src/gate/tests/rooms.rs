//! The waiting room: bounds, deadlines, order and pace of the release, and its sums.

use super::*;
use crate::gate::release::Step;

#[tokio::test(start_paused = true)]
async fn a_held_write_is_called_by_open_and_asks() {
    let gate = holding_gate();
    let mut parked = park(&gate);
    let turn = tokio::spawn(async move {
        assert_eq!(parked.turn().await, Turn::Ask);
        parked.ask().map(|permit| permit.epoch())
    });
    tokio::task::yield_now().await;
    let epoch = gate.open();
    assert_eq!(turn.await.expect("the task ends"), Ok(epoch));
    let counts = gate.counts().sql;
    assert_eq!((counts.held_total, counts.held_released), (1, 1));
}

#[tokio::test(start_paused = true)]
async fn a_held_write_expires_at_its_own_first_deadline_across_fences() {
    let gate = holding_gate();
    let until = Instant::now() + 10 * MS;
    let mut parked = gate.park(Lane::Sql, 1, until).expect("there is room");
    advance(6 * MS).await;
    gate.open();
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    assert_eq!(parked.turn().await, Turn::Ask);
    assert!(parked.ask().is_err());
    assert_eq!(parked.turn().await, Turn::Expired);
    assert!(Instant::now() - until < 2 * MS);
    assert_eq!(parked.until(), until);
    parked.finish(End::Expired);
    assert_eq!(gate.counts().sql.held_expired, 1);
}

#[tokio::test(start_paused = true)]
async fn a_deadline_that_is_over_counts_before_a_call() {
    let gate = holding_gate();
    let mut parked = gate
        .park(Lane::Sql, 1, Instant::now() + 10 * MS)
        .expect("there is room");
    advance(10 * MS).await;
    gate.open();
    assert_eq!(parked.turn().await, Turn::Expired);
}

#[tokio::test(start_paused = true)]
async fn a_fence_that_comes_to_reject_calls_the_held_and_refuses_them() {
    let gate = holding_gate();
    let mut parked = park(&gate);
    let epoch = gate.fence(&Lane::ALL, Answer::Reject, plan());
    assert_eq!(parked.turn().await, Turn::Ask);
    let found = parked.ask().err();
    assert_eq!(
        found,
        Some(look(epoch.value(), Phase::Fenced(Answer::Reject), false))
    );
    parked.finish(End::Refused);
    assert_eq!(gate.counts().sql.held_refused, 1);
}

#[tokio::test(start_paused = true)]
async fn the_room_says_why_it_does_not_take_a_write() {
    let limits = Limits {
        held: 2,
        held_bytes: 10,
        release_burst: 1,
    };
    let gate = Gate::new(limits, Epoch::new(1));
    let refused = |gate: &Arc<Gate>, bytes| gate.park(Lane::Sql, bytes, soon()).err();
    let epoch = Epoch::new(1);
    assert_eq!(refused(&gate, 1), Some(Refusal::Fenced { epoch }));
    let epoch = gate.fence(&Lane::ALL, Answer::Hold, plan());
    let over = gate.park(Lane::Sql, 1, Instant::now()).err();
    assert_eq!(over, Some(Refusal::Expired { epoch }));
    assert_eq!(refused(&gate, 11), Some(Refusal::RoomBytes { limit: 10 }));
    assert_eq!(
        refused(&gate, usize::MAX),
        Some(Refusal::RoomBytes { limit: 10 })
    );
    let _first = gate.park(Lane::Http, 4, soon()).expect("there is room");
    assert_eq!(refused(&gate, 7), Some(Refusal::RoomBytes { limit: 10 }));
    let second = gate.park(Lane::Sql, 6, soon()).expect("there is room");
    assert_eq!(refused(&gate, 0), Some(Refusal::RoomFull { limit: 2 }));
    assert_eq!(gate.counts().sql.held_bytes, 6);
    drop(second);
    assert!(
        refused(&gate, 6).is_none(),
        "room that was left is free again"
    );
    assert_eq!(gate.counts().sql.turned_away_total, 4);
}

#[tokio::test(start_paused = true)]
async fn every_held_write_is_counted_in_one_end() {
    let gate = holding_gate();
    let mut released = park(&gate);
    for end in [End::Expired, End::Refused, End::Cancelled, End::Abandoned] {
        park(&gate).finish(end);
        assert_eq!(
            sum_of_ends(&gate.counts().sql),
            gate.counts().sql.held_total
        );
    }
    drop(park(&gate));
    assert_eq!(gate.counts().sql.held_waiting, 1);
    gate.open();
    drop(released.ask().expect("the gate is open"));
    drop(released);
    let counts = gate.counts().sql;
    assert_eq!((counts.held_total, sum_of_ends(&counts)), (6, 6));
    assert_eq!(
        (
            counts.held_abandoned,
            counts.held_released,
            counts.held_waiting
        ),
        (2, 1, 0)
    );
    assert_eq!(counts.held_bytes, 0);
}

#[tokio::test(start_paused = true)]
async fn a_write_that_parks_just_after_the_open_has_its_turn_at_once() {
    let gate = open_gate();
    let mut parked = park(&gate);
    assert_eq!(parked.turn().await, Turn::Ask);
    assert!(parked.ask().is_ok());
}

#[tokio::test(start_paused = true)]
async fn release_calls_in_order_a_burst_per_millisecond() {
    let gate = holding_gate();
    let mut held: Vec<_> = (0..10).map(|_| park(&gate)).collect();
    gate.open();
    let opened = Instant::now();
    for (place, ms) in [(3, 0), (4, 1), (7, 1), (8, 2), (9, 2)] {
        assert_eq!(held[place].turn().await, Turn::Ask);
        assert_eq!(opened.elapsed().as_millis(), ms, "place {place}");
        let next_burst = held.get_mut((place / 4 + 1) * 4);
        assert!(next_burst.is_none_or(|next| !is_called(next)));
    }
}

#[tokio::test(start_paused = true)]
async fn newcomers_queue_behind_those_that_waited() {
    let gate = holding_gate();
    let mut held: Vec<_> = (0..5).map(|_| park(&gate)).collect();
    let epoch = gate.open();
    let seen = look(epoch.value(), Phase::Open, true);
    assert_eq!(gate.admit(Lane::Sql).err(), Some(seen));
    assert!(
        gate.plan().is_some(),
        "a newcomer learns how long it may wait"
    );
    assert!(
        gate.admit(Lane::Http).is_ok(),
        "nobody waits in the other lane"
    );
    let mut newcomer = park(&gate);
    assert!(held[0].ask().is_ok());
    assert_eq!(newcomer.ask().err(), Some(seen), "its turn has not come");
    assert!(!is_called(&mut held[4]) && !is_called(&mut newcomer));
    assert_eq!(newcomer.turn().await, Turn::Ask);
    assert!(is_called(&mut held[4]));
    assert_eq!(
        gate.look(Lane::Sql),
        look(epoch.value(), Phase::Open, false)
    );
    assert!(gate.plan().is_none());
    assert!(gate.admit(Lane::Sql).is_ok());
}

#[tokio::test(start_paused = true)]
async fn a_called_write_that_meets_a_fence_keeps_its_place() {
    let gate = holding_gate();
    let mut held: Vec<_> = (0..6).map(|_| park(&gate)).collect();
    gate.open();
    let epoch = gate.fence(&Lane::ALL, Answer::Hold, plan());
    for parked in &mut held[..4] {
        assert!(is_called(parked), "the call was a rumour");
        assert_eq!(parked.ask().err().map(|look| look.epoch), Some(epoch));
        assert!(!is_called(parked));
    }
    gate.open();
    let called: Vec<_> = held.iter_mut().map(is_called).collect();
    assert_eq!(called, [true, true, true, true, false, false]);
}

#[tokio::test(start_paused = true)]
async fn a_release_cut_short_by_a_fence_of_one_lane_goes_on_in_the_other() {
    let gate = holding_gate();
    let mut http: Vec<_> = (0..6)
        .map(|_| gate.park(Lane::Http, 1, soon()).expect("there is room"))
        .collect();
    let mut sql: Vec<_> = (0..6).map(|_| park(&gate)).collect();
    gate.open();
    gate.fence(&[Lane::Http], Answer::Hold, plan());
    assert_eq!(sql[5].turn().await, Turn::Ask);
    tokio::time::sleep(5 * MS).await;
    assert!(!is_called(&mut http[5]));
    assert!(!gate.look(Lane::Sql).releasing);
    assert!(gate.plan().is_some(), "a lane is fenced");
}

#[tokio::test(start_paused = true)]
async fn a_release_that_was_overtaken_calls_nobody() {
    let gate = holding_gate();
    let mut held: Vec<_> = (0..9).map(|_| park(&gate)).collect();
    gate.open();
    let overtaken = gate.room().release;
    gate.fence(&Lane::ALL, Answer::Hold, plan());
    assert_eq!(gate.release_step(overtaken, 4), Step::Done);
    gate.open();
    assert_eq!(gate.release_step(overtaken, 4), Step::Done);
    assert!(
        is_called(&mut held[7]) && !is_called(&mut held[8]),
        "one burst for each open"
    );
}

#[tokio::test(start_paused = true)]
async fn a_release_outruns_newcomers_that_never_stop() {
    let gate = holding_gate();
    let mut parked: Vec<_> = (0..5).map(|_| park(&gate)).collect();
    gate.open();
    let mut ticks = 0;
    while gate.look(Lane::Sql).releasing {
        // As many as the burst come back in each millisecond.
        parked.retain_mut(|parked| !is_called(parked));
        parked.extend((0..4).map(|_| park(&gate)));
        tokio::time::sleep(MS).await;
        ticks += 1;
        assert!(ticks < 20, "newcomers kept the release going");
    }
}
