//! Reads that are under way when the primary moves go on where they are, to their end.

use std::time::Duration;

use anyhow::{Result, ensure};
use futures_util::TryStreamExt as _;
use tokio_postgres::Client;
use writefence_tests::eventually::{pause, until};
use writefence_tests::postgres::skipped;

use crate::support::{Pair, value};

/// Longer than a switchover takes.
const LONG: &str = "SELECT 'ended' FROM pg_sleep(8)";

/// Grace: what an open transaction that may still write holds a switchover up by.
const GRACE: &str = "30s";

async fn begun(pair: &Pair, statements: &[&str]) -> Result<Client> {
    let client = pair.client().await?;
    for sql in statements {
        client.batch_execute(sql).await?;
    }
    Ok(client)
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

    let rows = "COPY (SELECT repeat('x', 1000) FROM generate_series(1, 100000)) TO STDOUT";
    let copy = copying.copy_out(rows).await?;
    let long = tokio::spawn(async move { (value(&alone, LONG).await, alone) });
    let inside = tokio::spawn(async move { (value(&within, LONG).await, within) });
    pause(Duration::from_millis(300)).await;

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
    until("the loss to be told", Duration::from_secs(5), async || {
        Ok(value(&other, "SELECT 1").await.is_err())
    })
    .await?;
    other.batch_execute("ROLLBACK").await?;
    other.batch_execute("INSERT INTO t VALUES (3)").await?;
    ensure!(pair.rows(&pair.b).await? == "2");
    Ok(())
}
