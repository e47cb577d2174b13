//! Tables: a statement, the circumstances, the decision.

use super::*;
use crate::pg::frame::put;

fn simple(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'Q', &[sql.as_bytes(), b"\0"]);
    out
}

fn extended(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'P', &[b"\0", sql.as_bytes(), b"\0\0\0"]);
    put(&mut out, b'B', &[b"\0\0\0\0\0\0\0\0"]);
    put(&mut out, b'E', &[b"\0\0\0\0\0"]);
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

#[derive(Debug, PartialEq, Eq)]
enum Short {
    Pass,
    Rewall,
    Reseal,
    Try,
    Write,
    Refuse,
    Defer,
    Show,
    Virtual,
}

fn short(decision: &Decision) -> Short {
    match decision {
        Decision::Pass(a) if a.rewall => Short::Rewall,
        Decision::Pass(a) if a.reseal => Short::Reseal,
        Decision::Pass(_) => Short::Pass,
        Decision::Try(_) => Short::Try,
        Decision::Write(_) => Short::Write,
        Decision::Refuse(_) => Short::Refuse,
        Decision::Defer => Short::Defer,
        Decision::Show(_) => Short::Show,
        Decision::Virtual(_) => Short::Virtual,
    }
}

fn check(now: Circumstances, sql: &str, expected: Short) {
    for group in [simple(sql), extended(sql)] {
        let is_simple = group.first() == Some(&b'Q');
        if !is_simple && (sql.contains(';') || expected == Short::Show) {
            continue;
        }
        let view = view(&group, &Track::default(), &Eyes::in_tests());
        let got = decide(&view, now);
        assert_eq!(short(&got), expected, "{sql} simple={is_simple}: {got:?}");
    }
}

#[test]
fn outside_a_transaction_reads_pass_and_writes_wait() {
    check(IDLE, "SELECT 1", Short::Pass);
    check(IDLE, "SELECT a FROM t WHERE b = 1", Short::Pass);
    check(IDLE, "SELECT my_function()", Short::Try);
    check(IDLE, "INSERT INTO t VALUES (1)", Short::Write);
    check(IDLE, "SELECT 1; INSERT INTO t VALUES (1)", Short::Write);
    check(IDLE, "SELECT * FROM t FOR UPDATE", Short::Write);
    check(IDLE, "this is no SQL", Short::Write);
    check(IDLE, "COPY t FROM STDIN", Short::Write);
    check(IDLE, "COPY t TO STDOUT", Short::Pass);
}

#[test]
fn a_begin_waits_under_hold_and_is_deferred_under_reject() {
    check(IDLE, "BEGIN", Short::Write);
    check(IDLE, "BEGIN READ ONLY", Short::Pass);
    check(IDLE, "START TRANSACTION READ WRITE", Short::Write);
    check(IDLE, "BEGIN; SELECT 1", Short::Write);
    check(IDLE, "BEGIN; SELECT 1; COMMIT", Short::Pass);
    check(REJECT, "BEGIN", Short::Defer);
    check(REJECT, "BEGIN READ WRITE", Short::Defer);
    check(
        Circumstances {
            begin: Begin::Defer,
            ..IDLE
        },
        "BEGIN",
        Short::Defer,
    );
    check(
        Circumstances {
            begin: Begin::Hold,
            ..REJECT
        },
        "BEGIN",
        Short::Write,
    );
}

#[test]
fn ways_out_of_wall_two_are_shut() {
    check(IDLE, "BEGIN READ WRITE; SELECT 1; COMMIT", Short::Write);
    check(
        IDLE,
        "SET transaction_read_only = off; SELECT f()",
        Short::Write,
    );
    check(
        IDLE,
        "SET default_transaction_read_only = off",
        Short::Virtual,
    );
    check(IDLE, "RESET default_transaction_read_only", Short::Virtual);
    check(
        IDLE,
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
        Short::Virtual,
    );
    check(IDLE, "RESET ALL", Short::Rewall);
    check(IDLE, "DISCARD ALL", Short::Rewall);
    check(IDLE, "RESET ALL; SELECT f()", Short::Write);
    check(IDLE, "COMMIT PREPARED 'x'", Short::Write);
    check(IDLE, "SHOW default_transaction_read_only", Short::Show);
    check(SEALED, "SET TRANSACTION READ WRITE", Short::Refuse);
    check(
        SEALED,
        "SET LOCAL transaction_read_only = off",
        Short::Refuse,
    );
    check(SEALED, "ROLLBACK TO a", Short::Reseal);
    check(SEALED, "ROLLBACK TO a; SELECT f()", Short::Refuse);
    for now in [OPEN, SEALED, FAILED] {
        check(now, "COMMIT AND CHAIN", Short::Refuse);
        check(now, "ROLLBACK AND CHAIN", Short::Refuse);
    }
}

#[test]
fn an_open_transaction_goes_on_until_it_is_sealed() {
    check(OPEN, "INSERT INTO t VALUES (1)", Short::Pass);
    check(OPEN, "COMMIT", Short::Pass);
    check(OPEN, "COMMIT; INSERT INTO t VALUES (1)", Short::Refuse);
    check(OPEN, "COMMIT; SELECT 1", Short::Pass);
    check(OPEN, "PREPARE TRANSACTION 'x'", Short::Refuse);
    check(SEALED, "INSERT INTO t VALUES (1)", Short::Refuse);
    check(SEALED, "SELECT f()", Short::Pass);
    check(SEALED, "COMMIT", Short::Pass);
    check(FAILED, "ROLLBACK", Short::Reseal);
}

#[test]
fn scope_all_holds_reads_too_but_not_inside_a_transaction() {
    check(
        Circumstances { all: true, ..IDLE },
        "SELECT 1",
        Short::Write,
    );
    check(Circumstances { all: true, ..OPEN }, "SELECT 1", Short::Pass);
}

#[test]
fn what_is_not_known_is_a_write() {
    let mut call = Vec::new();
    put(&mut call, b'F', &[&[0; 10]]);
    let seen = view(&call, &Track::default(), &Eyes::in_tests());
    assert_eq!(short(&decide(&seen, IDLE)), Short::Write);
    let mut execute = Vec::new();
    put(&mut execute, b'E', &[b"p\0\0\0\0\0"]);
    put(&mut execute, b'S', &[]);
    let seen = view(&execute, &Track::default(), &Eyes::in_tests());
    assert_eq!(short(&decide(&seen, IDLE)), Short::Write);
}

#[test]
fn a_group_ends_where_the_protocol_says() {
    let group = extended("SELECT 1");
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
