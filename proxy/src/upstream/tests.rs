//! Readings of answers and the table of refusals, without a server.

use super::privilege::read as read_privileges;
use super::probe::{Answers, read};
use super::wire::Row;
use super::*;

struct Quiet;
impl NothingInFlight for Quiet {}

fn lsn(text: &str) -> Lsn {
    text.parse().unwrap()
}

fn timeline(number: u32) -> Timeline {
    Timeline::new(number).unwrap()
}

fn row(columns: &[Option<&str>]) -> Option<Row> {
    Some(
        columns
            .iter()
            .map(|column| column.map(str::to_owned))
            .collect(),
    )
}

fn target(name: &str) -> Target {
    Target {
        region: Region::new(name),
        endpoint: Endpoint::new(name, 5432),
        user: None,
        passwords: writefence_config::Password::None,
        identity: None,
        serial: 0,
    }
}

fn primary(name: &str, number: u32) -> Observation {
    let number = number.to_string();
    let at = Some("0/3000000");
    let state = [
        Some("f"),
        at,
        at,
        Some(number.as_str()),
        None,
        None,
        None,
        Some("150000"),
    ];
    let answers = Answers {
        state: row(&state),
        system: row(&[Some("77")]),
        setting: row(&[Some("off"), Some("default"), None, None]),
        ..Answers::default()
    };
    read(Endpoint::new(name, 5432), &answers)
}

#[test]
fn an_lsn_is_read_and_written_as_postgresql_does() {
    assert_eq!(lsn("16/B374D848").to_string(), "16/B374D848");
    assert_eq!(lsn("0/0").to_string(), "0/0");
    assert_eq!(lsn("FFFFFFFF/FFFFFFFF").value(), u64::MAX);
    for bad in [
        "",
        "/",
        "1",
        "1/",
        "/1",
        "+1/2",
        "1/-2",
        "1/2/3",
        "G/1",
        "100000000/0",
        "1/ 2",
    ] {
        assert_eq!(bad.parse::<Lsn>(), Err(BadLsn { text: bad.into() }));
    }
    assert!(lsn("1/0") > lsn("0/FFFFFFFF"));
    assert_eq!(lsn("0/10").bytes_since(lsn("0/20")), 0);
}

#[test]
fn timeline_0_is_none() {
    assert_eq!("7".parse::<Timeline>().unwrap(), timeline(7));
    for bad in ["0", "", "-1", "x"] {
        assert_eq!(
            bad.parse::<Timeline>(),
            Err(BadTimeline { text: bad.into() })
        );
    }
}

#[test]
fn an_ipv6_address_is_shown_in_brackets() {
    assert_eq!(Endpoint::new("::1", 5432).to_string(), "[::1]:5432");
    assert_eq!(Endpoint::new("db", 5432).to_string(), "db:5432");
}

#[test]
fn nothing_answered_is_nothing_known() {
    let seen = read(Endpoint::new("a", 1), &Answers::default());
    assert_eq!(
        (seen.role, seen.writable, seen.timeline),
        (None, None, None)
    );
    assert_eq!((seen.lsn, seen.replicas, seen.prepared), (None, None, None));
}

#[test]
fn a_standby_without_walreceiver_falls_back_to_the_control_file() {
    let state = [
        Some("t"),
        None,
        None,
        None,
        Some("0/5"),
        Some("0/4"),
        Some("1500000"),
        None,
        Some("9"),
    ];
    let mut answers = Answers {
        state: row(&state),
        system: row(&[Some("-1")]),
        control: row(&[Some("3")]),
        ..Answers::default()
    };
    let seen = read(Endpoint::new("a", 1), &answers);
    assert_eq!(
        (seen.role, seen.writable),
        (Some(Role::Standby), Some(false))
    );
    assert_eq!(
        (seen.timeline, seen.received_timeline),
        (Some(timeline(3)), None)
    );
    assert_eq!(
        (seen.lsn, seen.replay_lsn),
        (Some(lsn("0/5")), Some(lsn("0/4")))
    );
    assert_eq!(seen.lag_bytes(lsn("0/14")), Some(16));
    assert_eq!(seen.system_identifier, Some(u64::MAX));
    answers.receiver = row(&[Some("4")]);
    assert_eq!(
        read(Endpoint::new("a", 1), &answers).timeline,
        Some(timeline(4))
    );
}

#[test]
fn a_masked_replica_has_no_lag_and_not_lag_0() {
    let masked = row(&[Some("9"), Some("b"), None, None, None, None, None, None]);
    let answers = Answers {
        replicas: masked.map(|row| vec![row]),
        ..Answers::default()
    };
    let replicas = read(Endpoint::new("a", 1), &answers).replicas.unwrap();
    assert_eq!(
        (
            replicas[0].replay_lsn,
            replicas[0].lag_bytes,
            replicas[0].lag
        ),
        (None, None, None)
    );
}

#[test]
fn a_primary_whose_default_is_unknown_is_not_called_writable() {
    let mut answers = Answers {
        state: row(&[Some("f")]),
        ..Answers::default()
    };
    assert_eq!(read(Endpoint::new("a", 1), &answers).writable, None);
    answers.setting = row(&[Some("on"), Some("configuration file"), None, None]);
    assert_eq!(read(Endpoint::new("a", 1), &answers).writable, Some(false));
}

#[test]
fn a_history_tells_where_each_ancestor_was_left() {
    let text = "1\t0/3004E50\tno recovery target specified\n\n# note\n2\t0/4000000\tsame\n";
    let history = History::parse(text).unwrap();
    assert_eq!(history.start(), Some(lsn("0/4000000")));
    assert_eq!(history.left(timeline(1)), Some(lsn("0/3004E50")));
    assert_eq!(history.left(timeline(3)), None);
    assert_eq!(History::parse("1 nowhere\n"), None);
}

const OLD: Identity = Identity {
    system_identifier: 77,
    timeline: Timeline::new(1).unwrap(),
    fork_lsn: None,
};

fn successor(fence: &str, loss: Loss) -> Wanted {
    Wanted::Successor {
        of: OLD,
        fence_lsn: Some(lsn(fence)),
        loss,
    }
}

fn check(seen: &Observation, history: Option<&str>, wanted: Wanted) -> Result<Identity, Mismatch> {
    let history = history.map(|text| History::parse(text).unwrap());
    let checked = CheckedTarget::check(&target("b"), seen, history.as_ref(), wanted)?;
    Ok(checked.identity().expect("a database has an identity"))
}

#[test]
fn a_successor_must_be_promoted_from_us_at_or_after_the_fence() {
    let fork = Some("1 0/3000000 x\n");
    let wanted = successor("0/3000000", Loss::Refused);
    assert!(check(&primary("b", 2), fork, wanted).is_ok());
    let later = successor("0/3000001", Loss::Refused);
    assert_eq!(
        check(&primary("b", 2), fork, later),
        Err(Mismatch::ForkBeforeFence {
            found: lsn("0/3000000"),
            wanted: lsn("0/3000001")
        })
    );
    assert!(
        check(
            &primary("b", 2),
            fork,
            successor("0/3000001", Loss::Accepted)
        )
        .is_ok()
    );
    assert_eq!(
        check(&primary("b", 2), None, wanted),
        Err(Mismatch::ForkUnknown {
            wanted: lsn("0/3000000")
        })
    );
    assert_eq!(
        check(&primary("b", 3), Some("2 0/3000000 x\n"), wanted),
        Err(Mismatch::OtherLineage {
            wanted: timeline(1)
        })
    );
    assert_eq!(
        check(&primary("b", 1), Some(""), wanted),
        Err(Mismatch::TimelineNotHigher {
            found: timeline(1),
            old: timeline(1)
        })
    );
    let mut other = primary("b", 2);
    other.system_identifier = Some(78);
    assert_eq!(
        check(&other, fork, wanted),
        Err(Mismatch::SystemIdentifier {
            found: 78,
            wanted: 77
        })
    );
}

#[test]
fn what_is_unknown_is_not_accepted() {
    let wanted = Wanted::First;
    let with = |change: fn(&mut Observation)| {
        let mut seen = primary("b", 1);
        change(&mut seen);
        check(&seen, None, wanted)
    };
    assert!(with(|_| {}).is_ok());
    assert_eq!(with(|seen| seen.role = None), Err(Mismatch::RoleUnknown));
    assert_eq!(
        with(|seen| seen.role = Some(Role::Standby)),
        Err(Mismatch::InRecovery)
    );
    assert_eq!(
        with(|seen| seen.system_identifier = None),
        Err(Mismatch::IdentifierUnknown)
    );
    assert_eq!(
        with(|seen| seen.timeline = None),
        Err(Mismatch::TimelineUnknown)
    );
    assert_eq!(
        with(|seen| seen.read_only = None),
        Err(Mismatch::ReadOnlyUnknown)
    );
    let on = |seen: &mut Observation| {
        seen.read_only = Some(ReadOnlyDefault {
            on: true,
            source: "database".into(),
            file: None,
        });
    };
    assert_eq!(with(on), Err(Mismatch::ReadOnly));
    assert!(matches!(
        with(|seen| seen.endpoint.port = 1),
        Err(Mismatch::OtherServer { .. })
    ));
}

#[test]
fn reopening_needs_the_same_identity() {
    let same = Wanted::Same(OLD);
    assert!(check(&primary("b", 1), Some(""), same).is_ok());
    assert_eq!(
        check(&primary("b", 2), None, same),
        Err(Mismatch::Timeline {
            found: timeline(2),
            wanted: timeline(1)
        })
    );
    let forked = Identity {
        timeline: timeline(2),
        fork_lsn: Some(lsn("0/1")),
        ..OLD
    };
    assert_eq!(
        check(&primary("b", 2), Some("1 0/2 x"), Wanted::Same(forked)),
        Err(Mismatch::Fork {
            found: lsn("0/2"),
            wanted: lsn("0/1")
        })
    );
}

#[test]
fn an_equal_number_from_another_promotion_is_taken_only_with_accepted_loss() {
    let old = Identity {
        timeline: timeline(2),
        fork_lsn: Some(lsn("0/9")),
        ..OLD
    };
    let wanted = |loss| Wanted::Successor {
        of: old,
        fence_lsn: None,
        loss,
    };
    let fork = Some("1 0/7 x");
    assert!(check(&primary("b", 2), fork, wanted(Loss::Accepted)).is_ok());
    let refused = Mismatch::TimelineNotHigher {
        found: timeline(2),
        old: timeline(2),
    };
    assert_eq!(
        check(&primary("b", 2), fork, wanted(Loss::Refused)),
        Err(refused.clone())
    );
    assert_eq!(
        check(&primary("b", 2), Some("1 0/9 x"), wanted(Loss::Accepted)),
        Err(refused)
    );
}

fn checked(name: &str, number: u32, wanted: Wanted) -> CheckedTarget {
    CheckedTarget::check(&target(name), &primary(name, number), None, wanted).unwrap()
}

#[test]
fn the_serial_changes_exactly_when_sessions_must_move() {
    let regions = vec![target("a"), target("b")];
    let targets = Targets::new(regions, &Region::new("a"), None).unwrap();
    let first = targets.serial();
    targets.establish(checked("a", 1, Wanted::First)).unwrap();
    targets
        .repoint(&Quiet, checked("a", 1, Wanted::Same(OLD)))
        .unwrap();
    assert_eq!(targets.serial(), first);

    targets.set_candidate(Some(&Region::new("b"))).unwrap();
    let prepared = targets.candidate().unwrap().serial;
    targets.set_candidate(Some(&Region::new("b"))).unwrap();
    assert_eq!(targets.candidate().unwrap().serial, prepared);
    let to_b = || Wanted::Successor {
        of: OLD,
        fence_lsn: None,
        loss: Loss::Refused,
    };
    let new = targets.repoint(&Quiet, checked("b", 2, to_b())).unwrap();
    assert_eq!((new.serial, new.region.as_str()), (prepared, "b"));
    assert!(targets.candidate().is_none() && prepared != first);

    let late = targets
        .repoint(&Quiet, checked("a", 2, to_b()))
        .unwrap_err();
    assert!(matches!(late, RepointError::Overtaken { .. }));
    let again = targets
        .establish(checked("a", 1, Wanted::First))
        .unwrap_err();
    assert!(matches!(again, RepointError::Established { .. }));
}

#[test]
fn a_region_promoted_by_others_in_place_moves_its_sessions() {
    let targets = Targets::new(vec![target("a")], &Region::new("a"), Some(OLD)).unwrap();
    let before = targets.serial();
    let wanted = Wanted::Successor {
        of: OLD,
        fence_lsn: None,
        loss: Loss::Refused,
    };
    targets.repoint(&Quiet, checked("a", 2, wanted)).unwrap();
    assert_ne!(targets.serial(), before);
    let nowhere = Region::new("x");
    assert_eq!(
        targets.region(&nowhere).unwrap_err(),
        UnknownRegion {
            region: nowhere.clone()
        }
    );
    assert_eq!(
        Targets::new(vec![], &nowhere, None).unwrap_err(),
        UnknownRegion { region: nowhere }
    );
}

fn grants(row: &[&str], able: Option<[&str; 2]>, needs: &[Need]) -> Vec<String> {
    let row: Row = row.iter().map(|text| Some((*text).to_owned())).collect();
    let able: Option<Row> = able.map(|row| row.iter().map(|t| Some((*t).to_owned())).collect());
    read_privileges(&row, able.as_ref(), needs).unwrap()
}

#[test]
fn missing_rights_are_told_as_statements() {
    let all = [Need::Observe, Need::Barrier, Need::Promote];
    let superuser = ["postgres", "t", "f", "f", "f", "f", "f", "f"];
    assert!(grants(&superuser, None, &all).is_empty());
    let nobody = ["w", "f", "f", "f", "f", "f", "f", "f"];
    assert_eq!(
        grants(&nobody, Some(["f", "f"]), &all),
        [
            "GRANT pg_monitor TO w;",
            "ALTER ROLE w REPLICATION;",
            "GRANT pg_signal_backend TO w;",
            "GRANT EXECUTE ON FUNCTION pg_reload_conf TO w;",
            "GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO w;",
            "GRANT ALTER SYSTEM ON PARAMETER writefence.barrier TO w;",
            "GRANT EXECUTE ON FUNCTION pg_promote TO w;",
        ]
    );
    let able = ["w", "f", "t", "t", "t", "t", "t", "t"];
    assert_eq!(grants(&able, None, &all), ["ALTER ROLE w SUPERUSER;"]);
}
