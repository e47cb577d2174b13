//! Traps of the protocol that have no better place; tests/TRAPS.md has the list of all of them.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::support::{Pair, sqlstate};

const SOON: Duration = Duration::from_secs(5);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_commit_whose_transaction_was_lost_is_an_error_and_no_rollback_in_disguise() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let (commits, goes_on) = (pair.client().await?, pair.client().await?);
    for client in [&commits, &goes_on] {
        client.batch_execute("BEGIN").await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
    }
    pair.a.kill()?;
    // Lost while the clients ask for nothing, so nobody has told them.
    until("the daemon to see the loss", SOON, async || {
        Ok(pair.group().await?["in_flight"]["open_transactions"] == 0)
    })
    .await?;
    pair.a.start().await?;
    let error = commits
        .batch_execute("COMMIT")
        .await
        .expect_err("it was lost");
    ensure!(sqlstate(&error) == "08006", "{error}");
    let error = goes_on
        .batch_execute("SELECT 1")
        .await
        .expect_err("it was lost");
    ensure!(sqlstate(&error) == "25P02", "{error}");
    goes_on.batch_execute("ROLLBACK").await?;
    for client in [&commits, &goes_on] {
        until("writes to pass", SOON, async || {
            client.batch_execute("INSERT INTO t VALUES (2)").await?;
            Ok(true)
        })
        .await?;
    }
    ensure!(pair.a.value("SELECT count(*) FROM t WHERE a = 1").await? == "0");
    Ok(())
}
