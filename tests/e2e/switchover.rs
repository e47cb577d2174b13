//! Planned moves under the ledger's load: nothing lost, nothing doubled, nobody disturbed.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::pause;
use writefence_tests::ledger::{Plan, Rows, Window};
use writefence_tests::postgres::skipped;
use writefence_tests::{DaemonOptions, Ledger};

use crate::support::Pair;

/// Load before and after a move: every client comes to its turn many times.
const AROUND: Duration = Duration::from_millis(700);

async fn there_and_back(pair: &mut Pair, ledger: &Ledger, to: &str) -> Result<()> {
    let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    pause(AROUND).await;
    let from = load.now();
    pair.ctl(0, &["switchover", "--to", to, "--reason", "test"])
        .await?;
    pause(AROUND).await;
    let window = Window {
        from,
        to: load.now(),
    };
    let (new, old) = if to == "b" {
        (&pair.b, &pair.a)
    } else {
        (&pair.a, &pair.b)
    };
    let left = Rows::read(old, load.run()).await.ok();
    let history = load.stop().await?;
    let report = ledger.check(&history, window, new, left.as_ref()).await?;
    let f = &report.findings;
    ensure!(
        f.acked_lost.is_empty(),
        "acknowledged and lost: {:?}\n{report}",
        f.acked_lost
    );
    ensure!(
        f.acked_only_on_old.is_empty(),
        "acknowledged only on the old primary\n{report}"
    );
    ensure!(
        f.duplicates.is_empty(),
        "doubled: {:?}\n{report}",
        f.duplicates
    );
    ensure!(
        f.refused_present.is_empty() && f.failed_present.is_empty(),
        "refused, yet there\n{report}"
    );
    ensure!(report.errors() == 0, "clients saw errors\n{report}");
    ensure!(
        report.connections_lost() == 0,
        "connections were closed\n{report}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_planned_switchover_there_and_back_shows_no_error_to_any_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(DaemonOptions::be_patient).await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    there_and_back(&mut pair, &ledger, "b").await?;
    let Pair { a, b, .. } = &mut pair;
    a.rejoin(b).await?;
    there_and_back(&mut pair, &ledger, "a").await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_six_commands_of_the_runbook_move_the_primary() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["preflight", "--to", "b"]).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "SEV1"])
        .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "SEV1"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    // Without --confirm nothing is promoted.
    pair.ctl(1, &["promote", "--new-primary", "b"]).await?;
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(3, &["abort"]).await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    pair.ctl(0, &["verify", "--primary", "b"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.b).await? == "1");
    ensure!(pair.group().await?["primary"] == "b");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_before_the_point_of_no_return_opens_where_writes_were() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let before = pair.group().await?["epoch"].as_u64().unwrap_or(0);
    pair.ctl(0, &["abort"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    let group = pair.group().await?;
    ensure!(
        group["phase"] == "open" && group["epoch"].as_u64() > Some(before),
        "{group}"
    );
    pair.ctl(3, &["abort"]).await?;
    Ok(())
}
