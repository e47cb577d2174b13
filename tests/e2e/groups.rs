//! What becomes of a group of statements while the gate is not open: each statement is answered as
//! PostgreSQL would answer it in its place, and none finds a way around the fence.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use writefence_tests::eventually::until;
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::support::{Pair, sqlstate};
use crate::talk::{Talk, both_ways, parse, pipeline, query, run, sync};

const SOON: Duration = Duration::from_secs(30);

/// A pair whose fence answers so at once, with the functions these tests call.
async fn pair(answer: &str) -> Result<Pair> {
    let pair = Pair::start(|o| {
        o.answer = answer.into();
        o.grace = "0s".into();
    })
    .await?;
    for sql in [
        "CREATE FUNCTION ins() RETURNS int LANGUAGE sql AS 'INSERT INTO public.t VALUES (1) RETURNING a'",
        "CREATE FUNCTION lower_wall() RETURNS text LANGUAGE sql AS \
         $$ SELECT set_config('default_transaction_read_only', 'off', false) $$",
        "CREATE FUNCTION run(q text) RETURNS void LANGUAGE plpgsql AS 'BEGIN EXECUTE q; END'",
        "CREATE PROCEDURE reads() LANGUAGE plpgsql AS 'BEGIN PERFORM count(*) FROM t; END'",
        "CREATE PROCEDURE writes() LANGUAGE plpgsql AS 'BEGIN INSERT INTO t VALUES (1); END'",
        "CREATE PROCEDURE escapes() LANGUAGE plpgsql AS \
         'BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); COMMIT; END'",
    ] {
        pair.a.query(sql).await?;
    }
    Ok(pair)
}

async fn fence(pair: &Pair) -> Result<()> {
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    Ok(())
}

async fn held(pair: &Pair) -> Result<()> {
    until("the group to be held", SOON, async || {
        Ok(pair.group().await?["in_flight"]["held"].as_u64() == Some(1))
    })
    .await
}

async fn no_rows(pair: &Pair, what: &str) -> Result<()> {
    let rows = pair.rows(&pair.a).await?;
    ensure!(
        rows == "0",
        "{what}: {rows} rows were written behind the fence"
    );
    Ok(())
}

/// Answers with the fence's among them.
fn refused(answers: &[String]) -> bool {
    answers.iter().any(|a| a == "E 25006")
}

/// Without what a refusal may come before: a statement can also fail at its Parse.
fn told(mut answers: Vec<String>) -> Vec<String> {
    answers.retain(|a| !matches!(a.as_str(), "1" | "2" | "n"));
    answers
}

#[tokio::test]
async fn a_group_is_answered_as_a_read_only_server_would() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let mut direct = Talk::login(pair.a.port()).await?;
    direct
        .query("SET default_transaction_read_only = on")
        .await?;
    fence(&pair).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for sql in [
        "SELECT 1; INSERT INTO t VALUES (1); SELECT 2",
        "INSERT INTO t VALUES (1); SELECT 1",
        "SET work_mem = '1MB'; SELECT ins(); SELECT 2",
        "SET work_mem = '2MB'; INSERT INTO t VALUES (1)",
        "BEGIN; INSERT INTO t VALUES (1); COMMIT",
        "SELECT 1",
        "ROLLBACK",
        "BEGIN; SELECT 1; COMMIT; SELECT 2; INSERT INTO t VALUES (1)",
        "BEGIN; SELECT 1; SELECT ins(); SELECT 2",
        "ROLLBACK; SELECT 1; BEGIN",
        "SAVEPOINT s; SELECT ins()",
        "ROLLBACK TO s; SELECT 1; INSERT INTO t VALUES (1)",
        "COMMIT; SELECT 1",
        "BEGIN READ ONLY; SELECT 1; COMMIT AND CHAIN; SELECT 2",
        "ROLLBACK AND CHAIN; COMMIT; SELECT 1",
        "BEGIN; COMMIT AND CHAIN; SELECT 1; ROLLBACK",
        "SELECT 1/0; SELECT 1",
        "RESET ALL; SELECT 1",
        "SHOW work_mem",
        "DISCARD ALL; SELECT 1",
    ] {
        for (way, group) in both_ways(sql).iter().enumerate() {
            let expected = told(direct.say(group).await?);
            let got = told(client.say(group).await?);
            ensure!(
                got == expected,
                "{sql} ({way}):\n{got:?}\nPostgreSQL:\n{expected:?}"
            );
            if sql.starts_with("RESET") || sql.starts_with("DISCARD") {
                direct
                    .query("SET default_transaction_read_only = on")
                    .await?;
            }
        }
    }
    no_rows(&pair, "all of them").await
}

#[tokio::test]
async fn nothing_in_one_group_leads_around_the_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    fence(&pair).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for way_out in [
        "SELECT lower_wall(); COMMIT; SELECT ins()",
        "SELECT run('RESET ALL'); COMMIT; SELECT ins()",
        "BEGIN; SELECT lower_wall(); COMMIT; SELECT ins()",
        "BEGIN READ ONLY; SELECT lower_wall(); COMMIT; SELECT ins()",
        "BEGIN READ ONLY; SET TRANSACTION READ WRITE; SELECT ins()",
        "BEGIN; SET LOCAL transaction_read_only = off; SELECT ins()",
        "BEGIN READ WRITE; SELECT ins()",
        "BEGIN READ ONLY; COMMIT AND CHAIN; SET TRANSACTION READ WRITE; SELECT ins()",
        "SET default_transaction_read_only = off; COMMIT; SELECT ins()",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; COMMIT; SELECT ins()",
        "RESET default_transaction_read_only; COMMIT; SELECT ins()",
        "RESET ALL; SELECT ins()",
        "RESET ALL; COMMIT; SELECT ins()",
        "DISCARD ALL; SELECT ins()",
        "SELECT lower_wall(); CALL escapes()",
        "DO 'BEGIN PERFORM lower_wall(), 1; COMMIT; END'; COMMIT; SELECT ins()",
    ] {
        for group in both_ways(way_out) {
            let got = client.say(&group).await?;
            // Refused, or not possible in PostgreSQL anyway.
            let stopped = refused(&got) || got.contains(&"E 25001".into());
            ensure!(stopped, "{way_out}: {got:?}");
            client.query("ROLLBACK").await?;
            let got = client.query("SELECT ins()").await?;
            ensure!(refused(&got), "behind {way_out}: {got:?}");
            no_rows(&pair, way_out).await?;
        }
    }
    // Prepared by the protocol, run by SQL.
    for way_out in [
        "BEGIN READ WRITE",
        "SET transaction_read_only = off",
        "CALL escapes()",
    ] {
        let prepared = [parse("p", way_out), sync()].concat();
        client.say(&prepared).await?;
        client.query("EXECUTE p; SELECT ins()").await?;
        client.query("EXECUTE p").await?;
        client.query("SELECT ins()").await?;
        client.query("ROLLBACK").await?;
        client.query("DEALLOCATE p").await?;
        no_rows(&pair, way_out).await?;
    }
    // What was refused, or held for its transaction only, has changed nothing.
    client
        .query("SET default_transaction_read_only = maybe")
        .await?;
    client
        .query("SET LOCAL default_transaction_read_only = on")
        .await?;
    let got = client.query("SHOW default_transaction_read_only").await?;
    ensure!(got[1] == "D off", "{got:?}");
    // It is the client's own all the same.
    client
        .query("SET default_transaction_read_only = on")
        .await?;
    let got = client.query("SHOW default_transaction_read_only").await?;
    ensure!(got[1] == "D on", "{got:?}");
    pair.ctl(0, &["abort"]).await?;
    let got = client.query("SELECT ins()").await?;
    ensure!(refused(&got), "its own wish: {got:?}");
    client.query("RESET ALL").await?;
    let got = client.query("SELECT ins()").await?;
    ensure!(got[1] == "D 1", "{got:?}");
    Ok(())
}

#[tokio::test]
async fn what_stands_behind_the_end_of_a_transaction_meets_the_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let group = "COMMIT; INSERT INTO t VALUES (2)";
    for (n, group) in both_ways(group).iter().enumerate() {
        let mut client = Talk::login(pair.daemon.port()).await?;
        client.query("BEGIN; INSERT INTO t VALUES (1)").await?;
        fence(&pair).await?;
        let mut got = client.say(group).await?;
        got.retain(|a| matches!(&a[..1], "C" | "E" | "Z"));
        ensure!(got == ["C COMMIT", "E 25006", "Z I"], "{got:?}");
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
        ensure!(pair.rows(&pair.a).await? == (n + 1).to_string());
        pair.ctl(0, &["abort"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_chained_transaction_only_reads_and_keeps_no_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    client.query("BEGIN; INSERT INTO t VALUES (1)").await?;
    fence(&pair).await?;
    let got = client.query("COMMIT AND CHAIN").await?;
    ensure!(got == ["C COMMIT", "Z T"], "{got:?}");
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    for group in both_ways("SELECT 1; COMMIT AND CHAIN; SELECT ins()") {
        let got = client.say(&group).await?;
        ensure!(got.contains(&"C COMMIT".into()) && refused(&got), "{got:?}");
        let got = client.query("ROLLBACK AND CHAIN").await?;
        ensure!(got == ["C ROLLBACK", "Z T"], "{got:?}");
    }
    // What the chained transaction may still choose.
    let got = client
        .query("SET TRANSACTION ISOLATION LEVEL SERIALIZABLE")
        .await?;
    ensure!(got == ["C SET", "Z T"], "{got:?}");
    client.query("ROLLBACK").await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_session_that_chains_on_is_named_and_ends_no_drain_late() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| {
        o.answer = "reject".into();
        // Long enough that the write below is within it on any machine.
        o.grace = "4s".into();
        o.deadline = "60s".into();
    })
    .await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    client
        .query("BEGIN; INSERT INTO t VALUES (1); COMMIT AND CHAIN; INSERT INTO t VALUES (2)")
        .await?;
    fence(&pair).await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "200ms"]).await?;
    let group = pair.group().await?;
    let state = &group["drain"]["stragglers"][0]["state"];
    ensure!(state == "chained_transaction", "{group}");
    // It writes on while it may, and chains: then it may not any more.
    client.query("INSERT INTO t VALUES (3)").await?;
    let got = client.query("COMMIT AND CHAIN").await?;
    ensure!(got == ["C COMMIT", "Z T"], "{got:?}");
    pair.ctl(0, &["watch-drain", "--max-wait", "20s"]).await?;
    ensure!(pair.rows(&pair.a).await? == "3");
    let got = client.query("INSERT INTO t VALUES (4)").await?;
    ensure!(refused(&got), "{got:?}");
    Ok(())
}

#[tokio::test]
async fn a_savepoint_does_not_unseal() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    for group in [
        "ROLLBACK TO s; INSERT INTO t VALUES (1)",
        "ROLLBACK TO s; SELECT ins()",
    ] {
        for group in both_ways(group) {
            let mut client = Talk::login(pair.daemon.port()).await?;
            client.query("BEGIN; SAVEPOINT s; SELECT 1").await?;
            fence(&pair).await?;
            pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
            let got = client.say(&group).await?;
            ensure!(got.contains(&"C ROLLBACK".into()), "{got:?}");
            ensure!(refused(&got), "{got:?}");
            let got = client.query("ROLLBACK TO s").await?;
            ensure!(got == ["C ROLLBACK", "Z T"], "{got:?}");
            let got = client.query("SELECT ins()").await?;
            ensure!(refused(&got), "{got:?}");
            client.query("COMMIT").await?;
            pair.ctl(0, &["abort"]).await?;
        }
    }
    no_rows(&pair, "savepoints").await
}

#[tokio::test]
async fn read_write_is_accepted_and_only_a_write_is_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let mut direct = Talk::login(pair.a.port()).await?;
    fence(&pair).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for sql in [
        "BEGIN READ WRITE; SELECT 1",
        "BEGIN; SET TRANSACTION READ WRITE; SELECT 1",
        "START TRANSACTION READ WRITE; SET LOCAL transaction_read_only = off; SELECT 1",
        "BEGIN; SELECT 1; SET transaction_read_only = off; SELECT 2",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE; BEGIN; SELECT 1",
        "BEGIN; SET default_transaction_read_only = off; SELECT 1",
    ] {
        for group in both_ways(sql) {
            let (expected, got) = (direct.say(&group).await?, client.say(&group).await?);
            ensure!(
                got == expected,
                "{sql}:\n{got:?}\nPostgreSQL:\n{expected:?}"
            );
            let got = client.query("INSERT INTO t VALUES (1)").await?;
            ensure!(got == ["E 25006", "Z E"], "{sql}: {got:?}");
            for talk in [&mut client, &mut direct] {
                let got = talk.query("ROLLBACK").await?;
                ensure!(got == ["C ROLLBACK", "Z I"], "{sql}: {got:?}");
            }
        }
    }
    for sql in [
        "SHOW transaction_read_only",
        "SELECT 1; SHOW default_transaction_read_only; SELECT 2",
    ] {
        for group in both_ways(sql) {
            let (expected, got) = (direct.say(&group).await?, client.say(&group).await?);
            ensure!(
                got == expected,
                "{sql}:\n{got:?}\nPostgreSQL:\n{expected:?}"
            );
        }
    }
    // A statement with a name that was answered here exists on the server too.
    let show = "SHOW default_transaction_read_only";
    client
        .say(&[parse("s", show), run("s"), sync()].concat())
        .await?;
    pair.ctl(0, &["abort"]).await?;
    let got = client.say(&[run("s"), sync()].concat()).await?;
    ensure!(got[2] == "D off", "{got:?}");
    no_rows(&pair, "READ WRITE").await
}

#[tokio::test]
async fn procedures_run_read_only_and_cannot_end_their_transaction() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let mut direct = Talk::login(pair.a.port()).await?;
    fence(&pair).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for sql in [
        "CALL reads()",
        "DO 'BEGIN PERFORM 1; END'",
        "SELECT 1; CALL reads(); SELECT 2",
        "DO 'BEGIN PERFORM 1/0; END'",
        "BEGIN; CALL reads(); COMMIT",
        "BEGIN READ ONLY; DO 'BEGIN PERFORM 1; END'; COMMIT; CALL reads()",
        "CALL reads(); COMMIT; SELECT 1",
        "CALL nothing_of_the_kind()",
    ] {
        // DO holds semicolons: two ways by hand.
        let pieces: Vec<&str> = sql.split("; ").collect();
        let mut ways = vec![query(sql)];
        if !sql.contains("DO ") {
            ways.push(pipeline(&pieces));
        } else if sql.starts_with("DO ") {
            ways.push(pipeline(&[sql]));
        }
        for group in ways {
            let (expected, got) = (direct.say(&group).await?, client.say(&group).await?);
            ensure!(
                got == expected,
                "{sql}:\n{got:?}\nPostgreSQL:\n{expected:?}"
            );
        }
    }
    for sql in [
        "CALL writes()",
        "CALL escapes()",
        "DO 'BEGIN INSERT INTO t VALUES (1); END'",
        "DO 'BEGIN COMMIT; SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END'",
        "DO 'BEGIN SET TRANSACTION READ WRITE; INSERT INTO t VALUES (1); END'",
        "DO 'BEGIN SET LOCAL transaction_read_only = off; INSERT INTO t VALUES (1); END'",
        "DO 'BEGIN PERFORM set_config(''transaction_read_only'', ''off'', false); END'",
        "DO 'BEGIN EXECUTE ''COM'' || ''MIT''; INSERT INTO t VALUES (1); END'",
        "DO 'BEGIN BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN division_by_zero THEN NULL; END; END'",
    ] {
        for group in [query(sql), pipeline(&[sql])] {
            let got = client.say(&group).await?;
            let stopped = refused(&got) || got.contains(&"E 0A000".into());
            ensure!(
                stopped && got.last().is_some_and(|z| z == "Z I"),
                "{sql}: {got:?}"
            );
        }
    }
    // Its errors caught, its settings changed: what is left of it is nothing.
    for sql in [
        "DO 'BEGIN BEGIN COMMIT; EXCEPTION WHEN OTHERS THEN NULL; END; END'",
        "DO 'BEGIN BEGIN INSERT INTO t VALUES (1); EXCEPTION WHEN OTHERS THEN NULL; END; END'",
        "DO 'BEGIN SET default_transaction_read_only = off; END'",
        "DO 'BEGIN PERFORM lower_wall(); END'",
    ] {
        for group in [query(sql), pipeline(&[sql])] {
            let got = client.say(&group).await?;
            ensure!(
                got.contains(&"C DO".into()) && got.contains(&"Z I".into()),
                "{sql}: {got:?}"
            );
            let got = client.query("SELECT ins()").await?;
            ensure!(refused(&got), "behind {sql}: {got:?}");
        }
    }
    no_rows(&pair, "procedures").await
}

#[tokio::test]
async fn a_procedure_that_writes_waits_under_hold_and_runs_once() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("hold").await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for (n, group) in [query("CALL escapes()"), pipeline(&["CALL writes()"])]
        .iter()
        .enumerate()
    {
        fence(&pair).await?;
        let got = client.query("CALL reads()").await?;
        ensure!(got == ["C CALL", "Z I"], "{got:?}");
        client.send(group).await?;
        held(&pair).await?;
        ensure!(pair.rows(&pair.a).await? == n.to_string());
        pair.ctl(0, &["abort"]).await?;
        let got = client.answers(1).await?;
        ensure!(got.contains(&"C CALL".into()), "{got:?}");
        ensure!(pair.rows(&pair.a).await? == (n + 1).to_string());
    }
    Ok(())
}

#[tokio::test]
async fn temporary_tables_may_be_written_and_no_others() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    for make in [
        "CREATE TEMP TABLE mine (a serial); CREATE TEMP TABLE t (a int)",
        // Made where no statement shows it.
        "SELECT run('CREATE TEMP TABLE mine (a serial); CREATE TEMP TABLE t (a int)')",
    ] {
        let mut client = Talk::login(pair.daemon.port()).await?;
        client.query(make).await?;
        fence(&pair).await?;
        for sql in [
            "INSERT INTO mine DEFAULT VALUES",
            "UPDATE mine SET a = 2",
            "SELECT a FROM mine FOR UPDATE",
            // In front of the permanent one of that name.
            "INSERT INTO t VALUES (5)",
            "BEGIN; DELETE FROM t; INSERT INTO t VALUES (6); COMMIT",
        ] {
            for group in both_ways(sql) {
                let got = client.say(&group).await?;
                ensure!(!got.iter().any(|a| a.starts_with('E')), "{sql}: {got:?}");
            }
        }
        for sql in [
            "INSERT INTO public.t VALUES (1)",
            "INSERT INTO mine SELECT ins()",
            "WITH x AS (INSERT INTO public.t VALUES (1) RETURNING a) INSERT INTO mine TABLE x",
            "INSERT INTO mine SELECT 1 FROM pg_notify('a', 'b')",
            "TRUNCATE mine",
            "INSERT INTO mine DEFAULT VALUES; INSERT INTO public.t VALUES (1)",
        ] {
            for group in both_ways(sql) {
                let got = client.say(&group).await?;
                ensure!(refused(&got), "{sql}: {got:?}");
            }
        }
        let got = client.query("SELECT count(*) FROM t").await?;
        ensure!(got[1] == "D 1", "{got:?}");
        client.send(&query("COPY t FROM STDIN")).await?;
        client.send(b"d\0\0\0\x067\nc\0\0\0\x04").await?;
        let got = client.answers(1).await?;
        ensure!(got == ["G", "C COPY 1", "Z I"], "{got:?}");
        pair.ctl(0, &["abort"]).await?;
    }
    no_rows(&pair, "beside temporary tables").await
}

#[tokio::test]
async fn under_hold_a_temporary_table_is_written_and_a_permanent_one_waits() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("hold").await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    client.query("CREATE TEMP TABLE mine (a int)").await?;
    fence(&pair).await?;
    let got = client.query("INSERT INTO mine VALUES (1)").await?;
    ensure!(got == ["C INSERT 0 1", "Z I"], "{got:?}");
    client.send(&query("COPY mine FROM STDIN")).await?;
    client.send(b"d\0\0\0\x067\nc\0\0\0\x04").await?;
    let got = client.answers(1).await?;
    ensure!(got == ["G", "C COPY 1", "Z I"], "{got:?}");
    client
        .send(&query("INSERT INTO t SELECT a FROM mine"))
        .await?;
    held(&pair).await?;
    pair.ctl(0, &["abort"]).await?;
    let got = client.answers(1).await?;
    ensure!(got == ["C INSERT 0 2", "Z I"], "{got:?}");
    ensure!(pair.rows(&pair.a).await? == "2");
    Ok(())
}

#[tokio::test]
async fn what_is_held_has_left_nothing_behind_that_would_be_done_twice() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("hold").await?;
    for (n, sql) in [
        "SELECT pg_advisory_lock(77), ins()",
        "PREPARE pp AS SELECT 1; SELECT ins()",
        "DEALLOCATE pp; SELECT ins()",
    ]
    .iter()
    .enumerate()
    {
        let mut client = Talk::login(pair.daemon.port()).await?;
        if sql.starts_with("DEALLOCATE") {
            client.query("PREPARE pp AS SELECT 1").await?;
        }
        fence(&pair).await?;
        client.send(&query(sql)).await?;
        held(&pair).await?;
        pair.ctl(0, &["abort"]).await?;
        let got = client.answers(1).await?;
        ensure!(!got.iter().any(|a| a.starts_with('E')), "{sql}: {got:?}");
        ensure!(pair.rows(&pair.a).await? == (n + 1).to_string());
        let locks = "SELECT pg_advisory_unlock(77); SELECT count(*) FROM pg_locks WHERE objid = 77";
        let got = client.query(locks).await?;
        ensure!(got.contains(&"D 0".into()), "{sql}: locked twice: {got:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_notifies_keeps_the_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for sql in ["NOTIFY news", "SELECT pg_notify('news', '')"] {
        let pair = pair("reject").await?;
        let mut client = Talk::login(pair.daemon.port()).await?;
        client.query(&format!("BEGIN; {sql}")).await?;
        fence(&pair).await?;
        pair.ctl(4, &["watch-drain", "--max-wait", "300ms"])
            .await
            .context(sql)?;
        client.query("COMMIT").await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_statement_parsed_before_the_fence_is_there_behind_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    client
        .say(&[parse("", "SELECT 7"), sync()].concat())
        .await?;
    fence(&pair).await?;
    let got = client.say(&[run(""), sync()].concat()).await?;
    ensure!(
        got == ["2", "T ?column?", "D 7", "C SELECT 1", "Z I"],
        "{got:?}"
    );
    pair.ctl(0, &["abort"]).await?;
    let got = client.say(&[run(""), sync()].concat()).await?;
    ensure!(got[2] == "D 7", "{got:?}");
    Ok(())
}

#[tokio::test]
async fn a_run_that_failed_before_its_sync_stays_failed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = pair("reject").await?;
    fence(&pair).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    let flush = vec![b'H', 0, 0, 0, 4];
    client
        .send(&[parse("", "SELECT 1/0"), run(""), flush].concat())
        .await?;
    // The server ignores what follows, and so does the fence.
    let got = client
        .say(&[parse("", "INSERT INTO t VALUES (1)"), run(""), sync()].concat())
        .await?;
    ensure!(
        got.iter().filter(|a| a.starts_with('E')).count() == 1,
        "{got:?}"
    );
    ensure!(got.contains(&"E 22012".into()), "{got:?}");
    Ok(())
}

#[tokio::test]
async fn scope_all_holds_everything_but_what_was_open() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| {
        o.grace = "0s".into();
        o.scope = "all".into();
    })
    .await?;
    let open = pair.client().await?;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let mut waits = Talk::login(pair.daemon.port()).await?;
    fence(&pair).await?;
    open.query("SELECT 1", &[]).await?;
    let error = open
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .expect_err("sealed");
    ensure!(sqlstate(&error) == "25006", "{error}");
    open.batch_execute("ROLLBACK").await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    waits.send(&query("SELECT 5")).await?;
    held(&pair).await?;
    pair.ctl(0, &["abort"]).await?;
    let got = waits.answers(1).await?;
    ensure!(got[1] == "D 5", "{got:?}");
    pair.ctl(
        0,
        &["prepare", "--primary", "a", "--reason", "x", "--reject"],
    )
    .await?;
    for sql in ["SELECT 5", "BEGIN", "SHOW transaction_read_only"] {
        let got = waits.query(sql).await?;
        ensure!(got == ["E 25006", "Z I"], "{sql}: {got:?}");
    }
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}

/// A relay to a server that cuts a connection at these bytes, which then do not arrive.
async fn cuts_at(server: u16, words: &'static [u8]) -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((near, _)) = listener.accept().await {
            tokio::spawn(async move {
                let far = TcpStream::connect(("127.0.0.1", server)).await?;
                let ((mut near_in, mut near_out), (mut far_in, mut far_out)) =
                    (near.into_split(), far.into_split());
                let forth = async {
                    let mut chunk = vec![0; 64 * 1024];
                    while let n @ 1.. = near_in.read(&mut chunk).await? {
                        if chunk[..n].windows(words.len()).any(|w| w == words) {
                            break;
                        }
                        far_out.write_all(&chunk[..n]).await?;
                    }
                    std::io::Result::Ok(())
                };
                tokio::select! {
                    end = forth => end,
                    end = tokio::io::copy(&mut far_in, &mut near_out) => end.map(drop),
                }
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn a_server_lost_at_a_deferred_begin_fails_the_transaction_and_leaves_nothing() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE TABLE t (a int)").await?;
    let mut options = DaemonOptions::new(&[&a]);
    let marked = "ISOLATION LEVEL SERIALIZABLE";
    options.regions[0].1 = cuts_at(a.port(), marked.as_bytes()).await?;
    options.begin = "defer".into();
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let fence = ["prepare", "--primary", "a", "--reason", "x"];
    // Held with its BEGIN, admitted, and the server is lost between the two.
    let mut client = Talk::login(daemon.port()).await?;
    ensure!(daemon.ctl(&fence).await?.code == 0);
    let got = client.query(&format!("BEGIN {marked}")).await?;
    ensure!(got == ["C BEGIN", "Z T"], "{got:?}");
    client.send(&query("INSERT INTO t VALUES (1)")).await?;
    until("the write to be held", SOON, async || {
        Ok(daemon.status().await?["in_flight"]["held"].as_u64() == Some(1))
    })
    .await?;
    ensure!(daemon.ctl(&["abort"]).await?.code == 0);
    let got = client.answers(1).await?;
    ensure!(got == ["E 08006", "Z E"], "{got:?}");
    let got = client.query("INSERT INTO t VALUES (1)").await?;
    ensure!(got == ["E 25P02", "Z E"], "{got:?}");
    let got = client.query("COMMIT").await?;
    ensure!(got == ["C ROLLBACK", "Z I"], "{got:?}");
    // Opened before its first statement came: the same, on the way of an open gate.
    ensure!(daemon.ctl(&fence).await?.code == 0);
    client.query(&format!("BEGIN {marked}")).await?;
    ensure!(daemon.ctl(&["abort"]).await?.code == 0);
    let got = client.query("INSERT INTO t VALUES (1)").await?;
    ensure!(got == ["E 08006", "Z E"], "{got:?}");
    let got = client.query("ROLLBACK").await?;
    ensure!(got == ["C ROLLBACK", "Z I"], "{got:?}");
    // Its permit was given back, and the session goes on.
    ensure!(daemon.ctl(&fence).await?.code == 0);
    ensure!(daemon.ctl(&["watch-drain", "--max-wait", "5s"]).await?.code == 0);
    ensure!(daemon.ctl(&["abort"]).await?.code == 0);
    let got = client.query("INSERT INTO t VALUES (2)").await?;
    ensure!(got == ["C INSERT 0 1", "Z I"], "{got:?}");
    ensure!(a.value("SELECT string_agg(a::text, ',') FROM t").await? == "2");
    Ok(())
}

/// What pgjdbc sends with `autosave = always`: BEGIN in a run that no Sync ends, then a savepoint by a
/// Query. The run and the Query have one ReadyForQuery; if the run fails, the server ignores the Query
/// and all up to the next Sync.
#[tokio::test]
async fn a_query_behind_a_run_without_a_sync_is_answered_as_by_the_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.hold = "60s".into()).await?;
    let ran = |sql: &str| [parse("", sql), run("")].concat();
    let kept = |name: &str, sql: &str| [parse(name, sql), run(name), sync()].concat();
    let groups = |round: &str| {
        let name = |n: u8| format!("{round}{n}");
        [
            (
                [
                    ran("BEGIN"),
                    query("SAVEPOINT s"),
                    kept(&name(1), "SELECT 1"),
                ]
                .concat(),
                2,
            ),
            (
                [
                    query("SAVEPOINT s"),
                    kept(&name(2), "SELECT 2"),
                    query("COMMIT"),
                ]
                .concat(),
                3,
            ),
            (
                [
                    ran("SELECT 1 / 0"),
                    query("SELECT 3"),
                    kept("x", "SELECT 3"),
                ]
                .concat(),
                1,
            ),
            (
                [parse("", "SELEC"), query("SELECT 4"), kept("x", "SELECT 4")].concat(),
                1,
            ),
            (
                [run("nobody's"), query("SELECT 5"), kept("x", "SELECT 5")].concat(),
                1,
            ),
            (
                [
                    ran("SELECT 6"),
                    query("SELECT 1 / 0"),
                    kept(&name(6), "SELECT 6"),
                ]
                .concat(),
                2,
            ),
            ([ran("BEGIN"), query("SELECT 7"), sync()].concat(), 2),
            ([ran("SELECT 8"), query("SELECT 9"), sync()].concat(), 2),
            (query("ROLLBACK"), 1),
            (
                [ran("SELECT 7"), ran("SELECT 8"), query("SELECT 9"), sync()].concat(),
                2,
            ),
            (
                [
                    ran("BEGIN"),
                    query("SAVEPOINT s"),
                    ran("SELECT 1 / 0"),
                    query("SELECT 1"),
                    sync(),
                ]
                .concat(),
                2,
            ),
            (
                [
                    ran("ROLLBACK TO s"),
                    query("SELECT 10"),
                    ran("COMMIT"),
                    sync(),
                ]
                .concat(),
                2,
            ),
        ]
    };
    // A run outside a transaction and a Query that succeeds: PostgreSQL 18 leaves its implicit transaction
    // block open behind them, and fails at the next message (XX000, StartTransactionCommand).
    const BLOCK: usize = 9;
    let version: u32 = pair.a.value("SHOW server_version_num").await?.parse()?;
    let mut direct = Talk::login(pair.a.port()).await?;
    let mut client = Talk::login(pair.daemon.port()).await?;
    for round in ["open", "fenced"] {
        if round == "fenced" {
            let reject = ["prepare", "--primary", "a", "--reason", "x", "--reject"];
            pair.ctl(0, &reject).await?;
        }
        for (n, (group, readies)) in groups(round).iter().enumerate() {
            if n == BLOCK && version >= 180_000 {
                continue;
            }
            direct.send(group).await?;
            let answers = direct.answers(*readies).await;
            let mut wanted = answers.with_context(|| format!("{n}, server"))?;
            if round == "fenced" {
                // What is not known counts as a write.
                wanted
                    .iter_mut()
                    .for_each(|answer| *answer = answer.replace("26000", "25006"));
            }
            client.send(group).await?;
            let told = client.answers(*readies).await;
            let told = told.with_context(|| format!("{round} {n}, not as {wanted:?}"))?;
            ensure!(
                told == wanted,
                "{round}: {told:?}, and by the server: {wanted:?}"
            );
        }
    }
    pair.ctl(0, &["abort"]).await?;

    // The statements that were parsed among them exist on the other side too.
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    for (name, value) in [
        ("open1", "1"),
        ("open2", "2"),
        ("open6", "6"),
        ("fenced1", "1"),
        ("fenced6", "6"),
    ] {
        let told = client.say(&[run(name), sync()].concat()).await?;
        ensure!(told.contains(&format!("D {value}")), "{name}: {told:?}");
    }
    let port = client.query("SHOW port").await?;
    ensure!(port.contains(&format!("D {}", pair.b.port())), "{port:?}");
    Ok(())
}
