//! A backend that is ended while its server goes on ends its client too, as without us; one that is
//! ended because its server stops, or because writes are fenced, does not.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use tokio::time::timeout;
use writefence_tests::eventually::{pause, until};
use writefence_tests::postgres::skipped;

use crate::frames::{Frame, Wire, state};
use crate::orphans::slow_commits;
use crate::outcomes::cabled;
use crate::secure::{PASSWORD, Secure};
use crate::support::{Pair, value};

const SOON: Duration = Duration::from_secs(30);

/// What this client hears when its backend is ended in the midst of `sql`, up to the end of its
/// connection.
async fn ended(pair: &Pair, mut client: Wire, sql: &str) -> Result<Vec<Frame>> {
    client.query(sql).await?;
    let of = "FROM pg_stat_activity WHERE pid <> pg_backend_pid()";
    let sleeps = format!("SELECT pid {of} AND query = $${sql}$$ AND wait_event = 'PgSleep'");
    let backend = if sql.contains("pg_sleep") || sql == "COMMIT" {
        until("the statement", SOON, async || {
            Ok(!pair.a.value(&sleeps).await?.is_empty())
        })
        .await?;
        sleeps
    } else {
        // What came before its end is not of interest.
        client.until_ready().await?;
        format!("SELECT pid {of} AND query = $${sql}$$")
    };
    pair.a
        .query(&format!("SELECT pg_terminate_backend(({backend}))"))
        .await?;
    let mut said = Vec::new();
    while let Some(frame) = client.frame().await? {
        said.push(frame);
    }
    Ok(said)
}

#[tokio::test]
async fn a_client_whose_backend_is_ended_hears_and_sees_what_a_direct_one_does() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let through = pair.daemon.port();
    for sql in [
        "SELECT 1",
        "BEGIN; INSERT INTO t VALUES (1)",
        "SELECT 1 FROM t, pg_sleep(60)",
        "SELECT pg_sleep(60)",
    ] {
        // The table has a row, so that the third one sleeps.
        pair.a
            .query("DELETE FROM t; INSERT INTO t VALUES (0)")
            .await?;
        let direct = ended(&pair, Wire::login(pair.a.port()).await?, sql).await?;
        ensure!(state(&direct) == "57P01", "{direct:?}");
        let ours = ended(&pair, Wire::login(through).await?, sql).await?;
        ensure!(ours == direct, "{sql}: {ours:?} instead of {direct:?}");
    }
    ensure!(pair.group().await?["in_flight"]["unknown"].as_u64() == Some(0));
    let client = pair.client().await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}

#[tokio::test]
async fn a_commit_in_flight_is_unknown_also_where_its_backend_was_ended_alone() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    let said = ended(&pair, client, "COMMIT").await?;
    // The server's own words would pass for "not executed".
    let severity = said.iter().find_map(|frame| frame.field(b'S'));
    ensure!(
        severity.as_deref() == Some("FATAL") && state(&said) == "08007",
        "{said:?}"
    );
    let listed = pair.ctl(0, &["unknown", "list"]).await?;
    ensure!(listed.to_string().contains("commit:"), "{listed}");
    Ok(())
}

#[tokio::test]
async fn a_dropped_database_and_a_role_without_login_end_their_clients() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query("CREATE DATABASE other").await?;
    pair.a.query("CREATE ROLE one LOGIN").await?;
    let port = pair.daemon.port();
    let other = writefence_tests::postgres::connect(port, "postgres", "other").await?;
    let one = writefence_tests::postgres::connect(port, "one", "postgres").await?;
    pair.a.query("DROP DATABASE other WITH (FORCE)").await?;
    pair.a.query("ALTER ROLE one NOLOGIN").await?;
    pair.a
        .query("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'one'")
        .await?;
    for client in [&other, &one] {
        until("the connection to end", SOON, async || {
            Ok(client.is_closed())
        })
        .await?;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_is_stopped_and_started_ends_no_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let clients = try_join_all((0..40).map(|_| pair.client())).await?;
    for client in &clients {
        client.batch_execute("SELECT 1").await?;
    }
    pair.a.stop().await?;
    pause(Duration::from_millis(200)).await;
    pair.a.start().await?;
    for client in &clients {
        until("a write to pass", SOON, async || {
            ensure!(!client.is_closed(), "a client was ended");
            Ok(client
                .batch_execute("INSERT INTO t VALUES (1)")
                .await
                .is_ok())
        })
        .await?;
    }
    ensure!(pair.rows(&pair.a).await? == "40");
    Ok(())
}

#[tokio::test]
async fn while_fenced_and_right_behind_it_a_client_outlives_its_backend() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    client.batch_execute("SELECT 1").await?;
    let end = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity \
               WHERE application_name = 'test' AND pid <> pg_backend_pid()";
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    ensure!(pair.a.value(end).await? != "0");
    until("a read to pass", SOON, async || {
        ensure!(!client.is_closed(), "it was ended while fenced");
        Ok(value(&client, "SELECT 42").await.is_ok_and(|v| v == "42"))
    })
    .await?;
    pair.ctl(0, &["abort"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    // This may still be the barrier's work.
    ensure!(pair.a.value(end).await? != "0");
    until("a write to pass", SOON, async || {
        ensure!(!client.is_closed(), "it was ended behind the fence");
        Ok(client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .is_ok())
    })
    .await
}

#[tokio::test]
async fn last_words_that_arrive_when_the_server_is_back_end_no_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (mut pair, relay) = cabled("").await?;
    let client = pair.client().await?;
    client.batch_execute("SELECT 1").await?;
    // Whoever looks then finds a server that lets everybody in.
    relay.delay(Duration::from_secs(2));
    pair.a.stop().await?;
    pair.a.start().await?;
    relay.heal();
    pause(Duration::from_secs(2)).await;
    until("a write to pass", SOON, async || {
        ensure!(!client.is_closed(), "the client was ended");
        Ok(client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .is_ok())
    })
    .await
}

/// Its login was the client's own, so nobody can look after its server as this user: that the server
/// asks for a password is the proof.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_whose_login_was_passed_through_is_ended_alone_as_a_direct_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut world = Secure::start(|_, _, options| {
        "auth = \"passthrough\"".clone_into(&mut options.listen);
        Ok(())
    })
    .await?;
    let through = |port: u16| async move {
        let text = format!(
            "host=127.0.0.1 port={port} user=app password={PASSWORD} dbname=postgres sslmode=disable"
        );
        let (client, connection) = tokio_postgres::connect(&text, tokio_postgres::NoTls).await?;
        tokio::spawn(connection);
        anyhow::Ok(client)
    };
    let (ended, other) = (
        through(world.daemon.port()).await?,
        through(world.daemon.port()).await?,
    );
    let pid = value(&ended, "SELECT pg_backend_pid()").await?;
    let sleep = tokio::spawn(async move {
        let said = ended.batch_execute("SELECT pg_sleep(60)").await;
        (ended, said)
    });
    let asleep = format!("SELECT wait_event FROM pg_stat_activity WHERE pid = {pid}");
    until("the statement", SOON, async || {
        Ok(world.a.value(&asleep).await? == "PgSleep")
    })
    .await?;
    world
        .a
        .query(&format!("SELECT pg_terminate_backend({pid})"))
        .await?;
    let (ended, said) = timeout(SOON, sleep).await??;
    let said = said.err().context("it was ended")?;
    let said = said.as_db_error().context("the server's words")?;
    ensure!(
        said.code().code() == "57P01" && said.severity() == "FATAL",
        "{said:?}"
    );
    ensure!(
        said.message() == "terminating connection due to administrator command",
        "{said:?}"
    );
    until(
        "its connection to end",
        SOON,
        async || Ok(ended.is_closed()),
    )
    .await?;
    ensure!(value(&other, "SELECT 42").await? == "42", "the other stays");
    // A server that stops keeps nobody whose login cannot be repeated, and says why.
    world.a.stop().await?;
    world.a.start().await?;
    let said = other.batch_execute("SELECT 1").await;
    let said = said.err().context("it cannot have logged in again")?;
    let said = said.as_db_error().context("the reason")?;
    ensure!(
        said.code().code() == "57P01"
            && said.message().contains("is gone")
            && said.detail().is_some_and(|why| why.contains("passthrough")),
        "{said:?}"
    );
    Ok(())
}
