//! Transactions that have failed, and whose clients have not said so yet.

use anyhow::{Result, ensure};
use writefence_tests::postgres::skipped;

use crate::support::{Pair, sqlstate, value};

#[tokio::test]
async fn a_failed_transaction_keeps_no_move_waiting_unless_it_can_go_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.grace = "30s".into();
        options.deadline = "30s".into();
        options.budget = "40s".into();
        options.hold = "60s".into();
    })
    .await?;
    let failed = async |sql: &str| {
        let client = pair.client().await?;
        client.batch_execute("BEGIN").await?;
        client.batch_execute(sql).await?;
        let error = client.batch_execute("SELECT 1 / 0").await;
        ensure!(sqlstate(&error.expect_err("it divides by zero")) == "22012");
        Ok(client)
    };
    let (plain, chained) = (
        failed("INSERT INTO t VALUES (1)").await?,
        failed("SELECT 1").await?,
    );
    let returns = failed("SAVEPOINT s; INSERT INTO t VALUES (2)").await?;

    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let waits = pair.group().await?["in_flight"].clone();
    ensure!(waits["open_transactions"] == 1, "{waits}");
    pair.ctl(4, &["watch-drain", "--max-wait", "100ms"]).await?;
    returns
        .batch_execute("ROLLBACK TO s; INSERT INTO t VALUES (3)")
        .await?;
    returns.batch_execute("COMMIT").await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    // What an AND CHAIN begins behind the fence writes nothing.
    chained.batch_execute("ROLLBACK AND CHAIN").await?;
    let refused = chained.batch_execute("INSERT INTO t VALUES (4)").await;
    ensure!(sqlstate(&refused.expect_err("it is fenced")) == "25006");
    pair.ctl(0, &["abort"]).await?;

    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    for client in [&plain, &chained] {
        let ignored = client.batch_execute("INSERT INTO t VALUES (5)").await;
        ensure!(sqlstate(&ignored.expect_err("it has failed")) == "25P02");
        client.batch_execute("ROLLBACK").await?;
        client.batch_execute("INSERT INTO t VALUES (6)").await?;
        let port = value(client, "SHOW port").await?;
        ensure!(port == pair.b.port().to_string(), "{port}");
    }
    let there = pair
        .b
        .value("SELECT string_agg(a::text, ',') FROM t")
        .await?;
    ensure!(there == "3,6,6", "{there}");
    Ok(())
}
