//! Every verb's command line: what arrives at the daemon, what is printed, how it exits.

use serde_json::json;
use writefence_admin::api::*;
use writefence_admin::audit::{Entry, Event, Log, segment_name};

use crate::fake::called;
use crate::kit::{Ran, Server};

/// Runs a command and compares the request that arrived.
fn check(args: &[&str], expected: serde_json::Value) {
    let server = Server::start();
    let ran = server.ctl(args);
    assert_eq!(server.fake.calls(), [expected], "{args:?} {}", ran.stderr);
    assert_eq!(ran.code, Some(0), "{args:?} {} {}", ran.stdout, ran.stderr);
}

#[test]
fn every_verb_sends_all_its_options() {
    let (a, b, x) = (|| "a".to_owned(), || "b".to_owned(), || "x".to_owned());
    check(
        &["preflight", "--to", "b"],
        called(
            &PreflightRequest {
                to: b(),
                plan: None,
            },
            None,
            None,
        ),
    );
    let prepare = |answer, hold_ms| Prepare {
        primary: a(),
        reason: x(),
        answer,
        hold_ms,
    };
    let line = ["prepare", "--primary", "a", "--reason", "x"];
    check(&line, called(&prepare(None, None), None, None));
    let hold = prepare(Some(FenceAnswer::Hold), Some(20_000));
    check(
        &[&line[..], &["--hold", "20s"]].concat(),
        called(&hold, None, None),
    );
    let reject = prepare(Some(FenceAnswer::Reject), None);
    let line = [&line[..], &["--reject", "--epoch", "4"]].concat();
    check(&line, called(&reject, None, Some(4)));
    let drain = WatchDrain {
        region: Some(a()),
        max_wait_ms: 300_000,
        force: true,
    };
    let line = [
        "watch-drain",
        "--region",
        "a",
        "--max-wait",
        "5m",
        "--force",
    ];
    check(&line, called(&drain, None, None));
    let promote = Promote {
        new_primary: b(),
        confirm: true,
        accept_loss: true,
    };
    let line = [
        "promote",
        "--new-primary",
        "b",
        "--confirm",
        "--accept-loss",
    ];
    check(&line, called(&promote, None, None));
    let open = OpenWrites {
        primary: b(),
        accept_loss: true,
    };
    check(
        &["open-writes", "--primary", "b", "--accept-loss"],
        called(&open, None, None),
    );
    check(
        &["verify", "--primary", "b"],
        called(&Verify { primary: b() }, None, None),
    );
    let (to, reason) = (b(), x());
    let move_ = SwitchoverRequest {
        to,
        reason,
        budget_ms: Some(1500),
        force_stragglers: true,
    };
    let line = [
        "switchover",
        "--to",
        "b",
        "--reason",
        "x",
        "--budget",
        "1500ms",
    ];
    check(
        &[&line[..], &["--force-stragglers"]].concat(),
        called(&move_, None, None),
    );
    let (to, reason) = (b(), x());
    let move_ = FailoverRequest {
        to,
        reason,
        accept_loss: true,
        confirm: true,
    };
    let line = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    check(&line, called(&move_, None, None));
    let mut sql = ExplainSqlRequest {
        sql: "insert into t values (1)".into(),
        database: None,
    };
    check(
        &["explain-sql", "insert into t values (1)"],
        called(&sql, None, None),
    );
    sql.database = Some("shop".into());
    check(
        &[
            "explain-sql",
            "--database",
            "shop",
            "insert into t values (1)",
        ],
        called(&sql, None, None),
    );
    let mut http = ExplainHttpRequest {
        method: "POST".into(),
        url: "/orders".into(),
        headers: Vec::new(),
        body: None,
    };
    check(
        &["explain-http", "POST", "/orders"],
        called(&http, None, None),
    );
    http.headers = vec!["Host: h".into(), "X-A: b".into()];
    let more = ["--header", "Host: h", "--header", "X-A: b"];
    let line = [&["explain-http", "POST", "/orders"], &more[..]].concat();
    check(&line, called(&http, None, None));
    let ack = UnknownAck {
        ids: vec!["u1".into(), "u2".into()],
        all: false,
        reason: x(),
    };
    check(
        &["unknown", "ack", "u1", "u2", "--reason", "x"],
        called(&ack, None, None),
    );
    let ack = UnknownAck {
        ids: vec![],
        all: true,
        reason: x(),
    };
    check(
        &["unknown", "ack", "--all", "--reason", "x"],
        called(&ack, None, None),
    );
    check(&["reload"], json!(["reload", {}]));
}

#[test]
fn abort_and_resume_carry_the_expected_run() {
    let server = Server::start();
    let start = [
        "--json",
        "switchover",
        "--to",
        "b",
        "--reason",
        "interrupted",
    ];
    assert_eq!(server.ctl(&start).code, Some(3));
    let ran = server.ctl(&["resume", "--run", "r1", "--epoch", "4"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let expected = called(&Resume {}, Some("r1"), Some(4));
    assert_eq!(server.fake.calls().last(), Some(&expected));
    assert_eq!(
        server.ctl(&["abort"]).code,
        Some(3),
        "nothing is live any more"
    );
    server.fake.forget();
    assert_eq!(server.ctl(&start).code, Some(3));
    assert_eq!(server.ctl(&["abort", "--run", "r2"]).code, Some(6));
    let ran = server.ctl(&["abort", "--run", "r1", "--json"]);
    assert_eq!(
        (ran.code, ran.document()["state"].as_str()),
        (Some(0), Some("aborted"))
    );
}

/// Command lines with their exit code, and the code word if it ends in an error document.
const EXITS: &[(&[&str], i32, Option<&str>)] = &[
    (&["status"], 0, None),
    (&["sessions"], 0, None),
    (&["unknown", "list"], 0, None),
    (&["--group", "main", "status"], 0, None),
    (&["--group", "all", "sessions"], 0, None),
    (&["preflight", "--to", "b"], 0, None),
    (&["preflight", "--to", "c"], 3, None),
    (&["switchover", "--to", "b", "--reason", "ok"], 0, None),
    (
        &["switchover", "--to", "b", "--reason", "refused"],
        3,
        Some("preflight_blocked"),
    ),
    (&["switchover", "--to", "b", "--reason", "foreign"], 3, None),
    (
        &["switchover", "--to", "b", "--reason", "interrupted"],
        3,
        None,
    ),
    (
        &["switchover", "--to", "b", "--reason", "rolls-back"],
        5,
        None,
    ),
    (
        &["switchover", "--to", "b", "--reason", "not-verified"],
        7,
        None,
    ),
    (
        &["switchover", "--to", "b", "--reason", "panics"],
        2,
        Some("internal"),
    ),
    (
        &[
            "switchover",
            "--to",
            "b",
            "--reason",
            "silent",
            "--timeout",
            "300ms",
        ],
        2,
        Some("no_answer"),
    ),
    (
        &["switchover", "--to", "b", "--reason", "x", "--epoch", "3"],
        6,
        Some("wrong_epoch"),
    ),
    (
        &["switchover", "--to", "b", "--reason", "x", "--run", "r9"],
        6,
        Some("wrong_run"),
    ),
    (
        &["switchover", "--to", "b", "--reason", " "],
        1,
        Some("bad_request"),
    ),
    (
        &["failover", "--to", "b", "--reason", "x", "--confirm"],
        1,
        Some("not_confirmed"),
    ),
    (
        &["failover", "--to", "b", "--reason", "x", "--accept-loss"],
        1,
        Some("not_confirmed"),
    ),
    (&["promote", "--new-primary", "b"], 1, Some("not_confirmed")),
    (
        &["prepare", "--primary", "b", "--reason", "x"],
        3,
        Some("wrong_region"),
    ),
    (&["watch-drain", "--max-wait", "1m"], 0, None),
    (&["watch-drain", "--max-wait", "1s"], 4, None),
    (&["watch-drain", "--max-wait", "2s"], 6, None),
    (&["abort"], 3, Some("nothing_to_abort")),
    (&["resume"], 3, Some("nothing_to_resume")),
    (&["status", "--follow"], 3, Some("no_live_run")),
    (
        &["unknown", "ack", "u9", "--reason", "x"],
        1,
        Some("no_such_write"),
    ),
    (&["--group", "other", "status"], 1, Some("no_such_group")),
    (&["--group", "other", "abort"], 1, Some("no_such_group")),
    (
        &["--group", "main,other", "abort"],
        1,
        Some("no_such_group"),
    ),
    (&["--group", "main,", "status"], 1, Some("bad_request")),
    (
        &["--url", "https://x", "status"],
        1,
        Some("not_in_this_version"),
    ),
    (&["report", "--run", "r9"], 1, Some("no_such_run")),
    (
        &["report", "--format", "html"],
        1,
        Some("not_in_this_version"),
    ),
    (&["audit", "verify"], 1, Some("bad_request")),
    (
        &["audit", "verify", "--dir", "/nowhere"],
        1,
        Some("bad_request"),
    ),
    (
        &["--socket", "/nowhere/admin.sock", "status"],
        2,
        Some("unreachable"),
    ),
    // clap's own refusals.
    (&[], 1, Some("bad_request")),
    (&["promte"], 1, Some("bad_request")),
    (&["switchover", "--to", "b"], 1, Some("bad_request")),
    (
        &["prepare", "--primary", "a", "--reason", "x", "--hold", "20"],
        1,
        Some("bad_request"),
    ),
    (
        &[
            "prepare",
            "--primary",
            "a",
            "--reason",
            "x",
            "--hold",
            "20s",
            "--reject",
        ],
        1,
        Some("bad_request"),
    ),
    (&["unknown", "ack", "--reason", "x"], 1, Some("bad_request")),
    (&["status", "--timeout", "5"], 1, Some("bad_request")),
];

#[test]
fn exit_codes_are_the_same_for_people_and_for_programs() {
    for (args, code, word) in EXITS {
        let server = Server::start();
        let ran = server.ctl(args);
        assert_eq!(
            ran.code,
            Some(*code),
            "{args:?} {} {}",
            ran.stdout,
            ran.stderr
        );
        let said = if *code == 0 {
            &ran.stdout
        } else {
            &format!("{}{}", ran.stdout, ran.stderr)
        };
        assert!(!said.is_empty(), "{args:?} says nothing");
        server.fake.forget();
        let ran = server.ctl(&[&["--json"], *args].concat());
        assert_eq!(
            ran.code,
            Some(*code),
            "{args:?} {} {}",
            ran.stdout,
            ran.stderr
        );
        let document = ran.document();
        assert_eq!(
            document["error"]["code"]
                .as_str()
                .filter(|_| word.is_some()),
            *word,
            "{args:?}"
        );
    }
}

#[test]
fn a_usage_error_names_the_argument_also_as_a_document() {
    let ran = Server::start().ctl(&["--json", "switchover", "--to", "b"]);
    let document = ran.document();
    let message = document["error"]["message"].as_str().unwrap();
    assert!(
        message.ends_with("not provided: --reason <ID>"),
        "{message}"
    );
}

#[test]
fn help_and_version_exit_0_and_help_lists_the_exit_codes() {
    let server = Server::start();
    let help = server.ctl(&["--help"]);
    assert_eq!(help.code, Some(0));
    for (exit, meaning) in Exit::TABLE {
        assert!(
            help.stdout
                .contains(&format!("{:>3}  {meaning}", exit.code())),
            "{meaning}"
        );
    }
    assert_eq!(server.ctl(&["--version"]).code, Some(0));
    assert_eq!(server.ctl(&["switchover", "--help"]).code, Some(0));
}

#[test]
fn one_of_several_groups_has_to_be_named() {
    let server = Server::with_groups(&["main", "stock"]);
    let ran = server.ctl(&["abort"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("main, stock"), "{}", ran.stderr);
    assert!(server.fake.calls().is_empty());
    assert_eq!(server.ctl(&["--group", "stock", "sessions"]).code, Some(0));
    let ran = server.ctl(&["--group", "stock,main", "status"]);
    assert!(ran.stdout.contains("group main: OPEN") && ran.stdout.contains("group stock: OPEN"));
    let ran = server.ctl(&["--group", "stock", "--json", "status"]);
    assert_eq!(ran.document()["groups"].as_array().unwrap().len(), 1);
}

#[test]
fn one_command_is_for_each_of_several_groups_once() {
    let server = Server::with_groups(&["main", "stock"]);
    let groups = ["--group", "main,stock,main", "--json"];
    let ran = server.ctl(&[&groups[..], &["preflight", "--to", "b"]].concat());
    let document = ran.document();
    assert_eq!(ran.code, Some(0), "{document}");
    let named = document["groups"].as_array().unwrap().iter();
    let named: Vec<_> = named
        .map(|group| group["group"].as_str().unwrap())
        .collect();
    assert_eq!(named, ["main", "stock"]);
    // A comparison is of one group.
    let ran = server.ctl(&["--group", "all", "abort", "--epoch", "4"]);
    assert_eq!(ran.code, Some(1));
    assert!(ran.stderr.contains("of one group"), "{}", ran.stderr);
}

#[test]
fn nothing_is_begun_anywhere_while_something_blocks_somewhere() {
    let server = Server::with_groups(&["main", "stock"]);
    // The fake's region c is blocked in every group.
    let ran = server.ctl(&["--group", "all", "switchover", "--to", "c", "--reason", "x"]);
    assert_eq!(ran.code, Some(3), "{}", ran.stderr);
    assert!(
        ran.stderr.contains("nothing was begun in any group"),
        "{}",
        ran.stderr
    );
    let asked: Vec<_> = server.fake.calls();
    assert!(asked.iter().all(|call| call[0] == "preflight"), "{asked:?}");
    let ran = server.ctl(&["--group", "main,nowhere", "abort"]);
    assert_eq!(ran.code, Some(1));
}

#[test]
fn a_dry_run_asks_for_a_plan_and_starts_nothing() {
    let server = Server::start();
    let ran = server.ctl(&["switchover", "--to", "b", "--reason", "x", "--dry-run"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let calls = server.fake.calls();
    assert_eq!(calls.len(), 1, "{calls:?}");
    assert_eq!(
        (&calls[0][0], &calls[0][2]["plan"]),
        (&"preflight".into(), &"switchover".into())
    );
}

#[test]
fn status_says_first_what_matters_and_last_what_to_do() {
    let server = Server::start();
    let ran = server.ctl(&["status"]);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(lines[0], "group main: OPEN  primary a  epoch 4");
    assert!(
        lines[1].contains("3 executing") && lines[1].contains("? prepared"),
        "{}",
        lines[1]
    );
    assert!(
        lines[3].contains("standby") && lines[3].contains("lag 2.0 KiB, ?"),
        "{}",
        lines[3]
    );
    assert_eq!(lines.last(), Some(&"  next: nothing: writes pass"));
    server.ctl(&["switchover", "--to", "b", "--reason", "interrupted"]);
    let ran = server.ctl(&["status"]);
    for said in [
        "run r1: switchover a → b (interrupted): interrupted at drain (3 of 14 steps behind)",
        "next: `writefencectl resume --group main --run r1`",
        "next: or back: `writefencectl abort --group main --run r1`",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
}

#[test]
fn a_primary_that_does_not_answer_comes_first_and_so_does_what_to_do_about_it() {
    let server = Server::with_groups(&["silent"]);
    let ran = server.ctl(&["status"]);
    let lines: Vec<_> = ran.stdout.lines().collect();
    assert_eq!(
        lines[0],
        "!! the primary a does not answer: writes that pass here fail"
    );
    assert!(
        !ran.stdout.contains("nothing: writes pass"),
        "{}",
        ran.stdout
    );
    let last = lines.last().unwrap();
    assert!(
        last.contains("`writefencectl failover --group silent --to b --reason ID --dry-run`"),
        "{last}"
    );
}

#[test]
fn a_run_of_single_steps_says_after_each_verb_what_comes_next() {
    let server = Server::start();
    let next = |args: &[&str], said: &str| {
        let ran = server.ctl(args);
        assert_eq!(ran.code, Some(0), "{}", ran.stderr);
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    };
    next(
        &["prepare", "--primary", "a", "--reason", "x"],
        "next: `writefencectl watch-drain --group main --max-wait 5m`",
    );
    next(
        &["watch-drain", "--max-wait", "5m"],
        "drained: nothing admitted up to epoch 4",
    );
}

#[test]
fn a_drill_that_went_back_as_planned_exits_0() {
    let server = Server::start();
    let ran = server.ctl(&["--json", "drill", "--to", "b", "--fence-only"]);
    assert_eq!(ran.code, Some(0), "{}{}", ran.stdout, ran.stderr);
    assert_eq!(ran.document()["state"], "rolled_back");
    let request = DrillRequest {
        to: "b".into(),
        reason: "drill".into(),
        fence_only: true,
        budget_ms: None,
    };
    assert_eq!(server.fake.calls(), [called(&request, None, None)]);
    let ran = server.ctl(&["drill", "--to", "b", "--fence-only"]);
    for said in [
        "rehearsed, everything held",
        "next: nothing: writes pass in a",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
}

#[test]
fn the_audit_is_shown_whole_over_several_answers() {
    let server = Server::start();
    let ran = server.ctl(&["--json", "audit", "show"]);
    assert_eq!(ran.code, Some(0), "{}", ran.stderr);
    let shown = ran.document();
    assert_eq!(shown["records"].as_array().map(Vec::len), Some(1200));
    assert_eq!(shown["records"][1199]["facts"]["n"], "1200");
    let ran = server.ctl(&["--json", "audit", "show", "--run", "r1"]);
    assert_eq!(ran.document()["records"].as_array().map(Vec::len), Some(0));
    let ran = server.ctl(&["audit", "show", "--since", "1h"]);
    assert!(
        ran.stdout.contains("1200 of 1200 records"),
        "{}",
        ran.stdout
    );
    assert!(
        server
            .ctl(&["audit", "key"])
            .stdout
            .starts_with("writefence/test+")
    );
}

#[test]
fn audit_verify_needs_no_daemon_and_says_what_is_wrong() {
    let state = tempfile::tempdir().unwrap();
    let dir = state.path().join("audit");
    let log = Log::open(&dir, &state.path().join("audit.key"), "writefence/x", || 0).unwrap();
    for n in 0..5 {
        log.append(Entry::new(Event::Verb, "accepted").fact("n", n));
    }
    let kept = state.path().join("kept");
    std::fs::write(&kept, log.sync().unwrap().checkpoint).unwrap();
    let key = log.verifier().to_string();
    let (dir, kept) = (dir.to_str().unwrap(), kept.to_str().unwrap());
    let verify = |extra: &[&str]| {
        let args = [&["audit", "verify", "--dir", dir, "--key", &key], extra].concat();
        let command = std::process::Command::new(env!("CARGO_BIN_EXE_writefencectl"))
            .args(args)
            .output();
        Ran::of(command.unwrap())
    };
    let whole = verify(&["--checkpoint", kept]);
    assert_eq!(whole.code, Some(0), "{}{}", whole.stdout, whole.stderr);
    assert!(
        whole
            .stdout
            .contains("5 records in 1 files: signed up to record 5: whole")
    );
    let file = std::path::Path::new(dir).join(segment_name(1));
    let text = std::fs::read_to_string(&file).unwrap();
    std::fs::write(&file, text.replacen("\"n\":\"2\"", "\"n\":\"9\"", 1)).unwrap();
    let damaged = verify(&[]);
    assert_eq!(damaged.code, Some(7));
    assert!(
        damaged.stdout.starts_with("edited: record 3 in "),
        "{}",
        damaged.stdout
    );
    let damaged = verify(&["--json"]).document();
    assert_eq!(damaged["damage"][0]["kind"], "edited");
    assert_eq!(verify(&["--key", "nonsense"]).code, Some(1));
}
