//! What the machine may do to the daemon: a state directory that takes nothing, a stop in the
//! middle, a message larger than any buffer. The fence stands, and what is said is true.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;
use writefence_tests::process::Signal;

use crate::support::{Pair, sqlstate};

const SOON: Duration = Duration::from_secs(30);

const PREPARE: [&str; 6] = ["prepare", "--primary", "a", "--reason", "x", "--reject"];

#[tokio::test]
async fn a_fence_that_cannot_be_stored_stands_and_says_so_and_can_be_lifted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    // Where the next record is to be written there is something that cannot be written to, for root
    // neither.
    let blocked = pair.daemon.state_dir().join("gate/main.new");
    std::fs::create_dir(&blocked)?;
    let error = pair.ctl(3, &PREPARE).await?;
    ensure!(error["error"]["code"] == "storage", "{error}");
    let group = pair.group().await?;
    ensure!(
        group["phase"] == "fenced" && group["run"]["next"] == "abort",
        "{group}"
    );
    let refused = client.batch_execute("INSERT INTO t VALUES (1)").await;
    ensure!(sqlstate(&refused.expect_err("it is fenced")) == "25006");
    // It cannot be opened either while that cannot be stored.
    pair.ctl(3, &["abort"]).await?;
    ensure!(pair.group().await?["phase"] == "fenced");
    std::fs::remove_dir(&blocked)?;
    pair.ctl(0, &["abort"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_run_that_cannot_be_journaled_does_not_begin() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let runs = pair.daemon.state_dir().join("runs");
    std::fs::rename(&runs, runs.with_extension("away"))?;
    std::fs::write(&runs, "")?;
    let error = pair.ctl(3, &PREPARE).await?;
    ensure!(error["error"]["code"] == "storage", "{error}");
    // Who asks for a fence has one, though a restart would not know of it.
    ensure!(pair.group().await?["phase"] == "fenced");
    let refused = client.batch_execute("INSERT INTO t VALUES (1)").await;
    let state = refused.as_ref().err().and_then(|e| e.code());
    ensure!(
        state.is_some_and(|code| code.code() == "25006"),
        "{refused:?}"
    );
    std::fs::remove_file(&runs)?;
    std::fs::rename(runs.with_extension("away"), &runs)?;
    // No run is there to be aborted: who lets writes go says where.
    pair.ctl(0, &["open-writes", "--primary", "a"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    pair.ctl(0, &PREPARE).await?;
    Ok(())
}

#[tokio::test]
async fn a_daemon_that_was_stopped_answers_nobody_and_goes_on_where_it_was() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let held = tokio::spawn(async move { client.batch_execute("INSERT INTO t VALUES (1)").await });
    pair.until_held(1).await?;
    pair.daemon.signal(Signal::STOP)?;
    let answer = pair.daemon.ctl(&["--timeout", "300ms", "status"]).await?;
    pair.daemon.signal(Signal::CONT)?;
    ensure!(answer.code == 2, "{}", answer.text);
    until("the daemon to answer again", SOON, async || {
        let group = pair.group().await?;
        Ok(group["phase"] == "fenced" && group["in_flight"]["held"] == 1)
    })
    .await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    pair.ctl(0, &["abort"]).await?;
    held.await??;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_write_too_large_to_be_looked_into_is_refused_behind_a_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &PREPARE).await?;
    let text = "x".repeat(64 * 1024 * 1024);
    let refused = client
        .batch_execute(&format!("SELECT length('{text}')"))
        .await;
    ensure!(sqlstate(&refused.expect_err("it is fenced")) == "25006");
    client.batch_execute("SELECT 1").await?;
    Ok(())
}
