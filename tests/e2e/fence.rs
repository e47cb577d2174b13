//! What single clients see of a fence: refusals, holds, cancels, transactions.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::{eventually, pause, until};
use writefence_tests::postgres::skipped;

use crate::support::{Gate, Pair, Raw, sqlstate};

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn reject_refuses_writes_as_not_executed_and_lets_reads_go_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    for sql in [
        "INSERT INTO t VALUES (1)",
        "CREATE TABLE u (a int)",
        "SELECT nextval('nosuch')",
        "BEGIN; INSERT INTO t VALUES (1); COMMIT",
    ] {
        let error = client.batch_execute(sql).await.expect_err(sql);
        ensure!(sqlstate(&error) == "25006", "{sql}: {error}");
        // As with PostgreSQL, a BEGIN before the refused statement leaves a failed transaction.
        client.batch_execute("ROLLBACK").await?;
        client.batch_execute("SELECT count(*) FROM t").await?;
    }
    let error = client
        .execute("INSERT INTO t VALUES ($1)", &[&1i32])
        .await
        .expect_err("extended");
    ensure!(sqlstate(&error) == "25006", "{error}");
    client.query("SELECT $1::int", &[&1i32]).await?;
    // A transaction that only reads goes on; a write in it fails it.
    client.batch_execute("BEGIN").await?;
    client.batch_execute("SELECT count(*) FROM t").await?;
    let error = client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect_err("write");
    ensure!(sqlstate(&error) == "25006", "{error}");
    let error = client
        .batch_execute("SELECT 1")
        .await
        .expect_err("failed transaction");
    ensure!(sqlstate(&error) == "25P02", "{error}");
    client.batch_execute("ROLLBACK").await?;
    pair.ctl(0, &["abort"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_held_write_runs_once_after_open() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let write = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (1)").await });
    pair.until_held(1).await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    pair.ctl(0, &["abort"]).await?;
    write.await??;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_held_write_leaves_by_its_own_deadline() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(
        0,
        &[
            "prepare",
            "--primary",
            "a",
            "--reason",
            "x",
            "--hold",
            "300ms",
        ],
    )
    .await?;
    let error = client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect_err("expired");
    ensure!(sqlstate(&error) == "25006", "{error}");
    pair.ctl(0, &["abort"]).await?;
    ensure!(
        pair.rows(&pair.a).await? == "0",
        "refused means not executed"
    );
    Ok(())
}

#[tokio::test]
async fn cancel_of_a_held_write_is_answered_here() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let token = client.cancel_token();
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let write = tokio::spawn(async move {
        let first = client.batch_execute("INSERT INTO t VALUES (1)").await;
        (first, client.batch_execute("SELECT 1").await)
    });
    pair.until_held(1).await?;
    token.cancel_query(tokio_postgres::NoTls).await?;
    let (first, second) = write.await?;
    let error = first.expect_err("cancelled");
    ensure!(sqlstate(&error) == "57014", "{error}");
    second?;
    pair.ctl(0, &["abort"]).await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}

#[tokio::test]
async fn cancel_reaches_a_running_statement_and_no_later_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let token = client.cancel_token();
    let asleep = tokio::spawn(async move {
        let first = client.batch_execute("SELECT pg_sleep(30)").await;
        (first, client.batch_execute("SELECT pg_sleep(0.05)").await)
    });
    until("the statement to run", SOON, async || {
        let n = pair.a.value("SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(30)' AND state = 'active'").await?;
        Ok(n == "1")
    })
    .await?;
    token.cancel_query(tokio_postgres::NoTls).await?;
    let (first, second) = asleep.await?;
    ensure!(sqlstate(&first.expect_err("cancelled")) == "57014");
    second?;
    Ok(())
}

#[tokio::test]
async fn a_held_write_whose_client_leaves_is_never_run() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Raw::login(pair.daemon.port()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    client.send("INSERT INTO t VALUES (1)").await?;
    pair.until_held(1).await?;
    drop(client);
    pair.until_held(0).await?;
    pair.ctl(0, &["abort"]).await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (2)")
        .await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_write_whose_client_left_keeps_the_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    // Once the grace is over it would be cancelled.
    let pair = Pair::start(|o| {
        o.grace = "60s".into();
        o.deadline = "60s".into();
    })
    .await?;
    let mut client = Raw::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    client
        .send(&format!("SELECT {}; INSERT INTO t VALUES (1)", Gate::WAIT))
        .await?;
    until("the statement to run", SOON, async || {
        Ok(pair.group().await?["in_flight"]["executing"].as_u64() == Some(1))
    })
    .await?;
    drop(client);
    until("the orphan to be seen", SOON, async || {
        Ok(pair.group().await?["in_flight"]["orphaned"].as_u64() == Some(1))
    })
    .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "8s"]).await?;
    ensure!(
        pair.rows(&pair.a).await? == "1",
        "drained means that it has ended"
    );
    Ok(())
}

#[tokio::test]
async fn a_drain_that_times_out_says_who_and_exits_with_4() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let sql = "INSERT INTO t SELECT 1 FROM pg_sleep(30)";
    let write = tokio::spawn(async move { client.batch_execute(sql).await });
    until("the statement to run", SOON, async || {
        Ok(pair.group().await?["in_flight"]["executing"].as_u64() == Some(1))
    })
    .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    let group = pair.group().await?;
    ensure!(group["phase"] == "fenced", "the fence stays: {group}");
    ensure!(
        group["drain"]["stragglers"]
            .as_array()
            .is_some_and(|s| s.len() == 1),
        "{group}"
    );
    pair.ctl(0, &["watch-drain", "--max-wait", "5s", "--force"])
        .await?;
    let error = write.await?.expect_err("cancelled by --force");
    ensure!(sqlstate(&error) == "57014", "{error}");
    Ok(())
}

#[tokio::test]
async fn an_open_transaction_may_end_in_its_grace_and_is_then_sealed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    // Long enough that the write below is within it on any machine.
    let pair = Pair::start(|o| {
        o.grace = "3s".into();
        o.deadline = "60s".into();
    })
    .await?;
    let (wrote, read) = (pair.client().await?, pair.client().await?);
    wrote
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    read.batch_execute("BEGIN; SELECT 1").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    wrote.batch_execute("INSERT INTO t VALUES (2)").await?;
    // The grace over, the one that has not written stops counting, and may not write any more.
    eventually("the reading transaction to be sealed", SOON, async || {
        let group = pair.group().await?;
        Ok((group["in_flight"]["open_transactions"].as_u64() == Some(1)).then_some(()))
    })
    .await?;
    let error = read
        .batch_execute("INSERT INTO t VALUES (3)")
        .await
        .expect_err("sealed");
    ensure!(sqlstate(&error) == "25006", "{error}");
    wrote.batch_execute("COMMIT").await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(pair.rows(&pair.a).await? == "2");
    Ok(())
}

#[tokio::test]
async fn the_virtual_variable_is_the_clients_own() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let show = async |name: &str| -> Result<String> {
        let rows = client.simple_query(&format!("SHOW {name}")).await?;
        let value = rows.iter().find_map(|m| match m {
            tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
            _ => None,
        });
        Ok(value.unwrap_or_default())
    };
    ensure!(show("transaction_read_only").await? == "off");
    ensure!(show("default_transaction_read_only").await? == "off");
    for way_out in [
        "SET default_transaction_read_only = off",
        "RESET ALL",
        "SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE",
    ] {
        client.batch_execute(way_out).await?;
        let error = client
            .batch_execute("INSERT INTO t VALUES (1)")
            .await
            .expect_err(way_out);
        ensure!(sqlstate(&error) == "25006", "{way_out}: {error}");
    }
    client
        .batch_execute("SET default_transaction_read_only = on")
        .await?;
    pair.ctl(0, &["abort"]).await?;
    let error = client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect_err("its own wish");
    ensure!(sqlstate(&error) == "25006", "{error}");
    client
        .batch_execute("RESET default_transaction_read_only")
        .await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn once_drained_no_write_lands_however_fast_the_fence_falls_again() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut writers = Vec::new();
    for _ in 0..20 {
        let client = pair.client().await?;
        writers.push(tokio::spawn(async move {
            let mut acked = 0u64;
            while client
                .batch_execute("INSERT INTO t VALUES (1)")
                .await
                .is_ok()
            {
                acked += 1;
            }
            acked
        }));
    }
    for round in 0..12 {
        pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
            .await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
        let drained = pair.rows(&pair.a).await?;
        pause(Duration::from_millis(50)).await;
        ensure!(
            pair.rows(&pair.a).await? == drained,
            "round {round}: a write behind the fence"
        );
        // The next fence falls while the held writes of this one are being released.
        pair.ctl(0, &["abort"]).await?;
    }
    for writer in &writers {
        writer.abort();
    }
    Ok(())
}
