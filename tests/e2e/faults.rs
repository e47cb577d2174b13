//! Wrong targets and foreign writers: refused, with what was found.

use anyhow::{Result, ensure};
use writefence_tests::postgres::{self, Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions, process};

use crate::support::{Pair, sqlstate};

#[tokio::test]
async fn a_candidate_that_cannot_be_reached_blocks_before_anything_happens() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.b.stop().await?;
    pair.ctl(3, &["preflight", "--to", "b"]).await?;
    pair.ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(pair.group().await?["phase"] == "open");
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_server_of_another_cluster_is_no_candidate() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    let mut other = Cluster::create("b", &Options::default()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&a, &other])).await?;
    // Two writable servers: nothing opens by itself.
    let group = daemon.status().await?;
    ensure!(group["phase"] == "fenced", "{group}");
    // Not by a mere word either, while both take writes.
    let answer = daemon.ctl(&["open-writes", "--primary", "a"]).await?;
    ensure!(answer.code == 3, "{}", answer.text);
    other.stop().await?;
    let answer = daemon.ctl(&["open-writes", "--primary", "a"]).await?;
    ensure!(
        answer.code == 0,
        "{}\n{}",
        answer.text,
        process::tail(&daemon.log())
    );
    other.start().await?;
    let answer = daemon
        .ctl(&["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(answer.code == 3, "{}", answer.text);
    ensure!(daemon.status().await?["phase"] == "open");
    Ok(())
}

#[tokio::test]
async fn the_primary_itself_and_unknown_regions_are_no_targets() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.ctl(3, &["switchover", "--to", "a", "--reason", "x"])
        .await?;
    pair.ctl(3, &["switchover", "--to", "nowhere", "--reason", "x"])
        .await?;
    pair.ctl(3, &["prepare", "--primary", "b", "--reason", "x"])
        .await?;
    pair.ctl(1, &["failover", "--to", "b", "--reason", "x"])
        .await?;
    pair.ctl(1, &["frobnicate"]).await?;
    Ok(())
}

#[tokio::test]
async fn a_foreign_writer_is_ended_by_the_barrier() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let foreign = postgres::connect(pair.a.port(), "postgres", "postgres").await?;
    foreign
        .batch_execute("SET default_transaction_read_only = off; BEGIN; INSERT INTO t VALUES (7)")
        .await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(foreign.batch_execute("COMMIT").await.is_err());
    ensure!(pair.rows(&pair.b).await? == "0");
    // The old primary takes no writes of anybody's who does not insist.
    let late = postgres::connect(pair.a.port(), "postgres", "postgres").await?;
    let error = late
        .batch_execute("INSERT INTO t VALUES (8)")
        .await
        .expect_err("barred");
    ensure!(sqlstate(&error) == "25006", "{error}");
    Ok(())
}

#[tokio::test]
async fn a_foreign_writer_that_cannot_be_ended_is_named_with_exit_3() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE TABLE t (a int)").await?;
    // An observer that may do all but end a superuser's session.
    a.query("CREATE ROLE watcher LOGIN REPLICATION").await?;
    a.query("GRANT pg_monitor, pg_signal_backend TO watcher")
        .await?;
    a.query("GRANT EXECUTE ON FUNCTION pg_promote(boolean, integer), pg_reload_conf() TO watcher")
        .await?;
    a.query("GRANT ALTER SYSTEM ON PARAMETER default_transaction_read_only TO watcher")
        .await?;
    // PostgreSQL 15 knows a custom parameter only once it has been set.
    a.query("SET writefence.barrier = ''; GRANT ALTER SYSTEM ON PARAMETER writefence.barrier TO watcher").await?;
    let b = a.standby("b").await?;
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.observer = "watcher".into();
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let foreign = postgres::connect(a.port(), "postgres", "postgres").await?;
    foreign
        .batch_execute("BEGIN; INSERT INTO t VALUES (7)")
        .await?;
    let answer = daemon
        .ctl(&["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(
        answer.code == 3,
        "exit {}: {}\n{}",
        answer.code,
        answer.text,
        process::tail(&daemon.log())
    );
    ensure!(
        answer.text.contains("postgres"),
        "it names nobody: {}",
        answer.text
    );
    ensure!(b.in_recovery().await?);
    foreign.batch_execute("COMMIT").await?;
    Ok(())
}

#[tokio::test]
async fn verbs_of_an_overtaken_run_are_refused_with_6() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(6, &["watch-drain", "--max-wait", "1s", "--run", "nobody"])
        .await?;
    pair.ctl(6, &["abort", "--epoch", "1"]).await?;
    pair.ctl(6, &["switchover", "--to", "b", "--reason", "y"])
        .await?;
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}
