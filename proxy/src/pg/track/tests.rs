//! Scripts of messages and answers: what is in flight, what is settled, what must be replayed.

use super::*;
use crate::pg::frame::put;

fn parse_frame(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(
        &mut out,
        b'P',
        &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"],
    );
    out
}

fn parse(track: &mut Track, name: &str, sql: &str) {
    track.parse(
        name.as_bytes(),
        Prepared::new(&parse_frame(name, sql), Reading::default()),
    );
}

fn run(track: &mut Track, sql: &str, tags: &[&str], status: u8) {
    track.query(Some(sql.as_bytes()));
    for tag in tags {
        track.completed(tag.as_bytes());
    }
    track.ready(status, &Eyes::in_tests());
}

fn replayed(track: &Track) -> Vec<&str> {
    track.sets.replay().collect()
}

#[test]
fn a_group_is_in_flight_until_its_own_ready_for_query() {
    let mut track = Track::default();
    track.query(Some(b"SELECT 1"));
    track.query(Some(b"SELECT 2"));
    track.ready(b'I', &Eyes::in_tests());
    assert!(!track.answered());
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.quiescent());
}

#[test]
fn an_extended_run_without_sync_is_in_flight() {
    let mut track = Track::default();
    parse(&mut track, "", "INSERT INTO t VALUES (1)");
    track.bind(b"", b"");
    track.execute(b"");
    assert!(track.unsynced() && track.synced() && !track.answered());
    assert!(!track.only_reads(&Eyes::in_tests()));
    track.sync();
    assert!(!track.synced() && !track.unsynced());
}

#[test]
fn a_prepared_statement_exists_once_its_parse_is_answered() {
    let mut track = Track::default();
    parse(&mut track, "a", "SELECT 1");
    parse(&mut track, "b", "SELECT 2");
    track.sync();
    assert!(
        track.find(b"b").is_some(),
        "a Bind in the same pipeline finds it"
    );
    track.parsed();
    track.failed();
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.find(b"a").is_some() && track.find(b"b").is_none());
}

#[test]
fn a_simple_query_destroys_the_unnamed_statement() {
    let mut track = Track::default();
    parse(&mut track, "", "SELECT 1");
    track.sync();
    track.parsed();
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.statements.unnamed().is_some());
    run(&mut track, "SELECT 1", &["SELECT 1"], b'I');
    assert!(track.statements.unnamed().is_none());
}

#[test]
fn an_execute_of_an_unknown_portal_is_no_read() {
    let mut track = Track::default();
    track.execute(b"nobody knows");
    assert!(!track.only_reads(&Eyes::in_tests()));
}

#[test]
fn syncs_that_the_server_ignores_during_copy_are_not_waited_for() {
    // libpq sends Parse Bind Execute Sync for COPY FROM STDIN, and another Sync after CopyDone.
    let mut track = Track::default();
    parse(&mut track, "", "COPY t FROM STDIN");
    track.bind(b"", b"");
    track.execute(b"");
    track.sync();
    track.copy_in();
    assert!(
        track.copy_in && track.unsynced(),
        "its own Sync was ignored"
    );
    track.copy_end();
    track.completed(b"COPY 1");
    track.sync();
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.quiescent());
}

#[test]
fn copy_done_may_be_sent_before_the_server_asks() {
    let mut track = Track::default();
    track.query(Some(b"COPY t FROM STDIN"));
    track.copy_end();
    track.copy_in();
    assert!(!track.copy_in, "its end is on the way already");
    track.completed(b"COPY 1");
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.quiescent());
}

#[test]
fn settings_take_effect_with_their_transaction() {
    let mut track = Track::default();
    run(&mut track, "SET work_mem = '1MB'", &["SET"], b'I');
    run(&mut track, "BEGIN", &["BEGIN"], b'T');
    run(&mut track, "SET search_path = a", &["SET"], b'T');
    assert_eq!(replayed(&track), ["SET work_mem = '1MB'"]);
    run(&mut track, "ROLLBACK", &["ROLLBACK"], b'I');
    assert_eq!(replayed(&track), ["SET work_mem = '1MB'"]);
    run(
        &mut track,
        "BEGIN; SET search_path = b; COMMIT",
        &["BEGIN", "SET", "COMMIT"],
        b'I',
    );
    assert_eq!(
        replayed(&track),
        ["SET work_mem = '1MB'", "SET search_path = b"]
    );
}

#[test]
fn only_statements_that_completed_count() {
    let mut track = Track::default();
    track.query(Some(b"SET work_mem = '1MB'; SET nonsense = 1"));
    track.completed(b"SET");
    track.failed();
    track.ready(b'I', &Eyes::in_tests());
    // Both were one implicit transaction, which the failure undid.
    assert!(replayed(&track).is_empty());
}

#[test]
fn set_local_is_not_replayed_and_reset_takes_back() {
    let mut track = Track::default();
    run(
        &mut track,
        "BEGIN; SET LOCAL work_mem = '2MB'; COMMIT",
        &["BEGIN", "SET", "COMMIT"],
        b'I',
    );
    assert!(replayed(&track).is_empty());
    run(
        &mut track,
        "SET work_mem = '1MB'; SET ROLE app",
        &["SET", "SET"],
        b'I',
    );
    run(&mut track, "RESET ALL", &["RESET"], b'I');
    assert_eq!(replayed(&track), ["SET ROLE app"]);
    run(&mut track, "DISCARD ALL", &["DISCARD ALL"], b'I');
    assert!(replayed(&track).is_empty());
}

#[test]
fn listen_is_repeated_until_unlistened() {
    let mut track = Track::default();
    run(
        &mut track,
        "LISTEN a; LISTEN b",
        &["LISTEN", "LISTEN"],
        b'I',
    );
    assert_eq!(track.sets.listens, ["a", "b"]);
    run(&mut track, "UNLISTEN a", &["UNLISTEN"], b'I');
    assert_eq!(track.sets.listens, ["b"]);
    run(&mut track, "UNLISTEN *", &["UNLISTEN"], b'I');
    assert!(track.sets.listens.is_empty());
}

#[test]
fn what_cannot_be_replayed_pins_the_session_with_a_reason() {
    let mut track = Track::default();
    run(
        &mut track,
        "CREATE TEMP TABLE t (a int)",
        &["CREATE TABLE"],
        b'I',
    );
    assert!(track.sets.pins().any(|p| p.kind == "temporary_object"));
    let mut track = Track::default();
    let sql = "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT";
    run(
        &mut track,
        sql,
        &["BEGIN", "DECLARE CURSOR", "COMMIT"],
        b'I',
    );
    assert!(track.sets.pins().any(|p| p.kind == "held_cursor"));
}

#[test]
fn a_statement_prepared_in_sql_is_known_by_its_text() {
    let mut track = Track::default();
    run(&mut track, "PREPARE p AS SELECT 1", &["PREPARE"], b'I');
    assert_eq!(
        track.statements.sql.get("p").map(String::as_str),
        Some("PREPARE p AS SELECT 1")
    );
    run(&mut track, "DEALLOCATE p", &["DEALLOCATE"], b'I');
    assert!(track.statements.sql.is_empty());
}

#[test]
fn a_lost_server_leaves_nothing_in_flight() {
    let mut track = Track::default();
    track.query(Some(b"SELECT 1"));
    parse(&mut track, "", "SELECT 1");
    track.server_lost();
    assert!(track.answered());
}

#[test]
fn the_commit_of_a_failed_transaction_takes_its_settings_back() {
    let mut track = Track::default();
    run(&mut track, "BEGIN", &["BEGIN"], b'T');
    run(&mut track, "SET work_mem = '1MB'", &["SET"], b'T');
    track.query(Some(b"SELECT 1/0"));
    track.failed();
    track.ready(b'E', &Eyes::in_tests());
    run(&mut track, "COMMIT", &["ROLLBACK"], b'I');
    assert!(replayed(&track).is_empty());
}

#[test]
fn settings_of_a_prepared_transaction_stay() {
    let mut track = Track::default();
    run(&mut track, "BEGIN", &["BEGIN"], b'T');
    run(&mut track, "SET work_mem = '1MB'", &["SET"], b'T');
    let sql = "PREPARE TRANSACTION 'x'";
    run(&mut track, sql, &["PREPARE TRANSACTION"], b'I');
    assert_eq!(replayed(&track), ["SET work_mem = '1MB'"]);
}

#[test]
fn going_back_to_a_savepoint_leaves_a_doubt_that_only_the_server_settles() {
    let mut track = Track::default();
    run(&mut track, "BEGIN", &["BEGIN"], b'T');
    run(&mut track, "SET work_mem = '1MB'", &["SET"], b'T');
    run(&mut track, "ROLLBACK TO s", &["ROLLBACK"], b'T');
    run(&mut track, "COMMIT", &["COMMIT"], b'I');
    assert!(track.sets.pins().any(|p| p.kind == "savepoint"));
    assert!(!track.known());
    let asked = Asked {
        walled: false,
        login: "app",
    };
    track.adopt(Inventory::default(), asked, &Eyes::in_tests());
    assert!(track.known() && track.sets.pins().count() == 0);
    assert!(
        replayed(&track).is_empty(),
        "the server has no such setting"
    );
}

#[test]
fn set_config_alone_in_a_select_is_a_set() {
    let mut track = Track::default();
    let sql = "SELECT set_config('app.user', '7', false)";
    run(&mut track, sql, &["SELECT 1"], b'I');
    assert_eq!(replayed(&track), [set_config("app.user", "7")]);
    run(&mut track, "BEGIN", &["BEGIN"], b'T');
    let sql = "SELECT set_config('app.user', '8', false)";
    run(&mut track, sql, &["SELECT 1"], b'T');
    run(&mut track, "ROLLBACK", &["ROLLBACK"], b'I');
    assert_eq!(replayed(&track), [set_config("app.user", "7")]);
}

#[test]
fn set_config_for_one_transaction_is_nothing() {
    let mut track = Track::default();
    let sql = "SELECT set_config('app.user', '7', true)";
    run(&mut track, sql, &["SELECT 1"], b'I');
    assert!(replayed(&track).is_empty() && !track.sets.unsure());
}

#[test]
fn set_config_with_a_value_that_is_not_known_has_to_be_asked() {
    for sql in [
        "SELECT set_config('app.user', $1, false)",
        "SELECT 1; SELECT set_config('app.user', '7', false)",
    ] {
        let mut track = Track::default();
        parse(&mut track, "", sql);
        track.bind(b"", b"");
        track.execute(b"");
        track.sync();
        track.parsed();
        for _ in 0..sql.matches("SELECT").count() {
            track.completed(b"SELECT 1");
        }
        track.ready(b'I', &Eyes::in_tests());
        assert!(track.sets.unsure(), "{sql}");
        assert_eq!(track.sets.custom_names().collect::<Vec<_>>(), ["app.user"]);
    }
}

#[test]
fn set_config_of_a_parameter_that_is_not_named_pins_the_session() {
    let mut track = Track::default();
    let sql = "SELECT set_config($1, $2, false)";
    run(&mut track, sql, &["SELECT 1"], b'I');
    assert!(track.sets.pins().any(|p| p.kind == "custom_parameter"));
    run(&mut track, "RESET ALL", &["RESET"], b'I');
    assert_eq!(track.sets.pins().count(), 0);
}

#[test]
fn what_nothing_was_run_since_is_not_asked_again() {
    let mut track = Track::default();
    assert!(track.known(), "a new session has nothing");
    run(&mut track, "SELECT 1", &["SELECT 1"], b'I');
    assert!(!track.known());
    let asked = Asked {
        walled: false,
        login: "app",
    };
    track.adopt(Inventory::default(), asked, &Eyes::in_tests());
    track.watched = true;
    run(&mut track, "SELECT a FROM t", &["SELECT 1"], b'I');
    run(
        &mut track,
        "INSERT INTO t VALUES (1)",
        &["INSERT 0 1"],
        b'I',
    );
    assert!(track.known());
    run(&mut track, "SELECT somebody_elses()", &["SELECT 1"], b'I');
    assert!(!track.known());
}

#[test]
fn a_sync_into_a_copy_counts_only_if_the_copy_had_failed() {
    let eyes = Eyes::in_tests();
    let copying = || {
        let mut track = Track::default();
        track.query(Some(b"COPY t FROM STDIN"));
        track.copy_in();
        track.sync();
        track
    };
    // It ended well, so the Sync was ignored.
    let mut track = copying();
    track.copy_end();
    track.completed(b"COPY 1");
    track.ready(b'I', &eyes);
    assert!(track.quiescent());
    // It failed, and then the Sync was answered.
    let mut track = copying();
    track.failed();
    track.ready(b'I', &eyes);
    track.query(Some(b"DELETE FROM t"));
    track.ready(b'I', &eyes);
    assert!(!track.answered(), "that was the Sync's");
    track.ready(b'I', &eyes);
    assert!(track.quiescent());
    // It failed later than the Sync, which the next statement's answer shows.
    let mut track = copying();
    track.failed();
    track.ready(b'I', &eyes);
    track.query(Some(b"DELETE FROM t"));
    track.completed(b"DELETE 1");
    track.ready(b'I', &eyes);
    assert!(track.quiescent());
}

#[test]
fn the_end_of_a_copy_that_nobody_asked_for_is_not_waited_for() {
    let mut track = Track::default();
    track.copy_end();
    assert!(track.quiescent());
    track.query(Some(b"SELECT 1"));
    track.copy_end();
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.quiescent());
}

#[test]
fn a_portal_whose_name_cannot_be_read_is_no_read() {
    let eyes = Eyes::in_tests();
    let mut track = Track::default();
    parse(&mut track, "", "SELECT 1");
    // A Bind and an Execute that name a portal longer than what is looked at.
    track.sent(b'B', b"B\0\0\xff\xffpppppp", false);
    track.sent(b'E', b"E\0\0\xff\xffpppppp", false);
    assert!(!track.only_reads(&eyes));
}

/// The planner calls what claims to be immutable at Bind.
#[test]
fn a_portal_that_is_bound_and_not_executed_is_looked_at() {
    let eyes = Eyes::in_tests();
    let in_flight = |sql: &str, executed: bool| {
        let mut track = Track::default();
        parse(&mut track, "", sql);
        track.bind(b"", b"");
        if executed {
            track.execute(b"");
        }
        track.sync();
        track.only_reads(&eyes)
    };
    for executed in [false, true] {
        assert!(in_flight("SELECT 1", executed));
        assert!(!in_flight("SELECT folded('x')", executed));
    }
}

#[test]
fn names_are_what_the_server_looks_at_of_them() {
    let eyes = Eyes::in_tests();
    let long = |end: &str| "n".repeat(63) + end;
    let mut track = Track::default();
    track.sent(b'P', &parse_frame(&long("a"), "DELETE FROM t"), true);
    let bind = |statement: &str| {
        let mut out = Vec::new();
        put(
            &mut out,
            b'B',
            &[b"\0", statement.as_bytes(), b"\0\0\0\0\0\0\0"],
        );
        out
    };
    track.sent(b'B', &bind(&long("b")), true);
    track.sent(b'E', b"E\0\0\0\x09\0\0\0\0\0", true);
    let group = track.in_flight().next().expect("it is in flight");
    assert_eq!(group.words(), b"DELETE FROM t");
    assert!(!track.only_reads(&eyes));
}

#[test]
fn a_pipeline_of_one_statement_takes_no_room_for_each_of_its_rows() {
    let mut track = Track::default();
    parse(&mut track, "insertion", "INSERT INTO t VALUES ($1)");
    // Looking through what is in flight at each Bind would take minutes here.
    for _ in 0..1_000_000 {
        track.bind(b"", b"insertion");
        track.execute(b"");
    }
    let run = track.open_run().expect("no Sync was sent");
    assert_eq!((run.items.len(), run.executes()), (3, 1_000_000));
    track.parsed();
    for n in 0..1_000_000 {
        assert!(!track.caught_up(), "{n} are answered");
        track.completed(b"INSERT 0 1");
    }
    assert!(track.caught_up());
    track.sync();
    track.ready(b'I', &Eyes::in_tests());
    assert!(track.quiescent() && track.find(b"insertion").is_some());
}

#[test]
fn the_statement_of_a_bind_is_that_of_the_last_parse_before_it() {
    let mut track = Track::default();
    let text = |track: &Track, name: &[u8]| {
        let found = track.find(name).expect("parsed");
        String::from_utf8_lossy(found.text()).into_owned()
    };
    for name in ["", "s"] {
        parse(&mut track, name, "SELECT 1");
        track.sync();
        parse(&mut track, name, "SELECT 2");
        track.sync();
        assert_eq!(text(&track, name.as_bytes()), "SELECT 2");
        track.parsed();
        track.ready(b'I', &Eyes::in_tests());
        assert_eq!(
            text(&track, name.as_bytes()),
            "SELECT 2",
            "its own is in flight"
        );
        track.failed();
        track.ready(b'I', &Eyes::in_tests());
        assert_eq!(
            text(&track, name.as_bytes()),
            "SELECT 1",
            "the second one failed"
        );
    }
}

#[test]
fn a_setting_behind_repeated_statements_that_failed_is_not_learned() {
    let mut track = Track::default();
    parse(&mut track, "begin", "BEGIN");
    parse(&mut track, "one", "SELECT 1");
    parse(&mut track, "set", "SET work_mem = '1MB'");
    for (statement, times) in [("begin", 1), ("one", 3), ("set", 1)] {
        for _ in 0..times {
            track.bind(b"", statement.as_bytes());
            track.execute(b"");
        }
    }
    track.sync();
    for tag in ["BEGIN", "SELECT 1", "SELECT 1"] {
        track.completed(tag.as_bytes());
    }
    track.failed();
    track.ready(b'E', &Eyes::in_tests());
    run(&mut track, "COMMIT", &["ROLLBACK"], b'I');
    assert_eq!(replayed(&track), Vec::<&str>::new());
}

#[test]
fn a_client_that_floods_the_session_is_stopped_and_goes_on_later() {
    let mut track = Track::default();
    track.query(Some(b"SELECT pg_sleep(1)"));
    // Of several in a row only the first can end a COPY.
    for _ in 0..OUTSTANDING {
        track.copy_end();
    }
    let mut sent = 2;
    while !track.is_full() {
        track.sync();
        sent += 1;
    }
    assert_eq!(sent, OUTSTANDING);
    while !track.answered() {
        track.ready(b'I', &Eyes::in_tests());
        assert!(!track.is_full());
    }
}

#[test]
fn what_relies_on_a_parse_that_may_yet_fail_is_no_read() {
    let eyes = Eyes::in_tests();
    for name in ["", "s"] {
        let mut track = Track::default();
        parse(&mut track, name, "SELECT 1");
        track.bind(b"", name.as_bytes());
        track.execute(b"");
        assert!(track.only_reads(&eyes), "skipped with its Parse");
        track.sync();
        track.bind(b"", name.as_bytes());
        track.execute(b"");
        track.sync();
        assert!(!track.only_reads(&eyes));
        track.failed();
        track.ready(b'I', &eyes);
        assert!(!track.only_reads(&eyes), "an older one of the name is run");
        // It set something that nobody knows.
        track.completed(b"SET");
        track.ready(b'I', &eyes);
        assert!(track.sets.pins().any(|pin| pin.kind == "custom_parameter"));
    }
}

#[test]
fn a_portal_that_was_closed_takes_no_room_and_is_no_read() {
    let mut track = Track::default();
    parse(&mut track, "", "SELECT 1");
    track.bind(b"p", b"");
    track.close(b'P', b"p");
    assert!(track.statements.bound(b"p").is_none());
}

#[test]
fn a_run_that_never_ends_is_stopped_and_rows_of_one_statement_are_not() {
    let mut track = Track::default();
    parse(&mut track, "", "INSERT INTO t VALUES ($1)");
    for _ in 0..LONGEST / 10 {
        track.bind(b"", b"");
        track.execute(b"");
    }
    assert!(!track.is_overlong());
    let text = "x".repeat(32 * 1024);
    for _ in 0..LONGEST / text.len() {
        parse(&mut track, "", &text);
    }
    assert!(track.is_overlong());
    track.sync();
    assert!(!track.is_overlong());
}

fn run_before_query(track: &mut Track, sql: &str, tag: &str) {
    parse(track, "kept", sql);
    track.bind(b"", b"kept");
    track.execute(b"");
    track.ask_for_run();
    track.parsed();
    track.completed(tag.as_bytes());
    assert!(track.is_probe_answered() && track.run_is_well());
}

#[test]
fn a_query_ends_a_run_without_a_sync_and_both_are_answered_at_once() {
    let mut track = Track::default();
    run_before_query(&mut track, "BEGIN", "BEGIN");
    track.query(Some(b"SAVEPOINT s"));
    assert!(!track.unsynced() && track.owed() == 1 && track.in_flight().count() == 2);
    track.completed(b"SAVEPOINT");
    track.ready(b'T', &Eyes::in_tests());
    assert!(track.answered() && track.find(b"kept").is_some());
}

#[test]
fn a_run_that_the_query_behind_it_undid_has_to_be_asked_for() {
    for (fails, known) in [(false, true), (true, false)] {
        let mut track = Track {
            watched: true,
            ..Track::default()
        };
        run_before_query(&mut track, "SET work_mem = '1MB'", "SET");
        track.query(Some(b"SELECT 1 / 0"));
        if fails {
            track.failed();
        } else {
            track.completed(b"SELECT 1");
        }
        track.ready(b'I', &Eyes::in_tests());
        assert_eq!(track.known(), known);
    }
}
