//! Tables: a statement, the circumstances, the decision; and what cutting does to bytes.

use super::*;
use crate::pg::classify::{Eyes, Reading};
use crate::pg::frame::put;
use crate::pg::track::{Prepared, Track};

fn simple(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'Q', &[sql.as_bytes(), b"\0"]);
    out
}

fn pipeline(statements: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for sql in statements {
        put(&mut out, b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"]);
        put(&mut out, b'B', &[b"\0\0\0\0\0\0\0\0"]);
        put(&mut out, b'E', &[b"\0\0\0\0\0"]);
    }
    put(&mut out, b'S', &[]);
    out
}

const IDLE: Circumstances = Circumstances {
    tx: Tx::Idle,
    sealed: false,
    answer: Answer::Hold,
    begin: Begin::Auto,
    all: false,
};
const REJECT: Circumstances = Circumstances {
    answer: Answer::Reject,
    ..IDLE
};
const OPEN: Circumstances = Circumstances {
    tx: Tx::Open,
    ..IDLE
};
const SEALED: Circumstances = Circumstances {
    tx: Tx::Open,
    sealed: true,
    ..IDLE
};
const FAILED: Circumstances = Circumstances {
    tx: Tx::Failed,
    ..IDLE
};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Short {
    Pass,
    Doubt,
    Wrap,
    Rewall,
    Reseal,
    Sealed,
    Chained,
    Cut(usize),
    Plant(usize),
    Write,
    Refuse,
    Defer,
    Show,
    Accept,
}

fn short(decision: &Decision) -> Short {
    match decision {
        Decision::Send(_, a) if a.rewall => Short::Rewall,
        Decision::Send(_, a) if a.reseal => Short::Reseal,
        Decision::Send(_, a) if a.sealed => Short::Sealed,
        Decision::Send(_, a) if a.chained => Short::Chained,
        Decision::Send(Manner::Plain, _) => Short::Pass,
        Decision::Send(Manner::Doubt, _) => Short::Doubt,
        Decision::Send(Manner::Wrapped, _) => Short::Wrap,
        Decision::Cut(n) => Short::Cut(*n),
        Decision::Plant(n, _) => Short::Plant(*n),
        Decision::Write(_) => Short::Write,
        Decision::Refuse(_) => Short::Refuse,
        Decision::Defer => Short::Defer,
        Decision::Show(_) => Short::Show,
        Decision::Accept(_) => Short::Accept,
    }
}

fn seen(group: &[u8], track: &Track) -> View {
    view(group, track, &Eyes::in_tests())
}

/// The same decision for a Query and for a pipeline of its statements.
fn check(now: Circumstances, sql: &str, expected: Short) {
    let pieces: Vec<&str> = sql.split(';').collect();
    for group in [simple(sql), pipeline(&pieces)] {
        let view = seen(&group, &Track::default());
        let got = decide(&view, now);
        assert_eq!(
            short(&got),
            expected,
            "{sql} simple={}: {got:?}",
            view.simple
        );
    }
}

#[test]
fn outside_a_transaction_reads_pass_and_writes_wait() {
    check(IDLE, "SELECT 1", Short::Pass);
    check(IDLE, "SELECT a FROM t WHERE b = 1", Short::Pass);
    check(IDLE, "SELECT my_function()", Short::Doubt);
    check(IDLE, "INSERT INTO t VALUES (1)", Short::Write);
    check(IDLE, "SELECT 1; INSERT INTO t VALUES (1)", Short::Write);
    check(IDLE, "SELECT * FROM t FOR UPDATE", Short::Write);
    check(IDLE, "this is no SQL", Short::Write);
    check(IDLE, "COPY t FROM STDIN", Short::Write);
    check(IDLE, "COPY t TO STDOUT", Short::Pass);
}

#[test]
fn what_stands_before_a_refused_write_is_answered() {
    check(REJECT, "INSERT INTO t VALUES (1); SELECT 1", Short::Write);
    check(
        REJECT,
        "SELECT 1; INSERT INTO t VALUES (1); SELECT 2",
        Short::Plant(1),
    );
    check(
        REJECT,
        "SELECT 1; SELECT my_function(); DELETE FROM t",
        Short::Plant(2),
    );
    check(
        SEALED,
        "SELECT 1; INSERT INTO t VALUES (1)",
        Short::Plant(1),
    );
}

#[test]
fn a_begin_waits_under_hold_and_is_deferred_under_reject() {
    check(IDLE, "BEGIN", Short::Write);
    check(IDLE, "BEGIN READ ONLY", Short::Sealed);
    check(IDLE, "START TRANSACTION READ WRITE", Short::Write);
    check(IDLE, "BEGIN; SELECT 1", Short::Write);
    check(IDLE, "BEGIN; SELECT 1; COMMIT", Short::Pass);
    check(IDLE, "BEGIN; SELECT my_function(); COMMIT", Short::Write);
    check(IDLE, "BEGIN READ WRITE; SELECT 1; COMMIT", Short::Write);
    check(REJECT, "BEGIN", Short::Defer);
    check(REJECT, "BEGIN READ WRITE", Short::Defer);
    check(
        REJECT,
        "BEGIN; INSERT INTO t VALUES (1); COMMIT",
        Short::Cut(1),
    );
    check(REJECT, "SELECT 1; BEGIN; SELECT 2", Short::Cut(1));
    check(REJECT, "BEGIN READ ONLY; SELECT 1; COMMIT", Short::Cut(1));
    let now = Circumstances {
        begin: Begin::Defer,
        ..IDLE
    };
    check(now, "BEGIN", Short::Defer);
    let now = Circumstances {
        begin: Begin::Hold,
        ..REJECT
    };
    check(now, "BEGIN", Short::Write);
}

#[test]
fn nothing_runs_between_the_lowering_and_the_raising_of_wall_two() {
    for sql in [
        "SET default_transaction_read_only = off",
        "RESET default_transaction_read_only",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        "RESET ALL",
        "DISCARD ALL",
    ] {
        for now in [IDLE, REJECT, OPEN, SEALED] {
            check(now, sql, Short::Rewall);
            let more = format!("{sql}; SELECT my_function()");
            if sql == "DISCARD ALL" {
                // PostgreSQL refuses it in a Query of several statements.
                let view = seen(&pipeline(&[sql, "SELECT 1"]), &Track::default());
                assert_eq!(short(&decide(&view, now)), Short::Cut(1));
                let view = seen(&simple(&more), &Track::default());
                assert!(matches!(decide(&view, now), Decision::Send(..)));
            } else {
                check(now, &more, Short::Cut(1));
            }
        }
    }
    // A function may have lowered it; the end of the implicit transaction begins another.
    for end in ["COMMIT", "ROLLBACK", "COMMIT AND CHAIN"] {
        check(
            REJECT,
            &format!("SELECT f(); {end}; SELECT g()"),
            Short::Cut(2),
        );
    }
}

#[test]
fn read_write_is_accepted_without_effect() {
    for now in [IDLE, REJECT, SEALED] {
        check(now, "SET TRANSACTION READ WRITE", Short::Accept);
        check(now, "set  transaction\n read write", Short::Accept);
        check(now, "SET LOCAL transaction_read_only = off", Short::Accept);
        check(now, "SET transaction_read_only TO DEFAULT", Short::Accept);
        check(now, "RESET transaction_read_only", Short::Accept);
        check(now, "SET TRANSACTION READ WRITE; SELECT 1", Short::Cut(1));
        check(now, "SELECT 1; SET TRANSACTION READ WRITE", Short::Cut(1));
        check(now, "SET TRANSACTION READ ONLY", Short::Pass);
    }
    check(SEALED, "BEGIN READ WRITE", Short::Accept);
    let both = "SET TRANSACTION ISOLATION LEVEL SERIALIZABLE, READ WRITE";
    check(SEALED, both, Short::Refuse);
    check(OPEN, both, Short::Pass);
    check(FAILED, "SET TRANSACTION READ WRITE", Short::Pass);
    for now in [IDLE, REJECT, OPEN, SEALED] {
        check(now, "SHOW default_transaction_read_only", Short::Show);
    }
    check(IDLE, "SHOW transaction_read_only", Short::Show);
    check(SEALED, "SHOW transaction_read_only", Short::Pass);
}

#[test]
fn procedures_are_wrapped_outside_and_run_inside_a_transaction() {
    for sql in ["DO $$ BEGIN NULL, END $$", "CALL p(1)"] {
        for now in [IDLE, REJECT] {
            check(now, sql, Short::Wrap);
            check(now, &format!("SELECT 1; {sql}; SELECT 2"), Short::Wrap);
            check(now, &format!("{sql}; COMMIT; SELECT 1"), Short::Cut(1));
            check(now, &format!("{sql}; RESET ALL"), Short::Cut(1));
        }
        for now in [OPEN, SEALED, FAILED] {
            check(now, sql, Short::Pass);
        }
    }
    check(
        REJECT,
        "DO $$ BEGIN PERFORM pg_notify('a', 'b'), END $$",
        Short::Write,
    );
}

#[test]
fn what_would_be_done_twice_is_held_at_once() {
    for sql in [
        "SELECT pg_advisory_lock(1), f()",
        "PREPARE p AS SELECT 1; SELECT f()",
        "DEALLOCATE p; CALL p()",
        "FETCH c; SELECT f()",
    ] {
        check(IDLE, sql, Short::Write);
    }
    check(IDLE, "FETCH c", Short::Doubt);
    check(IDLE, "PREPARE p AS SELECT 1; SELECT 1", Short::Pass);
}

#[test]
fn an_open_transaction_goes_on_until_it_is_sealed() {
    check(OPEN, "INSERT INTO t VALUES (1)", Short::Pass);
    check(OPEN, "COMMIT", Short::Pass);
    check(OPEN, "PREPARE TRANSACTION 'x'", Short::Refuse);
    check(SEALED, "INSERT INTO t VALUES (1)", Short::Write);
    check(SEALED, "SELECT f()", Short::Pass);
    check(SEALED, "COMMIT", Short::Pass);
    check(SEALED, "ROLLBACK TO a", Short::Reseal);
    check(
        SEALED,
        "ROLLBACK TO a; INSERT INTO t VALUES (1)",
        Short::Cut(1),
    );
    check(FAILED, "ROLLBACK", Short::Pass);
    check(FAILED, "ROLLBACK TO a; SELECT f()", Short::Cut(1));
}

#[test]
fn what_stands_behind_the_end_of_a_transaction_is_looked_at_again() {
    for now in [OPEN, SEALED, FAILED] {
        for end in ["COMMIT", "ROLLBACK"] {
            check(
                now,
                &format!("{end}; INSERT INTO t VALUES (1)"),
                Short::Cut(1),
            );
            check(now, &format!("{end} AND CHAIN"), Short::Chained);
            check(now, &format!("{end} AND CHAIN; SELECT 1"), Short::Cut(1));
        }
    }
}

#[test]
fn scope_all_holds_reads_too_but_not_inside_a_transaction() {
    let all = |now| Circumstances { all: true, ..now };
    for sql in [
        "SELECT 1",
        "BEGIN",
        "SHOW default_transaction_read_only",
        "SET a.b = 1",
    ] {
        check(all(IDLE), sql, Short::Write);
        check(all(REJECT), sql, Short::Write);
    }
    check(all(OPEN), "SELECT 1", Short::Pass);
    check(all(OPEN), "COMMIT", Short::Pass);
    check(all(OPEN), "COMMIT; SELECT 1", Short::Cut(1));
}

#[test]
fn what_is_not_known_is_a_write() {
    let mut call = Vec::new();
    put(&mut call, b'F', &[&[0; 10]]);
    let view = seen(&call, &Track::default());
    assert_eq!(short(&decide(&view, IDLE)), Short::Write);
    let mut execute = Vec::new();
    put(&mut execute, b'E', &[b"p\0\0\0\0\0"]);
    put(&mut execute, b'S', &[]);
    let view = seen(&execute, &Track::default());
    assert_eq!(short(&decide(&view, IDLE)), Short::Write);
}

/// A track that has run this Query.
fn after(sql: &str, tags: &[&str], status: u8) -> Track {
    let mut track = Track::default();
    track.query(Some(sql.as_bytes()));
    for tag in tags {
        track.completed(tag.as_bytes());
    }
    track.ready(status, &Eyes::in_tests());
    track
}

#[test]
fn an_execute_is_what_was_prepared() {
    let run = |track: &Track, sql: &str| short(&decide(&seen(&simple(sql), track), REJECT));
    let track = after("PREPARE p AS SELECT lo_create(0)", &["PREPARE"], b'I');
    assert_eq!(run(&track, "EXECUTE p"), Short::Write);
    assert_eq!(run(&track, "EXECUTE q"), Short::Doubt);
    let here = "PREPARE p AS SELECT pg_notify('a', 'b'); EXECUTE p";
    assert_eq!(run(&Track::default(), here), Short::Plant(1));
    // By the protocol anything can be prepared, also what leads around the fence.
    for (sql, expected) in [
        ("BEGIN READ WRITE", Short::Write),
        ("SET transaction_read_only = off", Short::Write),
        ("CALL p()", Short::Write),
        ("INSERT INTO t VALUES (1)", Short::Write),
        ("SELECT f()", Short::Doubt),
    ] {
        let mut frame = Vec::new();
        put(&mut frame, b'P', &[b"p\0", sql.as_bytes(), b"\0\0\0"]);
        let mut track = Track::default();
        track.parse(b"p", Prepared::new(&frame, Reading::default()));
        assert_eq!(run(&track, "EXECUTE p"), expected, "{sql}");
    }
}

#[test]
fn a_fetch_is_what_its_cursor_does() {
    let run = |track: &Track| short(&decide(&seen(&simple("FETCH c"), track), SEALED));
    let sql = "BEGIN; DECLARE c CURSOR FOR SELECT lo_create(0)";
    let track = after(sql, &["BEGIN", "DECLARE CURSOR"], b'T');
    assert_eq!(run(&track), Short::Write);
    let sql = "BEGIN; DECLARE c CURSOR FOR SELECT 1";
    let track = after(sql, &["BEGIN", "DECLARE CURSOR"], b'T');
    assert_eq!(run(&track), Short::Pass);
}

#[test]
fn a_group_ends_where_the_protocol_says() {
    let group = pipeline(&["SELECT 1"]);
    let whole = Extent::Whole {
        len: group.len(),
        terminator: b'S',
    };
    assert_eq!(extent(&group), Ok(whole));
    for cut in 0..group.len() {
        assert_eq!(extent(&group[..cut]), Ok(Extent::More), "cut at {cut}");
    }
    let mut large = vec![b'Q'];
    large.extend_from_slice(&(300_000u32).to_be_bytes());
    assert_eq!(extent(&large), Ok(Extent::Over));
}

#[test]
fn a_cut_makes_two_groups_and_can_be_undone() {
    let track = Track::default();
    let group = simple("SELECT 1; -- the end\n COMMIT ;SELECT ';' -- more\n");
    let view = seen(&group, &track);
    let parts = cut(&group, &view, 2, false).expect("cut");
    let both = [
        simple("SELECT 1; -- the end\n COMMIT "),
        simple("SELECT ';' -- more\n"),
    ]
    .concat();
    assert_eq!(
        String::from_utf8_lossy(&parts),
        String::from_utf8_lossy(&both)
    );
    let behind = simple("SELECT 9");
    let whole = rejoin(&[parts, behind.clone()].concat());
    let again = [
        simple("SELECT 1; -- the end\n COMMIT ;SELECT ';' -- more\n"),
        behind.clone(),
    ];
    assert_eq!(
        String::from_utf8_lossy(&whole),
        String::from_utf8_lossy(&again.concat())
    );

    let group = pipeline(&["SELECT 1", "COMMIT", "SELECT 2"]);
    let view = seen(&group, &track);
    let parts = cut(&group, &view, 2, false).expect("cut");
    let both = [pipeline(&["SELECT 1", "COMMIT"]), pipeline(&["SELECT 2"])].concat();
    assert_eq!(parts, both);
    assert_eq!(
        rejoin(&[parts, behind.clone()].concat()),
        [group, behind].concat()
    );
}

#[test]
fn a_portal_that_would_not_outlive_the_cut_forbids_it() {
    let mut group = Vec::new();
    for (portal, sql) in [(b"a\0", "COMMIT"), (b"b\0", "SELECT 2")] {
        put(&mut group, b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"]);
        put(&mut group, b'B', &[portal, b"\0\0\0\0\0\0\0"]);
    }
    put(&mut group, b'E', &[b"a\0\0\0\0\0"]);
    put(&mut group, b'E', &[b"b\0\0\0\0\0"]);
    put(&mut group, b'S', &[]);
    let view = seen(&group, &Track::default());
    assert!(cut(&group, &view, 1, false).is_none());
    assert!(
        cut(&group, &view, 1, true).is_some(),
        "in a block it lives on"
    );
}

#[test]
fn a_refusal_is_planted_where_the_write_stood() {
    let track = Track::default();
    let group = simple("SELECT 1; /* a */ INSERT INTO t VALUES (1); SELECT 2");
    let planted = plant(&group, &seen(&group, &track), 1).expect("plant");
    let fail = format!("SELECT 1; /* a */ SET \"{REFUSED}\" TO 1");
    assert_eq!(
        String::from_utf8_lossy(&planted),
        String::from_utf8_lossy(&simple(&fail))
    );

    let group = pipeline(&["SELECT 1", "INSERT INTO t VALUES (1)", "SELECT 2"]);
    let planted = plant(&group, &seen(&group, &track), 1).expect("plant");
    let view = seen(&planted, &track);
    assert!(
        view.opaque.is_some(),
        "an Execute of a portal that nobody has bound"
    );
    assert_eq!(view.steps.len(), 1);
    assert!(planted.ends_with(b"S\0\0\0\x04"));
}

#[test]
fn a_parse_goes_to_the_server_though_its_statement_is_answered_here() {
    let group = pipeline(&["BEGIN"]);
    let at = apart(&group).expect("a Parse in front");
    assert_eq!(group[at], b'B');
    let rest = &cut_at(&group, at)[at + 5..];
    assert_eq!(rest[0], b'B');
    assert_eq!(apart(rest), None);
    assert_eq!(apart(&simple("BEGIN")), None);
    let mut more = rest[..rest.len() - 5].to_vec();
    more.extend_from_slice(&pipeline(&["SELECT 1"]));
    assert_eq!(apart(&more), Some(rest.len() - 5));
}
