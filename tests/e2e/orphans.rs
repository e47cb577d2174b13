//! Clients that leave in the middle: what they sent counts until the server has ended it.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::frames::{Frame, Wire, message};
use crate::support::{Gate, Pair};

const SOON: Duration = Duration::from_secs(30);

/// A table whose inserts make their COMMIT take that long.
pub(crate) async fn slow_commits(pair: &Pair, seconds: f32) -> Result<()> {
    let sql = format!(
        "CREATE TABLE d (a int); \
         CREATE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
           'BEGIN PERFORM pg_sleep({seconds}); RETURN NULL; END'; \
         CREATE CONSTRAINT TRIGGER slow AFTER INSERT ON d DEFERRABLE INITIALLY DEFERRED \
           FOR EACH ROW EXECUTE FUNCTION slow()"
    );
    pair.a.query(&sql).await?;
    Ok(())
}

/// The same, and their COMMIT waits until the gate is opened.
pub(crate) async fn gated_commits(pair: &Pair) -> Result<Gate> {
    slow_commits(pair, 0.0).await?;
    let sql = format!(
        "CREATE OR REPLACE FUNCTION slow() RETURNS trigger LANGUAGE plpgsql AS \
         'BEGIN PERFORM {}; RETURN NULL; END'",
        Gate::WAIT
    );
    pair.a.query(&sql).await?;
    Gate::shut(&pair.a).await
}

/// Waits until a statement with this beginning sleeps on the primary: it was not only read there.
pub(crate) async fn runs(pair: &Pair, beginning: &str) -> Result<()> {
    until("the statement to run", SOON, async || {
        Ok(active(pair, beginning).await? == "1")
    })
    .await
}

async fn active(pair: &Pair, beginning: &str) -> Result<String> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE wait_event IN ('PgSleep', 'advisory') \
         AND query LIKE '{}%'",
        beginning.replace('\'', "''")
    );
    pair.a.value(&sql).await
}

async fn orphaned(pair: &Pair, n: u64) -> Result<()> {
    until("the orphans to be counted", SOON, async || {
        Ok(pair.group().await?["in_flight"]["orphaned"].as_u64() == Some(n))
    })
    .await
}

async fn fence(pair: &Pair) -> Result<()> {
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "15s"]).await?;
    Ok(())
}

#[tokio::test]
async fn an_orphaned_write_is_cancelled_once_the_grace_is_over() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.grace = "0s".into()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client
        .query("SELECT pg_sleep(60); INSERT INTO t VALUES (1)")
        .await?;
    runs(&pair, "SELECT pg_sleep(60)").await?;
    drop(client);
    orphaned(&pair, 1).await?;
    fence(&pair).await?;
    ensure!(active(&pair, "SELECT pg_sleep(60)").await? == "0");
    ensure!(
        pair.rows(&pair.a).await? == "0",
        "cancelled before it wrote"
    );
    Ok(())
}

#[tokio::test]
async fn an_orphan_that_ignores_its_cancel_keeps_the_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.grace = "0s".into()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let stubborn = "DO $$ BEGIN \
        BEGIN PERFORM pg_sleep(60); EXCEPTION WHEN query_canceled THEN PERFORM pg_sleep(1.5); END; \
        INSERT INTO t VALUES (1); END $$";
    client.query(stubborn).await?;
    runs(&pair, "DO $$").await?;
    drop(client);
    orphaned(&pair, 1).await?;
    fence(&pair).await?;
    ensure!(
        active(&pair, "DO $$").await? == "0",
        "drained while it was running"
    );
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_commit_in_flight_is_never_cancelled() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.grace = "0s".into()).await?;
    let gate = gated_commits(&pair).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN").await?;
    client.ask("INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    drop(client);
    orphaned(&pair, 1).await?;
    // The grace is over at once, so who is to be cancelled is cancelled in this time.
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "1s"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "15s"]).await?;
    let rows = pair.a.value("SELECT count(*) FROM d").await?;
    ensure!(rows == "1", "drained means that its outcome stands");
    Ok(())
}

#[tokio::test]
async fn while_open_only_what_can_have_no_effect_is_cancelled() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut inside = Wire::login(pair.daemon.port()).await?;
    inside.ask("BEGIN; INSERT INTO t VALUES (7)").await?;
    inside
        .query("UPDATE t SET a = 8 WHERE pg_sleep(60) IS NOT NULL")
        .await?;
    let mut reads = Wire::login(pair.daemon.port()).await?;
    reads.query("SELECT pg_sleep(61)").await?;
    let mut writes = Wire::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    let waits = format!("SELECT {};", Gate::WAIT);
    writes
        .query(&format!("{waits} INSERT INTO t VALUES (1)"))
        .await?;
    for beginning in ["UPDATE t", "SELECT pg_sleep(61)", &waits] {
        runs(&pair, beginning).await?;
    }
    drop((inside, reads, writes));
    for beginning in ["UPDATE t", "SELECT pg_sleep(61)"] {
        until("it to be cancelled", SOON, async || {
            Ok(active(&pair, beginning).await? == "0")
        })
        .await?;
    }
    // As on a direct connection, a write that was sent is carried out.
    ensure!(
        active(&pair, &waits).await? == "1",
        "it was cancelled as well"
    );
    gate.open().await?;
    until("the write to be there", SOON, async || {
        Ok(pair.rows(&pair.a).await? == "1")
    })
    .await?;
    orphaned(&pair, 0).await
}

#[tokio::test]
async fn what_a_client_left_unfinished_does_not_keep_a_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    // A message of which only a part came, behind a statement that is still running.
    let mut torn = Wire::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    torn.query(&format!("INSERT INTO t SELECT 1 FROM {}", Gate::WAIT))
        .await?;
    let long = format!("INSERT INTO t VALUES (9) -- {}\0", "x".repeat(200_000));
    let whole = message(b'Q', long.as_bytes());
    torn.raw(&whole[..100_000]).await?;
    // A COPY whose data will not end.
    let mut copy = Wire::login(pair.daemon.port()).await?;
    copy.query("COPY t FROM STDIN").await?;
    copy.until('G').await?;
    copy.say(b'd', b"8\n").await?;
    // A run without its Sync, and a transaction without its end.
    let mut run = Wire::login(pair.daemon.port()).await?;
    run.run("INSERT INTO t VALUES (7)", 0).await?;
    run.flush().await?;
    run.until('C').await?;
    let mut open = Wire::login(pair.daemon.port()).await?;
    open.ask("BEGIN; INSERT INTO t VALUES (6)").await?;
    runs(&pair, "INSERT INTO t SELECT 1").await?;
    drop((torn, copy, run, open));
    gate.open().await?;
    fence(&pair).await?;
    let left = pair
        .a
        .value("SELECT count(*) FROM pg_stat_activity WHERE backend_xid IS NOT NULL")
        .await?;
    ensure!(left == "0", "drained with {left} transactions still there");
    let rows = pair
        .a
        .value("SELECT string_agg(a::text, ',') FROM t")
        .await?;
    ensure!(rows == "1", "only what was sent whole: {rows}");
    Ok(())
}

#[tokio::test]
async fn a_commit_without_a_sync_counts_until_it_has_ended() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let gate = gated_commits(&pair).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.run("COMMIT", 0).await?;
    client.flush().await?;
    runs(&pair, "COMMIT").await?;
    drop(client);
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "15s"]).await?;
    ensure!(pair.a.value("SELECT count(*) FROM d").await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_write_behind_which_its_client_offends_counts_until_it_has_ended() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.extra = "[limits]\nmessage = \"1MiB\"\n".to_owned();
        // Once it is over, what these clients left would be cancelled.
        options.grace = "60s".into();
        options.deadline = "60s".into();
    })
    .await?;
    let offences: [(&[u8], &str); 3] = [
        (b"\x01\0\0\0\x04", "08P01"),
        (b"Q\0\0\0\x01", "08P01"),
        (b"Q\0\x20\0\0", "54000"),
    ];
    let gate = Gate::shut(&pair.a).await?;
    let mut clients = Vec::new();
    for (offence, sqlstate) in offences {
        let mut client = Wire::login(pair.daemon.port()).await?;
        client
            .query(&format!("INSERT INTO t SELECT 1 FROM {}", Gate::WAIT))
            .await?;
        clients.push((client, offence, sqlstate));
    }
    until("the statements to run", SOON, async || {
        Ok(active(&pair, "INSERT INTO t SELECT 1").await? == "3")
    })
    .await?;
    for (client, offence, sqlstate) in &mut clients {
        client.raw(offence).await?;
        let told = client.next().await?;
        ensure!(told.field(b'C').as_deref() == Some(*sqlstate), "{told:?}");
        client.closed().await?;
    }
    // What stands before an offence in one piece with it is carried out, as on a direct connection.
    let mut last = Wire::login(pair.daemon.port()).await?;
    let insert = message(b'Q', b"INSERT INTO t VALUES (2)\0");
    last.raw(&[insert, b"\x01\0\0\0\x04".to_vec()].concat())
        .await?;
    last.closed().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "15s"]).await?;
    let drained = pair.rows(&pair.a).await?;
    ensure!(drained == "4", "drained with {drained} rows");
    Ok(())
}

#[tokio::test]
async fn a_query_in_a_run_that_has_failed_is_not_waited_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let tags = |frames: &[Frame]| frames.iter().map(|f| f.tag).collect::<String>();
    let mut client = Wire::login(pair.daemon.port()).await?;
    for (first, expected) in [("SELEC 1", "EZ"), ("SELECT 1", "12DCTDCZ")] {
        client.gather();
        client.run(first, 0).await?;
        client.query("SELECT 2").await?;
        client.sync().await?;
        client.send_gathered().await?;
        let answer = tags(&client.until_ready().await?);
        ensure!(answer == expected, "{first}: {answer}");
    }
    ensure!(
        tags(&client.until_ready().await?) == "Z",
        "that of the Sync"
    );
    ensure!(tags(&client.ask("SELECT 3").await?) == "TDCZ");
    // And nothing is waited for where it leaves so.
    client.gather();
    client.run("SELEC 1", 0).await?;
    client.query("INSERT INTO t VALUES (1)").await?;
    client.send_gathered().await?;
    client.until('E').await?;
    drop(client);
    fence(&pair).await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}
