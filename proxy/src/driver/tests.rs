//! What the answer of a conditional promotion means.

use super::postgres::{Answer, is_under_way, read};
use super::{DriverError, Pinned};
use crate::upstream::wire::Row;
use crate::upstream::{Mismatch, Timeline};

fn answer(columns: [Option<&str>; 4]) -> Result<Answer, DriverError> {
    let row: Row = columns
        .iter()
        .map(|column| column.map(str::to_owned))
        .collect();
    read(
        &row,
        Pinned {
            system_identifier: 77,
            timeline: Timeline::new(3).unwrap(),
        },
    )
}

#[test]
fn a_standby_in_the_pinned_state_is_promoted() {
    let done = answer([Some("t"), Some("77"), Some("3"), Some("t")]);
    assert_eq!(done.unwrap(), Answer::Requested);
    let done = answer([Some("f"), Some("77"), Some("4"), None]);
    assert_eq!(done.unwrap(), Answer::Already);
}

#[test]
fn anything_else_is_refused_by_name() {
    assert!(matches!(
        answer([Some("t"), Some("78"), Some("3"), None]),
        Err(DriverError::OtherServer(Mismatch::SystemIdentifier {
            found: 78,
            wanted: 77
        }))
    ));
    assert!(matches!(
        answer([Some("t"), Some("77"), Some("2"), None]),
        Err(DriverError::OtherTimeline { found: Some(_), .. })
    ));
    assert!(matches!(
        answer([Some("t"), Some("77"), None, None]),
        Err(DriverError::OtherTimeline { found: None, .. })
    ));
    assert!(matches!(
        answer([Some("t"), None, Some("3"), None]),
        Err(DriverError::OtherServer(Mismatch::IdentifierUnknown))
    ));
    assert!(matches!(
        answer([Some("t"), Some("77"), Some("3"), Some("f")]),
        Err(DriverError::NotStarted)
    ));
    assert!(matches!(
        answer([None, None, None, None]),
        Err(DriverError::OtherServer(Mismatch::RoleUnknown))
    ));
}

#[test]
fn a_repeat_declined_for_our_own_new_timeline_is_no_failure() {
    let timeline = |n| Timeline::new(n).expect("not zero");
    let declined = |found| DriverError::OtherTimeline {
        found,
        wanted: timeline(39),
    };
    assert!(is_under_way(&declined(Some(timeline(40)))));
    assert!(!is_under_way(&declined(Some(timeline(38)))));
    assert!(!is_under_way(&declined(None)));
    assert!(!is_under_way(&DriverError::NotStarted));
}
