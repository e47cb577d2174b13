//! The shapes of the documents against `tests/data/api.json`, and the tables of codes.
//!
//! A difference is either a mistake or a change of the public contract. For the latter, run with
//! `WRITEFENCE_BLESS=1`, look at the file's difference, and add a line to the change log.

use std::collections::{BTreeMap, HashSet};
use std::fmt::Debug;
use std::time::{Duration, UNIX_EPOCH};

use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use super::*;

const GOLDEN: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/data/api.json");

fn at(ms: u64) -> Timestamp {
    Timestamp::new(UNIX_EPOCH + Duration::from_millis(1_772_366_400_000 + ms))
}

fn region(name: &str) -> RegionStatus {
    RegionStatus {
        name: name.into(),
        address: Some("127.0.0.1:5502".into()),
        role: Some(Role::Standby),
        writable: Some(false),
        system_identifier: Some("7300000000000000001".into()),
        timeline: Some(1),
        lsn: Some("0/3000060".into()),
        lag_bytes: Some(0),
        lag_seconds: Some(0.25),
        reachable: Some(true),
        last_probe_ms: Some(120),
        problem: None,
    }
}

fn unseen(name: &str) -> RegionStatus {
    RegionStatus {
        name: name.into(),
        address: None,
        role: None,
        writable: None,
        system_identifier: None,
        timeline: None,
        lsn: None,
        lag_bytes: None,
        lag_seconds: None,
        reachable: Some(false),
        last_probe_ms: Some(900),
        problem: Some("127.0.0.1:5501 refused the connection".into()),
    }
}

fn in_flight() -> InFlight {
    InFlight {
        executing: 3,
        orphaned: 1,
        open_transactions: 2,
        held: 14,
        unknown: 0,
        prepared_transactions: None,
    }
}

fn drain() -> Drain {
    Drain {
        id: "d7".into(),
        epoch: 12,
        outcome: Some(DrainOutcome::TimedOut),
        started: at(10),
        deadline: Some(at(8_010)),
        lanes: LaneCounts { http: 0, sql: 1 },
        unknown: 0,
        stragglers: vec![Straggler {
            kind: StragglerKind::Sql,
            id: "41".into(),
            user: Some("app".into()),
            database: Some("shop".into()),
            client: Some("10.0.0.7:51515".into()),
            pid: Some(4242),
            age_ms: Some(9_000),
            state: Some("in_transaction".into()),
            digest: None,
        }],
    }
}

fn run() -> Run {
    let evidence = Evidence {
        kind: EvidenceKind::Barrier,
        at: at(30),
        detail: "read-only, every foreign session ended".into(),
    };
    let step = |name, state, from: Option<u64>, to: Option<u64>| StepRecord {
        name,
        state,
        started: from.map(at),
        ended: to.map(at),
        error: None,
        findings: vec![],
    };
    let mut failed = step(Step::CaughtUp, StepState::Failed, Some(40), Some(90));
    failed.error = Some(ApiError::new(
        Code::CandidateBehind,
        "b has replayed 0/2FFFFFF",
    ));
    failed.findings = vec![Finding::new(Level::Warn, "lag", "b is 97 bytes behind")];
    Run {
        id: "r20260301-1".into(),
        group: "main".into(),
        kind: RunKind::Switchover,
        from: Some("a".into()),
        to: Some("b".into()),
        reason: "CHG-1".into(),
        actor: "uid=0 gid=0 pid=7".into(),
        state: RunState::Running,
        working: false,
        next: Some(Verb::Resume),
        error: failed.error.clone(),
        exceptions: vec!["a finding was waived".into()],
        step: Some(Step::CaughtUp),
        steps: vec![step(Step::Fence, StepState::Done, Some(0), Some(2)), failed],
        certificate: Some(Certificate {
            group: "main".into(),
            epoch: 12,
            fenced_at: at(1),
            executing: 0,
            orphaned: 0,
            unknown: 0,
            evidence,
            fence_lsn: Some("0/3000060".into()),
            system_identifier: Some("7300000000000000001".into()),
            timeline: Some(1),
            acks: vec![],
        }),
        budget_ms: Some(15_000),
        epoch: Some(12),
        started: at(0),
        ended: None,
        write_gap_ms: Some(95),
    }
}

fn status() -> Status {
    let lane = |in_flight| LaneStatus {
        phase: Phase::Fenced,
        answer: Some(FenceAnswer::Hold),
        in_flight,
    };
    Status {
        version: "0.1.0".into(),
        started: at(0),
        groups: vec![GroupStatus {
            name: "main".into(),
            phase: Phase::Fenced,
            answer: Some(FenceAnswer::Hold),
            epoch: 12,
            primary: Some("a".into()),
            lanes: Lanes {
                http: lane(0),
                sql: lane(3),
            },
            in_flight: in_flight(),
            drain: None,
            regions: vec![unseen("a"), region("b")],
            replication: 1,
            run: None,
            notices: vec!["region a does not answer".into()],
        }],
    }
}

fn sessions() -> SessionList {
    SessionList {
        group: "main".into(),
        sessions: vec![Session {
            id: "41".into(),
            user: "app".into(),
            database: "shop".into(),
            client: Some("10.0.0.7:51515".into()),
            application_name: None,
            region: Some("a".into()),
            state: SessionState::InTransaction,
            pid: Some(4242),
            movable: false,
            moves: Moves::MustEnd,
            replays: vec!["SET work_mem".into()],
            pins: vec![Pin {
                kind: "listen".into(),
                reason: "it listens on 1 channel".into(),
            }],
            since_ms: 9_000,
        }],
        replication: vec![Replication {
            id: "42".into(),
            kind: ReplicationKind::Physical,
            user: "replicator".into(),
            client: "10.0.0.9:40000".into(),
            application_name: Some("standby".into()),
            region: Some("a".into()),
            pid: Some(4243),
            since_ms: 60_000,
        }],
    }
}

fn unknown() -> UnknownList {
    UnknownList {
        group: "main".into(),
        writes: vec![UnknownWrite {
            id: "u3".into(),
            at: at(5),
            kind: StragglerKind::Http,
            state: UnknownState::Unresolved,
            region: Some("a".into()),
            user: None,
            database: None,
            client: Some("10.0.0.7:51515".into()),
            pid: None,
            digest: Some("POST /orders".into()),
            idempotency_key: Some("k-1".into()),
            request: Some("r-1".into()),
            xid: None,
            acknowledged_by: None,
        }],
    }
}

fn explained() -> ExplainSql {
    let statement = ExplainStatement {
        text: "select nextval('s')".into(),
        kind: "other".into(),
        verdict: Verdict::Write,
        rule: "function_writes".into(),
        decided_by: Some("nextval".into()),
    };
    ExplainSql {
        verdict: statement.verdict,
        rule: Some(statement.rule.clone()),
        decided_by: statement.decided_by.clone(),
        database: Some("app".into()),
        no_catalog: None,
        statements: vec![statement],
    }
}

fn explained_http() -> ExplainHttp {
    let one = ExplainHttpListener {
        address: "127.0.0.1:8080".into(),
        verdict: HttpVerdict::NeedsBody,
        rule: "graphql-body".into(),
        route: Some(0),
        answer: Some(FenceAnswer::Reject),
        write_deadline_ms: 60_000,
    };
    ExplainHttp {
        verdict: one.verdict,
        listeners: vec![one],
    }
}

/// Collects documents as lines of the golden file; each must also read back equal.
#[derive(Default)]
struct Golden(String);

impl Golden {
    fn add<T: Serialize + DeserializeOwned + PartialEq + Debug>(&mut self, name: &str, body: T) {
        let document = Doc::new(body);
        let text = serde_json::to_string(&document).unwrap();
        assert_eq!(
            serde_json::from_str::<Doc<T>>(&text).unwrap(),
            document,
            "{name}"
        );
        let separator = if self.0.is_empty() { "" } else { ",\n" };
        self.0.push_str(&format!("{separator}\"{name}\": {text}"));
    }

    fn check(self) {
        let found = format!("{{\n{}\n}}\n", self.0);
        if std::env::var_os("WRITEFENCE_BLESS").is_some() {
            std::fs::write(GOLDEN, &found).unwrap();
        }
        let expected = std::fs::read_to_string(GOLDEN).unwrap();
        for (found, expected) in found.lines().zip(expected.lines()) {
            assert_eq!(found, expected);
        }
        assert_eq!(found, expected);
    }
}

#[test]
fn documents_have_the_shapes_of_the_golden_file() {
    let mut golden = Golden::default();
    golden.add("status", status());
    golden.add("run", run());
    let event = Event {
        seq: 3,
        at: at(2),
        step: Some(Step::Fence),
        text: "fenced".into(),
    };
    let (seq, events, in_flight) = (3, vec![event], Some(in_flight()));
    golden.add(
        "progress",
        RunProgress {
            run: run(),
            seq,
            events,
            in_flight,
            left: Some(Left {
                behind: 1,
                of: 2,
                eta_ms: Some(40),
                budget_ms: None,
            }),
        },
    );
    golden.add("drain", drain());
    let finding = Finding::new(Level::Block, "candidate_reachable", "b does not answer");
    golden.add(
        "preflight",
        Preflight::new("main".into(), Some("a".into()), "b".into(), vec![finding]),
    );
    golden.add("sessions", sessions());
    golden.add("unknown", unknown());
    golden.add("explain_sql", explained());
    golden.add("explain_http", explained_http());
    let (applied, needs_restart) = (vec!["fence.hold".into()], vec!["admin.socket".into()]);
    golden.add(
        "reload",
        ReloadReport {
            applied,
            needs_restart,
        },
    );
    let error = ApiError::new(
        Code::WrongEpoch,
        "epoch 11 was expected, the group is at 12",
    )
    .hint("look at the status")
    .run("r20260301-1")
    .epoch(12);
    golden.add("error", ErrorDoc { error });
    golden.check();
}

#[test]
fn what_is_not_known_is_null_and_never_left_out() {
    let text = serde_json::to_value(unseen("a")).unwrap();
    for field in [
        "role",
        "writable",
        "timeline",
        "lsn",
        "lag_bytes",
        "lag_seconds",
    ] {
        assert_eq!(text[field], Value::Null, "{field}");
        assert!(text.as_object().unwrap().contains_key(field), "{field}");
    }
}

#[test]
fn a_document_may_gain_fields_but_not_another_version() {
    let more = r#"{"api":1,"applied":[],"needs_restart":[],"later":{"a":1}}"#;
    serde_json::from_str::<Doc<ReloadReport>>(more).unwrap();
    let other = r#"{"api":2,"applied":[],"needs_restart":[]}"#;
    let error = serde_json::from_str::<Doc<ReloadReport>>(other)
        .unwrap_err()
        .to_string();
    assert!(error.contains("api version 2"), "{error}");
    let missing = r#"{"applied":[],"needs_restart":[]}"#;
    serde_json::from_str::<Doc<ReloadReport>>(missing).unwrap_err();
}

#[test]
fn every_code_has_one_word_and_the_exit_code_of_its_class() {
    let expected: BTreeMap<&str, &[&str]> = BTreeMap::from([
        (
            "1",
            &[
                "bad_request",
                "not_confirmed",
                "group_not_named",
                "no_such_path",
                "no_such_group",
                "no_such_run",
                "no_such_drain",
                "no_such_write",
                "method_not_allowed",
                "too_slow",
                "too_large",
                "bad_config",
                "not_in_this_version",
            ][..],
        ),
        (
            "2",
            &[
                "internal",
                "bad_answer",
                "unreachable",
                "stopping",
                "busy",
                "no_answer",
            ][..],
        ),
        (
            "3",
            &[
                "precondition",
                "preflight_blocked",
                "wrong_region",
                "no_live_run",
                "not_fenced",
                "not_drained",
                "evidence_missing",
                "foreign_writers",
                "identity_mismatch",
                "candidate_behind",
                "target_unreachable",
                "promotion_failed",
                "hook_failed",
                "loss_not_accepted",
                "past_point_of_no_return",
                "nothing_to_resume",
                "nothing_to_abort",
                "run_interrupted",
                "storage",
            ][..],
        ),
        ("4", &["drain_timed_out"][..]),
        ("5", &["aborted", "rolled_back", "budget_exceeded"][..]),
        (
            "6",
            &["superseded", "wrong_epoch", "wrong_run", "run_in_progress"][..],
        ),
        ("7", &["verification_failed", "audit_damaged"][..]),
    ]);
    let mut found: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for code in Code::ALL {
        found
            .entry(code.exit().code().to_string())
            .or_default()
            .push(code.to_string());
        assert!((400..600).contains(&code.http_status()), "{code}");
    }
    let expected: BTreeMap<_, Vec<_>> = expected
        .into_iter()
        .map(|(exit, codes)| {
            (
                exit.to_owned(),
                codes.iter().map(|c| (*c).to_owned()).collect(),
            )
        })
        .collect();
    assert_eq!(found, expected);
}

#[test]
fn a_code_of_a_later_release_is_not_an_unreadable_answer() {
    let later = r#"{"code":"moon_phase","message":"m","hint":null,"run":null,"epoch":null}"#;
    assert_eq!(
        serde_json::from_str::<ApiError>(later).unwrap().code,
        Code::Other
    );
}

#[test]
fn exit_codes_are_numbered_as_promised() {
    let codes: Vec<_> = Exit::TABLE.iter().map(|(exit, _)| exit.code()).collect();
    assert_eq!(codes, [0, 1, 2, 3, 4, 5, 6, 7, 130]);
}

#[test]
fn a_run_ends_its_command_by_state_error_and_verb() {
    use RunState::{Aborted, Aborting, Done, Failed, Interrupted, RolledBack, Running};
    for (state, error, verb, exit) in [
        (Done, None, Verb::Switchover, Exit::Done),
        (Aborted, None, Verb::Switchover, Exit::Aborted),
        (Aborted, None, Verb::Abort, Exit::Done),
        (
            RolledBack,
            Some(Code::DrainTimedOut),
            Verb::Switchover,
            Exit::Aborted,
        ),
        (
            Aborting,
            Some(Code::TargetUnreachable),
            Verb::Abort,
            Exit::Precondition,
        ),
        (
            Failed,
            Some(Code::VerificationFailed),
            Verb::Switchover,
            Exit::VerifyFailed,
        ),
        (Failed, None, Verb::Switchover, Exit::Aborted),
        (Interrupted, None, Verb::Switchover, Exit::Precondition),
        (Running, None, Verb::Prepare, Exit::Done),
        (
            Running,
            Some(Code::ForeignWriters),
            Verb::Promote,
            Exit::Precondition,
        ),
    ] {
        let error = error.map(|code| ApiError::new(code, "m"));
        let run = Run {
            state,
            error,
            ..run()
        };
        assert_eq!(run.verdict(verb), exit, "{state} {verb}");
    }
}

#[test]
fn a_drains_outcome_is_its_commands_exit() {
    for (outcome, exit) in [
        (None, Exit::Done),
        (Some(DrainOutcome::Drained), Exit::Done),
        (Some(DrainOutcome::DrainedWithUnknown), Exit::Done),
        (Some(DrainOutcome::TimedOut), Exit::DrainTimedOut),
        (Some(DrainOutcome::Superseded), Exit::Superseded),
    ] {
        let verdict = Drain { outcome, ..drain() }.verdict();
        assert_eq!(
            verdict.map_or_else(|error| error.code.exit(), |()| Exit::Done),
            exit
        );
    }
}

#[test]
fn times_are_text_with_milliseconds_and_survive_any_clock() {
    assert_eq!(at(7).to_string(), "2026-03-01T12:00:00.007Z");
    let before = UNIX_EPOCH - Duration::from_secs(1);
    assert_eq!(
        Timestamp::new(before).to_string(),
        "1970-01-01T00:00:00.000Z"
    );
    let far = UNIX_EPOCH + Duration::from_secs(1 << 40);
    assert!(
        Timestamp::new(far)
            .to_string()
            .starts_with("9999-12-31T23:59:59.")
    );
    serde_json::from_str::<Timestamp>("\"yesterday\"").unwrap_err();
}

#[test]
fn verbs_and_steps_have_one_name_everywhere() {
    let mut names = HashSet::new();
    for verb in Verb::ALL {
        assert_eq!(Verb::parse(verb.name()), Some(verb));
        assert_eq!(serde_json::to_value(verb).unwrap(), verb.name());
        assert!(names.insert(verb.name()));
    }
    let steps = Step::ALL.map(|step| step.to_string());
    assert_eq!(
        steps.join(" "),
        "preflight fence drain evidence certificate caught_up pnr promote identity hooks open \
         converge verify report"
    );
    assert!(
        Step::ALL
            .into_iter()
            .all(|step| Step::parse(&step.to_string()) == Some(step))
    );
}

#[test]
fn requests_that_contradict_themselves_are_refused() {
    let code = |result: Result<(), ApiError>| result.err().map(|error| error.code);
    let prepare = |answer, hold_ms, reason: &str| Prepare {
        primary: "a".into(),
        reason: reason.into(),
        answer,
        hold_ms,
    };
    assert_eq!(code(prepare(None, None, "x").check()), None);
    assert_eq!(
        code(prepare(Some(FenceAnswer::Hold), Some(1), "x").check()),
        None
    );
    let bad = Some(Code::BadRequest);
    assert_eq!(
        code(prepare(Some(FenceAnswer::Reject), Some(1), "x").check()),
        bad
    );
    assert_eq!(code(prepare(None, Some(1), "x").check()), bad);
    assert_eq!(code(prepare(None, None, " ").check()), bad);
    let failover = |accept_loss, confirm| FailoverRequest {
        to: "b".into(),
        reason: "x".into(),
        accept_loss,
        confirm,
    };
    assert_eq!(code(failover(true, true).check()), None);
    assert_eq!(
        code(failover(false, true).check()),
        Some(Code::NotConfirmed)
    );
    assert_eq!(
        code(failover(true, false).check()),
        Some(Code::NotConfirmed)
    );
    let ack = |ids: &[&str], all| UnknownAck {
        ids: ids.iter().map(|id| (*id).to_owned()).collect(),
        all,
        reason: "x".into(),
    };
    assert_eq!(code(ack(&["u1"], false).check()), None);
    assert_eq!(code(ack(&[], true).check()), None);
    assert_eq!(code(ack(&[], false).check()), bad);
    assert_eq!(code(ack(&["u1"], true).check()), bad);
}
