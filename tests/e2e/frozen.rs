//! A primary that hangs: its processes stand still, its connections stay open, and nothing answers.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::time::timeout;
use writefence_tests::postgres::{self, skipped};

use crate::support::{Pair, sqlstate, value};

/// Far below the time that a server has to answer a question of ours in this test.
const SOON: Duration = Duration::from_secs(20);

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_from_a_primary_that_hangs_frees_what_waits_there() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        "[limits]\nconnect_timeout = \"60s\"\n".clone_into(&mut options.extra);
    })
    .await?;
    let (idle, reading, inside) = tokio::try_join!(pair.client(), pair.client(), pair.client())?;
    ensure!(value(&idle, "SELECT 1").await? == "1");
    inside.batch_execute("BEGIN READ ONLY; SELECT 1").await?;
    pair.a.freeze()?;
    let waiting = tokio::spawn(async move {
        let read = value(&reading, "SELECT 2").await;
        (reading, read)
    });
    let port = pair.daemon.port();
    let arriving = tokio::spawn(postgres::connect(port, "postgres", "postgres"));
    let moved = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &moved).await?;
    let (reading, read) = timeout(SOON, waiting).await.context("the read waits")??;
    let error = read.err().context("the read was answered")?;
    let error = error.downcast_ref().context("not of the server's")?;
    ensure!(sqlstate(error) == "08006", "{error:?}");
    let arrived = timeout(SOON, arriving).await.context("a login waits")???;
    for client in [&idle, &reading, &arrived] {
        let here = value(
            client,
            "SELECT pg_is_in_recovery()::text || inet_server_port()",
        );
        let here = timeout(SOON, here).await.context("a session waits")??;
        ensure!(here == format!("false{}", pair.b.port()), "{here}");
    }
    let error = inside.batch_execute("SELECT 1").await.err();
    ensure!(error.is_some_and(|e| sqlstate(&e) == "25P02"));
    inside.batch_execute("ROLLBACK").await?;
    inside.batch_execute("INSERT INTO t VALUES (1)").await?;
    pair.a.thaw();
    Ok(())
}
