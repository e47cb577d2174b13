//! Preflight: what would stand in the way is told before anything happens, and all the time.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

/// The level and sentence of a finding; the first of that name.
fn finding(document: &Value, name: &str) -> Result<(String, String)> {
    let all = document["findings"].as_array().context("findings")?;
    let found = all.iter().find(|finding| finding["name"] == name);
    let found = found.with_context(|| format!("no finding {name} in {document:#}"))?;
    let text = |key: &str| found[key].as_str().unwrap_or_default().to_owned();
    Ok((text("level"), text("sentence")))
}

async fn preflight(pair: &Pair, code: i32) -> Result<Value> {
    pair.ctl(code, &["preflight", "--to", "b"]).await
}

#[tokio::test]
async fn a_healthy_pair_passes_every_condition_of_a_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let found = preflight(&pair, 0).await?;
    for name in [
        "reachable",
        "primary",
        "candidate",
        "system_identifier",
        "streaming",
        "lag",
        "replay",
        "places",
        "rewind",
        "synchronous",
        "slots",
        "prepared_transactions",
        "transactions",
        "foreign_sessions",
        "rights",
        "sessions",
        "times",
    ] {
        let (level, sentence) = finding(&found, name)?;
        ensure!(level == "pass", "{name}: {level}: {sentence}");
    }
    ensure!(found["level"] == "pass", "{found:#}");
    // A comparison comes before anything else.
    pair.ctl(6, &["preflight", "--to", "b", "--epoch", "1"])
        .await?;
    Ok(())
}

#[tokio::test]
async fn a_candidate_that_never_catches_up_blocks_with_the_way_out() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.b.query("SELECT pg_wal_replay_pause()").await?;
    let found = preflight(&pair, 3).await?;
    let (level, sentence) = finding(&found, "replay")?;
    ensure!(
        level == "block" && sentence.contains("pg_wal_replay_resume()"),
        "{sentence}"
    );
    pair.ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(pair.group().await?["phase"] == "open");
    pair.b.query("SELECT pg_wal_replay_resume()").await?;
    pair.b
        .query("ALTER SYSTEM SET recovery_min_apply_delay = '5s'")
        .await?;
    pair.b.query("SELECT pg_reload_conf()").await?;
    until("the delay to be seen", SOON, async || {
        let found = pair.daemon.ctl(&["preflight", "--to", "b"]).await?;
        Ok(found.code == 3 && found.text.contains("replays 5000 ms late on purpose"))
    })
    .await
}

#[tokio::test]
async fn settings_and_slots_that_the_candidate_lacks_are_named() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a
        .query("SELECT pg_create_physical_replication_slot('unused')")
        .await?;
    // Nobody streams from it, so nobody misses it.
    let (level, sentence) = finding(&preflight(&pair, 0).await?, "slots")?;
    ensure!(level == "pass", "{sentence}");
    pair.b
        .query("ALTER SYSTEM SET synchronous_standby_names = 'nobody'")
        .await?;
    pair.b.query("SELECT pg_reload_conf()").await?;
    until("the setting to be seen", SOON, async || {
        let found = pair.daemon.ctl(&["preflight", "--to", "b"]).await?;
        let hangs = "synchronous_standby_names = 'nobody' and no standby of its own";
        Ok(found.code == 3 && found.text.contains(hangs))
    })
    .await
}

#[tokio::test]
async fn long_and_foreign_sessions_are_named_with_who_holds_them() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.grace = "100ms".into();
        options.deadline = "200ms".into();
    })
    .await?;
    let foreign = postgres::connect(pair.a.port(), "postgres", "postgres").await?;
    foreign
        .batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let own = pair.client().await?;
    own.batch_execute("BEGIN; SELECT 1").await?;
    until("both to be old", SOON, async || {
        let (_, sentence) = finding(&preflight(&pair, 0).await?, "transactions")?;
        Ok(sentence.starts_with("2 transactions") && sentence.contains("not through writefence"))
    })
    .await?;
    let found = preflight(&pair, 0).await?;
    let (level, sentence) = finding(&found, "transactions")?;
    ensure!(
        level == "warn" && sentence.contains("has written"),
        "{sentence}"
    );
    let (level, sentence) = finding(&found, "foreign_sessions")?;
    ensure!(
        level == "warn" && sentence.starts_with("1 sessions on a"),
        "{sentence}"
    );
    Ok(())
}

#[tokio::test]
async fn missing_rights_block_with_the_exact_grants() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE ROLE watcher LOGIN REPLICATION").await?;
    let b = a.standby("b").await?;
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.observer = "watcher".into();
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let answer = daemon.ctl(&["preflight", "--to", "b"]).await?;
    ensure!(answer.code == 3, "{}", answer.text);
    for grant in [
        "GRANT pg_monitor TO watcher;",
        "GRANT pg_signal_backend TO watcher;",
        "GRANT EXECUTE ON FUNCTION pg_reload_conf TO watcher;",
        "GRANT EXECUTE ON FUNCTION pg_promote TO watcher;",
    ] {
        ensure!(
            answer.text.contains(grant),
            "{grant} is not in {}",
            answer.text
        );
    }
    Ok(())
}

#[tokio::test]
async fn another_writefence_in_front_of_the_same_servers_is_noticed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let other = Daemon::start(DaemonOptions::new(&[&pair.a, &pair.b])).await?;
    other.wait_open().await?;
    until("the other to be noticed", SOON, async || {
        let found = preflight(&pair, 0).await?;
        let all = found["findings"].as_array().cloned().unwrap_or_default();
        Ok(all
            .iter()
            .any(|f| f["name"] == "another_writefence" && f["level"] == "warn"))
    })
    .await
}

async fn is_ready(pair: &Pair, wanted: &str) -> Result<bool> {
    let ready = "writefence_preflight_ready{group=\"main\",region=\"b\"}";
    // Before the first look there is no such series.
    Ok(pair.metric(ready).await.is_ok_and(|value| value == wanted))
}

#[tokio::test]
async fn a_candidate_that_could_not_take_over_is_in_the_metrics_before_it_has_to() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.extra = "[group.main.preflight]\ninterval = \"1s\"\n".into();
    })
    .await?;
    until("the candidate to be ready", SOON, async || {
        is_ready(&pair, "1").await
    })
    .await?;
    pair.b.query("SELECT pg_wal_replay_pause()").await?;
    until("it to be found wanting", SOON, async || {
        is_ready(&pair, "0").await
    })
    .await?;
    let blocks = "writefence_preflight_findings{group=\"main\",level=\"block\",region=\"b\"}";
    ensure!(pair.metric(blocks).await? == "1");
    pair.b.query("SELECT pg_wal_replay_resume()").await?;
    until("it to be ready again", SOON, async || {
        is_ready(&pair, "1").await
    })
    .await
}
