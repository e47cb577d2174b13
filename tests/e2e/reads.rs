//! Reads that are under way when the primary moves go on where they are, to their end.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;
use writefence_tests::eventually::{pause, until};
use writefence_tests::postgres::skipped;

use crate::frames::Wire;
use crate::support::{Pair, value};

/// Longer than a switchover takes.
const LONG: &str = "SELECT 'ended' FROM pg_sleep(8)";

/// Grace: what an open transaction that may still write holds a switchover up by.
const GRACE: &str = "30s";

const PATIENCE: Duration = Duration::from_secs(30);

async fn begun(pair: &Pair, statements: &[&str]) -> Result<Client> {
    let client = pair.client().await?;
    for sql in statements {
        client.batch_execute(sql).await?;
    }
    Ok(client)
}

/// Waits until this many statements sleep on the primary.
async fn asleep(pair: &Pair, n: &str) -> Result<()> {
    let sleep = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
    until("the statements to be under way", PATIENCE, async || {
        Ok(pair.a.value(sleep).await? == n)
    })
    .await
}

/// Which of the servers answers.
async fn port(client: &Client) -> Result<String> {
    value(client, "SELECT current_setting('port')").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_neither_ends_nor_waits_for_what_only_reads() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.grace = GRACE.into();
        options.deadline = GRACE.into();
        options.budget = "40s".into();
        options.hold = "60s".into();
    })
    .await?;
    let old = pair.a.port().to_string();

    // As pg_dump begins, and as drivers do; both between two statements when the fence falls.
    let dump = begun(
        &pair,
        &[
            "BEGIN",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "SELECT count(*) FROM t",
        ],
    )
    .await?;
    let reader = begun(&pair, &["BEGIN READ ONLY", "SELECT 1"]).await?;
    let within = begun(&pair, &["START TRANSACTION READ ONLY"]).await?;
    let alone = pair.client().await?;
    let copying = pair.client().await?;
    let writer = pair.client().await?;

    let mut told = Wire::login(pair.daemon.port()).await?;
    told.query(LONG).await?;

    let rows = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT";
    let copy = copying.copy_out(rows).await?;
    let long = tokio::spawn(async move { (value(&alone, LONG).await, alone) });
    let inside = tokio::spawn(async move { (value(&within, LONG).await, within) });
    asleep(&pair, "3").await?;

    pair.ctl(0, &["switchover", "--to", "b", "--reason", "reads"])
        .await?;
    ensure!(!long.is_finished(), "it was to be under way still");
    writer.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.b).await? == "1");

    // On the server where their snapshots are, until they end; then where the writes go.
    for client in [&dump, &reader] {
        ensure!(value(client, "SELECT count(*) FROM t").await? == "0");
        ensure!(port(client).await? == old);
        client.batch_execute("COMMIT").await?;
        ensure!(port(client).await? == pair.b.port().to_string());
        ensure!(value(client, "SELECT count(*) FROM t").await? == "1");
    }
    for task in [long, inside] {
        let (read, client) = task.await?;
        ensure!(read? == "ended");
        client.batch_execute("ROLLBACK").await?;
        ensure!(port(&client).await? == pair.b.port().to_string());
    }
    // What keeps others from writing on the old server is not the client's to see.
    let mut said = told.until_ready().await?;
    said.extend(told.ask("SHOW default_transaction_read_only").await?);
    let parameters: Vec<_> = said.iter().filter(|frame| frame.tag == 'S').collect();
    ensure!(parameters.is_empty(), "{parameters:?}");
    let bytes = copy.try_fold(0, |sum, part| std::future::ready(Ok(sum + part.len())));
    ensure!(bytes.await? == 100_000 * 1001);
    ensure!(port(&copying).await? == pair.b.port().to_string());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_transaction_that_was_made_read_only_goes_on_reading_and_writes_no_more() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.grace = "200ms".into();
    })
    .await?;
    let client = begun(&pair, &["BEGIN", "SELECT 1"]).await?;
    let other = begun(&pair, &["BEGIN", "SELECT 1"]).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "reads"])
        .await?;
    ensure!(port(&client).await? == pair.a.port().to_string());
    let refused = client.batch_execute("INSERT INTO t VALUES (1)").await;
    let code = refused.err().map(|e| crate::support::sqlstate(&e));
    ensure!(code.as_deref() == Some("25006"), "{code:?}");
    client.batch_execute("ROLLBACK").await?;
    client.batch_execute("INSERT INTO t VALUES (2)").await?;
    ensure!(pair.rows(&pair.b).await? == "1");

    // The old primary goes away under a reader: its transaction is lost, its connection is not.
    let mut pair = pair;
    pair.a.stop().await?;
    until("the loss to be told", PATIENCE, async || {
        Ok(value(&other, "SELECT 1").await.is_err())
    })
    .await?;
    other.batch_execute("ROLLBACK").await?;
    other.batch_execute("INSERT INTO t VALUES (3)").await?;
    ensure!(pair.rows(&pair.b).await? == "2");
    Ok(())
}

/// Reads, until it is replaced.
const READS: &str = "CREATE OR REPLACE FUNCTION g() RETURNS int LANGUAGE sql STABLE AS 'SELECT 1'";

/// Writes from then on.
const WRITES: &str = "CREATE OR REPLACE FUNCTION g() RETURNS int LANGUAGE plpgsql VOLATILE AS \
     'BEGIN PERFORM pg_sleep(1); INSERT INTO t VALUES (9); RETURN 9; END'";

/// A statement begins as a read and waits for a migration, which makes a write of it. The migration
/// was admitted before the fence, and commits behind it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_statement_is_no_read_before_nobody_can_make_a_write_of_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.hold = "60s".into();
        options.budget = "40s".into();
        options.deadline = "30s".into();
        options.grace = "30s".into();
    })
    .await?;
    let migration = pair.client().await?;
    migration
        .batch_execute("CREATE TABLE tt AS SELECT 1 AS k")
        .await?;
    migration.batch_execute(READS).await?;
    let reader = begun(&pair, &["SELECT g() FROM tt"]).await?;
    migration
        .batch_execute("BEGIN; ALTER TABLE tt ADD COLUMN z int")
        .await?;
    migration.batch_execute(WRITES).await?;
    let read = tokio::spawn(async move { value(&reader, "SELECT g() FROM tt").await });
    let waits = "SELECT count(*) FROM pg_locks WHERE NOT granted";
    until("the statement to wait", PATIENCE, async || {
        Ok(pair.a.value(waits).await? == "1")
    })
    .await?;

    let moved = pair.ctl(0, &["switchover", "--to", "b", "--reason", "reads"]);
    let committed = async {
        until("the fence", PATIENCE, async || {
            Ok(pair.group().await?["phase"] == "fenced")
        })
        .await?;
        // Long enough for a proof that came too early.
        pause(Duration::from_millis(300)).await;
        ensure!(!read.is_finished());
        Ok(migration.batch_execute("COMMIT").await?)
    };
    let (moved, committed) = tokio::join!(moved, committed);
    committed?;
    moved?;
    ensure!(read.await?? == "9");
    ensure!(pair.rows(&pair.a).await? == "1");
    ensure!(
        pair.rows(&pair.b).await? == "1",
        "it was drained before it had written"
    );
    Ok(())
}

/// What was proven behind one fence counts again when writes pass, and behind the next one.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_read_under_way_is_judged_anew_behind_each_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.hold = "60s".into();
        options.budget = "40s".into();
        options.deadline = "30s".into();
        options.grace = "0s".into();
    })
    .await?;
    let owner = begun(&pair, &["CREATE TABLE tt AS SELECT 1 AS k", READS]).await?;
    let client = pair.client().await?;
    let other = pair.client().await?;
    let long = tokio::spawn(async move { value(&other, LONG).await });
    let turned = tokio::spawn(async move {
        let rows = client
            .simple_query("SELECT pg_sleep(8); SELECT g() FROM tt")
            .await;
        rows.map(|_| ())
    });
    asleep(&pair, "2").await?;
    let fence = ["drill", "--to", "b", "--fence-only"];
    pair.ctl(0, &fence).await?;
    ensure!(!turned.is_finished() && !long.is_finished());
    owner.batch_execute(WRITES).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "reads"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "30s"]).await?;
    ensure!(
        pair.rows(&pair.a).await? == "1",
        "drained, and it has not written yet"
    );
    turned.await??;
    ensure!(long.await?? == "ended", "what reads is ended by no fence");
    Ok(())
}

/// Clients that connect for every query, and what went wrong.
const CONNECTING: usize = 16;

/// Rehearsals under them: each puts the barrier up and takes it down again.
const REHEARSALS: usize = 8;

/// A login that is under way when the barrier looks is nobody's that it knows by a process id.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn readers_that_connect_for_every_query_notice_no_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Arc::new(Pair::start(|_| ()).await?);
    let over = Arc::new(AtomicBool::new(false));
    let readers: Vec<_> = (0..CONNECTING)
        .map(|_| {
            let (pair, over) = (Arc::clone(&pair), Arc::clone(&over));
            tokio::spawn(async move {
                let mut read = 0_u32;
                while !over.load(Ordering::Relaxed) {
                    let client = pair.client().await?;
                    ensure!(value(&client, "SELECT count(*) FROM t").await? == "0");
                    read += 1;
                }
                anyhow::Ok(read)
            })
        })
        .collect();
    for _ in 0..REHEARSALS {
        pair.ctl(0, &["drill", "--to", "b", "--reason", "reads"])
            .await?;
    }
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "reads"])
        .await?;
    over.store(true, Ordering::Relaxed);
    for reader in readers {
        ensure!(reader.await?? > 0);
    }
    Ok(())
}
