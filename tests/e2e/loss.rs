//! Asynchronous replication: what a failover would lose is stated before, what it lost is measured
//! after, and both agree with what clients were told.

use std::time::{Duration, SystemTime};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio_postgres::Client;
use writefence_tests::Relay;
use writefence_tests::eventually::{eventually, until};
use writefence_tests::postgres::skipped;

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

/// An acknowledged row, and where the log ended before and behind it: nobody else writes.
struct Commit {
    n: i32,
    before: u64,
    after: u64,
    at: SystemTime,
}

/// Inserts rows of these numbers, each acknowledged.
async fn write(pair: &Pair, client: &Client, rows: std::ops::Range<i32>) -> Result<Vec<Commit>> {
    let mut commits = Vec::new();
    for n in rows {
        let before = end(pair).await?;
        client
            .batch_execute(&format!("INSERT INTO t VALUES ({n})"))
            .await?;
        let (after, at) = (end(pair).await?, SystemTime::now());
        commits.push(Commit {
            n,
            before,
            after,
            at,
        });
    }
    Ok(commits)
}

async fn end(pair: &Pair) -> Result<u64> {
    let text = pair.a.value("SELECT pg_current_wal_insert_lsn()").await?;
    lsn(&Value::from(text))
}

fn lsn(text: &Value) -> Result<u64> {
    let parts = text.as_str().and_then(|text| text.split_once('/'));
    let (high, low) = parts.with_context(|| format!("{text} is no position"))?;
    Ok((u64::from_str_radix(high, 16)? << 32) | u64::from_str_radix(low, 16)?)
}

/// Which rows the new primary does not have.
async fn lost(pair: &Pair, commits: &[Commit]) -> Result<Vec<i32>> {
    let client = pair.b.connect("postgres", "postgres").await?;
    let rows = client.query("SELECT a FROM t", &[]).await?;
    let there: Vec<i32> = rows.iter().map(|row| row.get(0)).collect();
    let all = commits.iter().map(|commit| commit.n);
    Ok(all.filter(|n| !there.contains(n)).collect())
}

async fn report(pair: &Pair) -> Result<Value> {
    pair.ctl(0, &["report", "--format", "json"]).await
}

#[tokio::test]
async fn what_an_asynchronous_failover_loses_is_stated_before_and_measured_after() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let stream = Relay::start(pair.a.port()).await?;
    pair.b.stream_through(&pair.a, stream.port()).await?;
    let client = pair.client().await?;
    let mut commits = write(&pair, &client, 1..21).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    stream.black_hole();
    commits.extend(write(&pair, &client, 21..41).await?);
    let seen_end = commits.last().context("a commit")?.after;
    until("the daemon to have seen these", SOON, async || {
        Ok(lsn(&pair.group().await?["regions"][0]["lsn"])? >= seen_end)
    })
    .await?;
    commits.extend(write(&pair, &client, 41..51).await?);
    pair.a.kill()?;
    stream.cut();

    // Before: the least, from what was seen and what has arrived.
    let dry = [
        "failover",
        "--to",
        "b",
        "--reason",
        "fire",
        "--accept-loss",
        "--confirm",
    ];
    let plan = pair.ctl(0, &[&dry[..], &["--dry-run"]].concat()).await?;
    let stated = plan["plan"]["loss"].clone();
    let least = stated["at_least_bytes"].as_u64().context("a figure")?;
    let findings = plan["findings"].to_string();
    ensure!(
        least > 0 && findings.contains(&format!("at least {least} bytes")),
        "{plan:#}"
    );
    let run = pair.ctl(0, &dry).await?;
    ensure!(run["state"] == "done", "{run:#}");

    // After: the rows that are lost are those behind the fork, and no other.
    let after = report(&pair).await?;
    let fork = lsn(&after["lineage"]["fork_lsn"])?;
    let lost = lost(&pair, &commits).await?;
    for commit in &commits {
        let is_lost = lost.contains(&commit.n);
        ensure!(!(is_lost && commit.after <= fork), "{} is lost", commit.n);
        ensure!(is_lost || commit.before < fork, "{} is there", commit.n);
    }
    ensure!(lost == (21..51).collect::<Vec<i32>>(), "{lost:?}");
    ensure!(
        after["loss"]["stated"]["at_least_bytes"].as_u64() == Some(least),
        "{after:#}"
    );
    let first = &after["loss"]["measured"];
    let (from, to) = (lsn(&first["from_lsn"])?, lsn(&first["to_lsn"])?);
    ensure!(
        from == fork && to >= seen_end && first["seen_again"] == false,
        "{first}"
    );
    // What had arrived of a record in part is not in the fork: so measured is stated or more.
    ensure!(
        first["bytes"].as_u64() == Some(to - from) && to - from >= least,
        "{first}"
    );
    ensure!(
        run["exceptions"]
            .to_string()
            .contains(&format!("at least {} bytes of its log are lost", to - from)),
        "{run:#}"
    );
    // Whatever is lost and was seen was committed within the stated time.
    let last_seen = humantime::parse_rfc3339(stated["last_seen"].as_str().context("a time")?)?;
    let window = Duration::from_millis(stated["window_ms"].as_u64().context("a time")?);
    for commit in commits.iter().filter(|c| c.n > 20 && c.at < last_seen) {
        let before = last_seen.duration_since(commit.at)?;
        ensure!(before <= window, "{} was {before:?} before", commit.n);
    }

    // The old primary is there again: now its whole log is seen.
    pair.a.start().await?;
    let whole = eventually("the old primary's log to be seen", SOON, async || {
        let measured = report(&pair).await?["loss"]["measured"].clone();
        Ok((measured["seen_again"] == true).then_some(measured))
    })
    .await?;
    let (from, to) = (lsn(&whole["from_lsn"])?, lsn(&whole["to_lsn"])?);
    ensure!(
        from == fork && commits.iter().all(|c| c.after <= to),
        "{whole}"
    );
    let behind = commits.iter().filter(|c| c.after > from && c.after <= to);
    ensure!(behind.map(|c| c.n).collect::<Vec<_>>() == lost, "{whole}");
    let shown = pair.ctl(0, &["audit", "show"]).await?.to_string();
    ensure!(
        shown.contains("loss_stated") && shown.contains(&whole["to_lsn"].to_string()),
        "{shown}"
    );
    // It stays in the run's journal.
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    ensure!(report(&pair).await?["loss"]["measured"] == whole);
    Ok(())
}

#[tokio::test]
async fn single_steps_state_the_loss_before_they_promote_as_well() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let stream = Relay::start(pair.a.port()).await?;
    pair.b.stream_through(&pair.a, stream.port()).await?;
    let client = pair.client().await?;
    write(&pair, &client, 1..11).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    stream.black_hole();
    let commits = write(&pair, &client, 11..21).await?;
    let seen_end = commits.last().context("a commit")?.after;
    until("the daemon to have seen these", SOON, async || {
        Ok(lsn(&pair.group().await?["regions"][0]["lsn"])? >= seen_end)
    })
    .await?;
    pair.a.kill()?;
    stream.cut();

    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "fire"])
        .await?;
    let promote = ["promote", "--new-primary", "b", "--confirm"];
    let refused = pair.ctl(3, &promote).await?;
    ensure!(
        report(&pair).await?["loss"]["stated"].is_null(),
        "{refused:#}"
    );
    let run = pair
        .ctl(0, &[&promote[..], &["--accept-loss"]].concat())
        .await?;
    let stated = report(&pair).await?["loss"].clone();
    let least = stated["stated"]["at_least_bytes"].as_u64();
    let measured = stated["measured"]["bytes"].as_u64();
    ensure!(least > Some(0) && measured >= least, "{stated:#} {run:#}");
    let shown = pair.ctl(0, &["audit", "show"]).await?.to_string();
    let (before, behind) = (shown.find("loss_stated"), shown.find("point_of_no_return"));
    ensure!(before.is_some() && before < behind, "{shown}");
    Ok(())
}
