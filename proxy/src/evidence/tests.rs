//! The rules of the barrier and of lost writes, without a server.

use std::net::SocketAddr;

use super::clear::{Foreign, OwnBackend, Pass, Seen, WhyStill, concerning, is_quiet};
use super::lost::{fate, write_fate};
use super::marker::{LiftWork, may_lift, may_raise, stands};
use super::*;
use crate::upstream::ServerTime;

fn token(scope: &str, run: &str, epoch: u64) -> Token {
    Token::new(scope, run, epoch).unwrap()
}

fn standing(scope: &str, run: &str, epoch: u64) -> String {
    Marker {
        state: MarkerState::Standing,
        token: token(scope, run, epoch),
    }
    .to_string()
}

fn lifted(scope: &str, run: &str, epoch: u64) -> String {
    Marker {
        state: MarkerState::Lifted,
        token: token(scope, run, epoch),
    }
    .to_string()
}

#[test]
fn a_marker_is_read_as_it_was_written() {
    for text in [standing("i-1/main", "r7", 12), lifted("i-1/main", "r7", 12)] {
        assert_eq!(text.parse::<Marker>().unwrap().to_string(), text);
    }
    for bad in [
        "",
        "standing",
        "standing epoch=1 run=r",
        "gone epoch=1 run=r scope=s",
    ] {
        assert!(bad.parse::<Marker>().is_err());
    }
    for bad in ["", "a b", "it's", "ä", &"x".repeat(101)] {
        assert_eq!(Token::new(bad, "r", 1), Err(BadToken { name: bad.into() }));
    }
}

#[test]
fn a_late_barrier_does_not_close_what_was_opened_since() {
    let old = token("s", "r1", 5);
    let may = |text: &str| may_raise(Some(text), &old, Claim::Own).is_ok();
    assert!(may_raise(None, &old, Claim::Own).is_ok());
    assert!(may(&standing("s", "r1", 5)), "repeated");
    assert!(may(&lifted("s", "r0", 3)), "an earlier run's");
    assert!(!may(&lifted("s", "r1", 5)), "its own lift came first");
    assert!(!may(&standing("s", "r2", 7)), "a later run");
    assert!(!may(&lifted("s", "r2", 7)), "a later run, over already");
    assert!(!may(&standing("other", "r", 1)), "another daemon's");
    assert!(may(&lifted("other", "r", 99)), "another daemon's, over");
    assert!(!may("written by hand"));
    assert!(may_raise(Some(&standing("other", "r", 1)), &old, Claim::TakeOver).is_ok());
    assert!(may_raise(Some(&standing("s", "r2", 7)), &old, Claim::TakeOver).is_err());
}

#[test]
fn a_late_lift_does_not_undo_the_next_runs_barrier() {
    let old = token("s", "r1", 5);
    let may = |text: &str| may_lift(Some(text), &old, Claim::Own).ok();
    assert_eq!(
        may_lift(None, &old, Claim::Own).ok(),
        Some(LiftWork::Nothing)
    );
    assert_eq!(may(&standing("s", "r1", 5)), Some(LiftWork::Lift));
    assert_eq!(may(&lifted("s", "r1", 5)), Some(LiftWork::Nothing));
    assert_eq!(
        may(&standing("s", "r0", 3)),
        Some(LiftWork::Lift),
        "left behind by an earlier run"
    );
    assert_eq!(may(&standing("s", "r2", 7)), None);
    assert_eq!(may(&lifted("s", "r2", 7)), None);
    assert_eq!(may(&standing("other", "r", 1)), None);
    assert_eq!(may(&lifted("other", "r", 1)), Some(LiftWork::Nothing));
    let taken = may_lift(Some(&standing("other", "r", 1)), &old, Claim::TakeOver);
    assert_eq!(taken.ok(), Some(LiftWork::Lift));
}

#[test]
fn only_the_same_barrier_stands() {
    let mine = token("s", "r1", 5);
    assert!(stands(Some(&standing("s", "r1", 5)), &mine).is_ok());
    for other in [
        lifted("s", "r1", 5),
        standing("s", "r1", 6),
        standing("t", "r1", 5),
    ] {
        assert_eq!(
            stands(Some(&other), &mine),
            Err(Held {
                marker: other.clone()
            })
        );
    }
    assert!(stands(None, &mine).is_err());
}

fn seen(pid: i32, newcomer: bool, xid: Option<u32>) -> Seen {
    let foreign = Foreign {
        pid,
        user: Some("app".into()),
        application_name: Some("job".into()),
        state: Some("idle".into()),
        xid,
        why: WhyStill::Writing,
    };
    Seen {
        foreign,
        client: true,
        newcomer,
        started: String::new(),
        address: None,
    }
}

#[test]
fn quiet_means_nobody_from_before_and_no_transaction_id_moving() {
    let pass = |seen: Vec<Seen>| Pass { seen, next_xid: 10 };
    assert!(is_quiet(&pass(vec![]), None));
    assert!(!is_quiet(&pass(vec![seen(1, false, None)]), Some(10)));
    assert!(!is_quiet(&pass(vec![seen(1, true, Some(9))]), Some(10)));
    assert!(!is_quiet(&pass(vec![seen(1, true, None)]), None));
    assert!(!is_quiet(&pass(vec![seen(1, true, None)]), Some(9)));
    assert!(is_quiet(&pass(vec![seen(1, true, None)]), Some(10)));
}

#[test]
fn our_walled_sessions_are_left_alone_and_others_of_ours_are_not() {
    let all = vec![
        seen(1, false, None),
        seen(2, false, None),
        seen(3, false, Some(7)),
    ];
    let own = [1, 2, 3].map(|pid| OwnBackend {
        pid,
        login: None,
        walled: pid != 2,
    });
    let left = concerning(all, &[], false, &own);
    let left: Vec<_> = left
        .iter()
        .map(|seen| (seen.foreign.pid, seen.client))
        .collect();
    assert_eq!(
        left,
        [(2, true), (3, false)],
        "one to be ended, one to be waited for"
    );
    assert!(concerning(vec![seen(4, false, Some(1))], &[4], false, &[]).is_empty());
}

#[test]
fn our_logins_under_way_are_known_by_their_address_and_waited_for_before_they_are_ended() {
    let ours: SocketAddr = "127.0.0.1:4711".parse().expect("an address");
    let login = OwnBackend {
        pid: 0,
        login: Some(ours),
        walled: false,
    };
    let at = |pid, newcomer, port| Seen {
        address: Some(SocketAddr::new(ours.ip(), port)),
        ..seen(pid, newcomer, None)
    };
    let all = vec![
        at(1, false, 4711),
        at(2, false, 4712),
        at(3, true, 4711),
        at(4, true, 4712),
    ];
    let left = |patient| {
        let left = concerning(all.clone(), &[], patient, &[login]);
        let left = left.iter().map(|seen| (seen.foreign.pid, seen.client));
        left.collect::<Vec<_>>()
    };
    assert_eq!(left(true), [(1, false), (2, true), (4, true)]);
    assert_eq!(left(false), [(1, true), (2, true), (4, true)]);
}

#[test]
fn foreign_writers_are_named() {
    let mut foreign = seen(42, false, Some(7)).foreign;
    foreign.why = WhyStill::NotPermitted;
    let text = ForeignWriters(vec![foreign]).to_string();
    for part in [
        "pid 42",
        "user app",
        "\"job\"",
        "transaction 7",
        "may not be ended",
    ] {
        assert!(text.contains(part), "{text}");
    }
}

#[test]
fn a_backend_is_gone_only_when_that_can_be_seen() {
    let suspect = Suspect {
        pid: 1,
        seen_at: Some(ServerTime::from_micros(100)),
    };
    assert_eq!(fate(suspect, None, true), BackendFate::Gone);
    assert_eq!(fate(suspect, None, false), BackendFate::Unknown);
    assert_eq!(fate(suspect, Some(None), true), BackendFate::Unknown);
    assert_eq!(fate(suspect, Some(Some(99)), true), BackendFate::Alive);
    assert_eq!(
        fate(suspect, Some(Some(101)), true),
        BackendFate::Gone,
        "the id was used again"
    );
    let ever = Suspect {
        pid: 1,
        seen_at: None,
    };
    assert_eq!(fate(ever, Some(Some(101)), true), BackendFate::Alive);
}

#[test]
fn an_id_that_never_arrived_is_lost_whatever_its_status_says() {
    let next = NextXid::new(1000);
    assert_eq!(write_fate(1000, next, Some("committed")), WriteFate::Lost);
    assert_eq!(
        write_fate(999, next, Some("committed")),
        WriteFate::Committed
    );
    assert_eq!(write_fate(999, next, Some("aborted")), WriteFate::Lost);
    assert_eq!(
        write_fate(999, next, Some("in progress")),
        WriteFate::Undecided
    );
    assert_eq!(write_fate(999, next, None), WriteFate::Unresolvable);
}

#[test]
fn a_short_id_is_widened_to_the_nearest() {
    let circle = 1_u64 << 32;
    assert_eq!(NextXid::new(1000).widen(990), Some(990));
    assert_eq!(NextXid::new(1000).widen(1010), Some(1010));
    assert_eq!(NextXid::new(circle + 10).widen(u32::MAX), Some(circle - 1));
    assert_eq!(NextXid::new(circle - 1).widen(5), Some(circle + 5));
    assert_eq!(NextXid::new(1000).widen(2), None);
}
