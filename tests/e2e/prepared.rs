//! Two-phase commit: what is prepared is listed, moves along, and is ended on the new primary.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::frames::{Wire, state};
use crate::orphans::{gated_commits, runs};
use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn prepared_transactions_are_listed_and_move_along() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let gate = gated_commits(&pair).await?;
    // One in a database that nobody else uses, one that is being prepared when the fence falls.
    pair.a.query("CREATE DATABASE other").await?;
    let elsewhere = pair.a.connect("postgres", "other").await?;
    elsewhere
        .batch_execute(
            "CREATE TABLE u (a int); BEGIN; INSERT INTO u VALUES (1); PREPARE TRANSACTION 'early'",
        )
        .await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("PREPARE TRANSACTION 'late'").await?;
    runs(&pair, "PREPARE TRANSACTION").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    gate.open().await?;
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    let listed: Vec<_> = drain["stragglers"]
        .as_array()
        .into_iter()
        .flatten()
        .collect();
    ensure!(listed.len() == 2, "{drain}");
    for (found, gid, database) in [
        (listed[0], "early", "other"),
        (listed[1], "late", "postgres"),
    ] {
        ensure!(found["kind"] == "prepared" && found["id"] == gid, "{drain}");
        ensure!(
            found["database"] == database && found["user"] == "postgres",
            "{drain}"
        );
        ensure!(found["age_ms"].is_u64(), "{drain}");
    }
    let group = pair.group().await?;
    ensure!(
        group["in_flight"]["prepared_transactions"].as_u64() == Some(2),
        "{group}"
    );
    ensure!(state(&client.until_ready().await?).is_empty());

    // Its end is a write like any other: it waits, and happens where the transaction is then.
    client.query("COMMIT PREPARED 'late'").await?;
    until("it to be held", SOON, async || {
        Ok(pair.group().await?["in_flight"]["held"].as_u64() == Some(1))
    })
    .await?;
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    ensure!(
        pair.b
            .value("SELECT count(*) FROM pg_prepared_xacts")
            .await?
            == "2"
    );
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer).is_empty(), "{answer:?}");
    ensure!(pair.b.value("SELECT count(*) FROM d").await? == "1");
    ensure!(pair.a.value("SELECT count(*) FROM d").await? == "0");
    let elsewhere = pair.b.connect("postgres", "other").await?;
    elsewhere.batch_execute("COMMIT PREPARED 'early'").await?;
    Ok(())
}

#[tokio::test]
async fn the_end_of_a_prepared_transaction_is_refused_while_fenced() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client
        .ask("BEGIN; INSERT INTO t VALUES (1); PREPARE TRANSACTION 'x'")
        .await?;
    client.ask("BEGIN; INSERT INTO t VALUES (2)").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    // One more of them behind the fence would be known to nobody.
    ensure!(state(&client.ask("PREPARE TRANSACTION 'y'").await?) == "25006");
    client.ask("ROLLBACK").await?;
    for sql in ["COMMIT PREPARED 'x'", "ROLLBACK PREPARED 'x'"] {
        ensure!(state(&client.ask(sql).await?) == "25006", "{sql}");
    }
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(
        pair.a
            .value("SELECT count(*) FROM pg_prepared_xacts")
            .await?
            == "1"
    );
    pair.ctl(0, &["abort"]).await?;
    ensure!(state(&client.ask("COMMIT PREPARED 'x'").await?).is_empty());
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}
