//! What cannot be moved is named before anything happens, and nothing else is ended.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio_postgres::Client;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{connect, skipped};

use crate::support::{Pair, value};
use crate::wire::{Wire, words};

const SOON: Duration = Duration::from_secs(30);

async fn backend(client: &Client) -> Result<i64> {
    Ok(value(client, "SELECT pg_backend_pid()").await?.parse()?)
}

/// What `sessions` says of the session with this backend.
async fn told(pair: &Pair, pid: i64) -> Result<Value> {
    let list = pair.ctl(0, &["sessions"]).await?;
    let all = list["sessions"].as_array().context("a list of sessions")?;
    let found = all.iter().find(|s| s["pid"] == pid);
    Ok(found
        .with_context(|| format!("no session with pid {pid}: {list}"))?
        .clone())
}

#[tokio::test]
async fn each_session_that_must_end_is_named_with_its_reason_and_no_other_ends() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a
        .query("CREATE TABLE numbered (id serial); CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'")
        .await?;
    let long = format!("SELECT 1 /* {} */", "x".repeat(2_000_000));
    let pinned = [
        (
            "temporary_object",
            "CREATE TEMP TABLE mine (a int)".to_owned(),
        ),
        (
            "temporary_object",
            "CREATE FUNCTION pg_temp.g() RETURNS int LANGUAGE sql AS 'SELECT 1'".to_owned(),
        ),
        (
            "held_cursor",
            "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT".to_owned(),
        ),
        ("advisory_lock", "SELECT pg_advisory_lock(1)".to_owned()),
        (
            "sequence_values",
            "INSERT INTO numbered DEFAULT VALUES; SELECT lastval()".to_owned(),
        ),
    ];
    let moving = [
        "SELECT 1",
        "INSERT INTO numbered DEFAULT VALUES",
        "CREATE TEMP TABLE mine (a int); DROP TABLE mine",
        "CREATE TEMP TABLE mine (a int); DISCARD TEMP",
        "BEGIN; CREATE TEMP TABLE mine (a int) ON COMMIT DROP; COMMIT",
        "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT; CLOSE ALL",
        "SELECT pg_advisory_lock(2); SELECT pg_advisory_unlock(2)",
        "BEGIN; SELECT pg_advisory_xact_lock(3); COMMIT",
        "SELECT f()",
        "DISCARD SEQUENCES",
    ];
    let mut ends = Vec::new();
    for (kind, sql) in &pinned {
        let client = pair.client().await?;
        for statement in split(sql) {
            client.batch_execute(statement).await?;
        }
        ends.push((*kind, backend(&client).await?, client));
    }
    let large = pair.client().await?;
    let _kept = large.prepare(&long).await?;
    ends.push(("prepared_statement", backend(&large).await?, large));
    let mut stays = Vec::new();
    for sql in moving {
        let client = pair.client().await?;
        for statement in split(sql) {
            client.batch_execute(statement).await?;
        }
        stays.push((sql, backend(&client).await?, client));
    }

    let found = pair.ctl(0, &["preflight", "--to", "b"]).await?;
    let named = |finding: &str| -> Vec<String> {
        let all = found["findings"].as_array().into_iter().flatten();
        all.filter(|f| f["name"] == finding)
            .filter_map(|f| f["sentence"].as_str().map(str::to_owned))
            .collect()
    };
    let sentences = named("session_ends");
    ensure!(sentences.len() == ends.len(), "{sentences:#?}");
    for (kind, pid, _) in &ends {
        let sentence = sentences
            .iter()
            .find(|s| s.contains(&format!("pid {pid} on a")));
        let sentence = sentence.with_context(|| format!("{kind}: {sentences:#?}"))?;
        for part in [
            "user postgres",
            "database postgres",
            "client 127.0.0.1:",
            "application",
        ] {
            ensure!(sentence.contains(part), "{kind}: {part} in {sentence}");
        }
        let session = told(&pair, *pid).await?;
        ensure!(
            session["moves"] == "must_end" && session["pins"][0]["kind"] == *kind,
            "{kind}: {session}"
        );
    }
    for (sql, pid, _) in &stays {
        let session = told(&pair, *pid).await?;
        ensure!(session["movable"] == true, "{sql}: {session}");
    }

    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let step = &run["steps"][0];
    ensure!(step["name"] == "preflight", "{run}");
    let again = step["findings"].as_array().into_iter().flatten();
    ensure!(
        again.filter(|f| f["name"] == "session_ends").count() == ends.len(),
        "the run itself names them: {step}"
    );
    for (kind, _, client) in &ends {
        until(
            &format!("the session with {kind} to be ended"),
            SOON,
            async || Ok(client.is_closed()),
        )
        .await?;
    }
    for (sql, _, client) in &stays {
        client
            .batch_execute("SELECT 1")
            .await
            .with_context(|| (*sql).to_owned())?;
    }
    Ok(())
}

/// Statements one by one, but a transaction as one.
fn split(sql: &str) -> Vec<&str> {
    if sql.starts_with("BEGIN") || sql.contains('\'') {
        return vec![sql];
    }
    sql.split("; ").collect()
}

#[tokio::test]
async fn the_end_says_why_and_what_to_do() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (mut wire, _) = Wire::login(pair.daemon.port(), &[]).await?;
    wire.query("CREATE TEMP TABLE mine (a int)").await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let (tag, body) = wire.message().await?;
    let said = words(&body);
    ensure!(tag == b'E' && said.contains("C57P01"), "{said}");
    for part in ["FATAL", "region \"b\"", "temporary", "Connect again"] {
        ensure!(said.contains(part), "{part} in {said}");
    }
    ensure!(
        wire.message().await.is_err(),
        "the connection is closed behind it"
    );
    Ok(())
}

#[tokio::test]
async fn a_session_says_what_goes_with_it_and_one_in_a_transaction_that_it_cannot_be_asked()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let pid = backend(&client).await?;
    ensure!(told(&pair, pid).await?["moves"] == "movable");
    client
        .batch_execute("SET work_mem = '5MB'; LISTEN news; PREPARE p AS SELECT 1")
        .await?;
    let session = told(&pair, pid).await?;
    let replays = ["SET work_mem", "1 prepared statement", "LISTEN news"];
    ensure!(
        session["moves"] == "replayable" && session["replays"] == serde_json::json!(replays),
        "{session}"
    );
    client.batch_execute("BEGIN").await?;
    let session = told(&pair, pid).await?;
    ensure!(
        session["moves"] == "unknown" && session["movable"] == false,
        "{session}"
    );
    client
        .batch_execute("CREATE TEMP TABLE mine (a int); COMMIT")
        .await?;
    ensure!(told(&pair, pid).await?["moves"] == "must_end");
    client.batch_execute("DROP TABLE mine").await?;
    ensure!(told(&pair, pid).await?["moves"] == "replayable");
    Ok(())
}

#[tokio::test]
async fn a_killed_primary_ends_only_sessions_whose_state_nobody_knows() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.a.query("CREATE ROLE app LOGIN").await?;
    let unknown = connect(pair.daemon.port(), "app", "postgres").await?;
    let known = connect(pair.daemon.port(), "app", "postgres").await?;
    unknown
        .query("SELECT set_config('app.user', $1, false)", &[&"7"])
        .await?;
    known
        .batch_execute("SELECT set_config('app.user', '7', false)")
        .await?;
    known
        .query("SELECT set_config('app.other', $1, true)", &[&"7"])
        .await?;
    pair.b.wait_caught_up(&pair.a).await?;
    pair.a.kill()?;
    let failover = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &failover).await?;
    ensure!(value(&known, "SELECT current_setting('app.user')").await? == "7");
    let error = unknown
        .batch_execute("SELECT 1")
        .await
        .err()
        .context("it must end")?;
    // The driver tells of the error as soon as it has read it, and sees the end only behind it.
    until("the session to be ended", SOON, async || {
        Ok(unknown.is_closed())
    })
    .await
    .with_context(|| error.to_string())?;
    let log = std::fs::read_to_string(pair.daemon.log())?;
    ensure!(log.contains("it called set_config"), "{error}\n{log}");
    Ok(())
}

#[tokio::test]
async fn a_session_that_the_candidate_would_refuse_is_named_before_the_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query("CREATE ROLE gone").await?;
    let client = pair.client().await?;
    client.batch_execute("SET ROLE gone").await?;
    let plain = pair.client().await?;
    let pid = backend(&client).await?;
    pair.a.query("DROP ROLE gone").await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let findings = run["steps"][0]["findings"].as_array().into_iter().flatten();
    let named: Vec<&Value> = findings.filter(|f| f["name"] == "session_ends").collect();
    ensure!(
        named.len() == 1 && named[0].to_string().contains(&format!("pid {pid} on a")),
        "{run}"
    );
    until("the session to be ended", SOON, async || {
        drop(client.batch_execute("SELECT 1").await);
        Ok(client.is_closed())
    })
    .await?;
    plain.batch_execute("SELECT 1").await?;
    Ok(())
}

#[tokio::test]
async fn a_held_write_of_a_session_that_ends_is_said_not_to_be_executed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (mut wire, _) = Wire::login(pair.daemon.port(), &[]).await?;
    wire.query("CREATE TEMP TABLE mine (a int)").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    wire.send("INSERT INTO t VALUES (1)").await?;
    pair.until_held(1).await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    let (tag, body) = wire.message().await?;
    let said = words(&body);
    ensure!(
        tag == b'E' && said.contains("C57P01") && said.contains("was not executed"),
        "{said}"
    );
    ensure!(pair.rows(&pair.b).await? == "0");
    Ok(())
}
