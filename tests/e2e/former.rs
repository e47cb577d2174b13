//! Old primaries: what shows that they are gone, what they hold that nobody else has, and what
//! happens when one comes back and takes writes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, skipped};

use crate::support::{Pair, page, sqlstate};

const SOON: Duration = Duration::from_secs(30);
const FAILOVER: [&str; 7] = [
    "failover",
    "--to",
    "b",
    "--reason",
    "INC-1",
    "--accept-loss",
    "--confirm",
];

/// A script of the shell that does this, in a folder that goes with the test. Run by `sh`: a file
/// that was just written may be held open by a process that is being started elsewhere.
pub(crate) fn program(folder: &Path, name: &str, lines: &str) -> Result<PathBuf> {
    let path = folder.join(name);
    fs::write(&path, format!("{lines}\n"))?;
    Ok(path)
}

fn evidence(run: &Value) -> (&str, &str) {
    let found = &run["certificate"]["evidence"];
    let text = |key: &str| found[key].as_str().unwrap_or_default();
    (text("kind"), text("detail"))
}

#[tokio::test]
async fn a_dead_primary_is_shown_to_be_powered_down_by_the_users_program() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let log = folder.path().join("log");
    let lines = format!(
        "echo \"$WRITEFENCE_REGION $WRITEFENCE_RUN\" >> {}; echo outlet 7 is off",
        log.display()
    );
    let off = program(folder.path(), "power-off", &lines)?;
    let no = program(folder.path(), "is-stopped", "echo no idea >&2; exit 1")?;
    let mut pair = Pair::start(|options| {
        options.extra = format!(
            "[group.main.evidence]\nstopped = [\"sh\", \"{}\"]\nstonith = [\"sh\", \"{}\"]\n",
            no.display(),
            off.display()
        );
    })
    .await?;
    pair.a.kill()?;
    let run = pair.ctl(0, &FAILOVER).await?;
    let (kind, detail) = evidence(&run);
    ensure!(
        kind == "stonith" && detail.contains("outlet 7 is off"),
        "{kind}: {detail}"
    );
    let told = fs::read_to_string(&log)?;
    ensure!(
        told == format!("a {}\n", run["id"].as_str().unwrap_or("?")),
        "{told}"
    );
    ensure!(pair.group().await?["primary"] == "b");
    Ok(())
}

#[tokio::test]
async fn without_any_evidence_single_steps_stop_with_3_and_a_failover_names_who_overrode()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    pair.a.kill()?;
    let stopped = pair
        .ctl(3, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    ensure!(
        stopped["error"]["code"] == "evidence_missing",
        "{stopped:#}"
    );
    let run = pair.ctl(0, &FAILOVER).await?;
    let (kind, detail) = evidence(&run);
    ensure!(
        kind == "override" && detail.contains("(INC-1)"),
        "{kind}: {detail}"
    );
    ensure!(detail.contains("uid="), "it names nobody: {detail}");
    Ok(())
}

#[tokio::test]
async fn an_old_primary_that_returns_writable_raises_the_alarm_and_gets_no_write() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.a.kill()?;
    pair.ctl(0, &FAILOVER).await?;
    ensure!(pair.metric("writefence_split_brain{").await? == "0");
    pair.a.start().await?;
    until("the alarm", SOON, async || {
        let notices = pair.group().await?["notices"].clone();
        let first = notices[0].as_str().unwrap_or_default().to_owned();
        Ok(first.starts_with("SPLIT BRAIN: a takes writes"))
    })
    .await?;
    ensure!(pair.metric("writefence_split_brain{").await? == "1");
    let health: Value = serde_json::from_str(&page(&pair.daemon, "/healthz").await?)?;
    let component = &health["components"]["split_brain/main"];
    ensure!(component["status"] == "failed", "{health:#}");
    until("it to be in the log", SOON, async || {
        Ok(fs::read_to_string(pair.daemon.log())?.contains("SPLIT BRAIN"))
    })
    .await?;
    let checked = pair.ctl(7, &["verify", "--primary", "b"]).await?;
    ensure!(
        checked.to_string().contains("a takes writes too"),
        "{checked:#}"
    );
    // Nothing of ours goes there.
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    ensure!(pair.rows(&pair.a).await? == "0" && pair.rows(&pair.b).await? == "1");
    // What it holds alone is named, with the way back.
    let notices = pair.group().await?["notices"].to_string();
    ensure!(
        notices.contains("of timeline 1") && notices.contains("pg_rewind"),
        "{notices}"
    );
    let Pair { a, b, .. } = &mut pair;
    a.rejoin(b).await?;
    until("the alarm to end", SOON, async || {
        Ok(pair.metric("writefence_split_brain{").await? == "0")
    })
    .await?;
    // The failback is a switchover as any other.
    pair.ctl(0, &["switchover", "--to", "a", "--reason", "failback"])
        .await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_write_on_the_barred_old_primary_raises_the_alarm() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    until("the old side to be seen barred", SOON, async || {
        let region = pair.group().await?["regions"][0].clone();
        Ok(region["writable"] == false && region["role"] == "primary")
    })
    .await?;
    // Time for a false alarm, by what the move itself left there.
    writefence_tests::eventually::pause(Duration::from_millis(2500)).await;
    ensure!(pair.metric("writefence_split_brain{").await? == "0");
    let foreign = postgres::connect(pair.a.port(), "postgres", "postgres").await?;
    let refused = foreign.batch_execute("INSERT INTO t VALUES (1)").await;
    ensure!(refused.is_err_and(|error| sqlstate(&error) == "25006"));
    // The mark from which on a write shows is set by a probe after the move, whenever that comes.
    until("the alarm", SOON, async || {
        foreign
            .batch_execute("BEGIN READ WRITE; INSERT INTO t VALUES (1); COMMIT")
            .await?;
        let notices = pair.group().await?["notices"].clone();
        Ok(notices[0]
            .as_str()
            .context("a notice")?
            .contains("somebody wrote on a"))
    })
    .await
}
