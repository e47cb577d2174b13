//! Permits: what counts, and what admission does not do.

use super::*;

#[test]
fn a_permit_counts_from_admission_to_drop() {
    let gate = open_gate();
    let permit = permit(&gate);
    assert_eq!((permit.epoch(), permit.lane()), (Epoch::new(7), Lane::Sql));
    assert_eq!(
        (gate.in_flight(Lane::Sql), gate.in_flight(Lane::Http)),
        (1, 0)
    );
    drop(permit);
    let counts = gate.counts();
    assert_eq!(
        (counts.sql.admitted_total, counts.sql.released_total),
        (1, 1)
    );
    assert_eq!(gate.in_flight(Lane::Sql), 0);
}

#[test]
fn a_permit_without_a_deadline_stays_valid() {
    let permit = permit(&open_gate());
    assert_eq!(permit.deadline(), None);
    assert!(permit.valid(soon()));
}

/// G6. That nothing is allocated is seen by reading `Gate::admit_as`: loads, additions and
/// `Arc::clone`; counting allocations would need an allocator of ours, which is unsafe code.
#[test]
fn admitting_while_open_takes_no_lock() {
    let gate = open_gate();
    let room = gate.room();
    // Would never return if admission or the permit's end took the room's lock.
    drop(permit(&gate));
    drop(room);
}

#[test]
fn a_refused_newcomer_is_not_counted() {
    let gate = holding_gate();
    assert!(gate.admit(Lane::Sql).is_err());
    assert_eq!(gate.in_flight(Lane::Sql), 0);
    assert_eq!(gate.counts().sql.admitted_total, 0);
}
