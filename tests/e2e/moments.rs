//! The daemon killed at random moments of a move, under load: whatever it was doing, what comes
//! back can be resumed or taken back, and the ledger has nothing lost, doubled or left over. A move
//! is a switchover, a failover of a primary that still answers, or a runbook of single steps.
//!
//! A few moments on every test run, `WRITEFENCE_CRASHES=100` for a soak; `WRITEFENCE_SEED` repeats
//! one that failed.

use std::env;
use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::{Plan, Window};
use writefence_tests::postgres::skipped;
use writefence_tests::{Ledger, process};

use crate::support::Pair;

/// Moments on an ordinary test run.
const MOMENTS: u64 = 4;

/// From the command to the kill, at most: longer than a switchover takes, so that some moments are
/// behind its end.
const WITHIN_MS: u64 = 500;

const SOON: Duration = Duration::from_secs(30);

/// Small and the same everywhere (splitmix64), so that a seed repeats a run for years.
struct Dice(u64);

impl Dice {
    fn below(&mut self, n: u64) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        (z ^ (z >> 31)) % n
    }
}

fn number(name: &str, otherwise: u64) -> Result<u64> {
    match env::var(name) {
        Ok(text) => text.parse().with_context(|| format!("{name}={text}")),
        Err(_) => Ok(otherwise),
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_at_random_moments_under_load_it_ends_right() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (moments, seed) = (
        number("WRITEFENCE_CRASHES", MOMENTS)?,
        number("WRITEFENCE_SEED", 1)?,
    );
    let mut dice = Dice(seed);
    let mut pair = Pair::start(|_| ()).await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    let mut ends = Vec::new();
    for n in 1..=moments {
        let end = moment(&mut pair, &mut dice).await.with_context(|| {
            let log = process::tail(&pair.daemon.log());
            format!("moment {n} of seed {seed}, after {ends:?}\n{log}")
        })?;
        eprintln!("moment {n}: {end}");
        ends.push(end);
    }
    let window = Window {
        from: Duration::ZERO,
        to: load.now(),
    };
    let history = load.stop().await?;
    let primary = pair.group().await?["primary"].clone();
    let now = if primary == "a" { &pair.a } else { &pair.b };
    let report = ledger.check(&history, window, now, None).await?;
    let found = &report.findings;
    ensure!(
        found.acked_lost.is_empty()
            && found.duplicates.is_empty()
            && found.refused_present.is_empty(),
        "seed {seed}: lost {:?}, twice {:?}, refused and there {:?}\n{report}",
        found.acked_lost,
        found.duplicates,
        found.refused_present
    );
    let key = pair.ctl(0, &["audit", "key"]).await?;
    let key = key["key"].as_str().context("key")?;
    let dir = pair.daemon.state_dir().join("audit");
    let dir = dir.to_str().context("path")?;
    pair.ctl(0, &["audit", "verify", "--dir", dir, "--key", key])
        .await?;
    Ok(())
}

/// The commands of a move, one after the other, as a runbook gives them.
#[derive(Clone, Copy, Debug)]
enum Move {
    Switchover,
    Failover,
    Steps,
}

impl Move {
    fn thrown(dice: &mut Dice) -> Self {
        match dice.below(4) {
            0 => Self::Failover,
            1 => Self::Steps,
            _ => Self::Switchover,
        }
    }

    fn commands(self, from: &str, to: &str) -> Vec<String> {
        match self {
            Self::Switchover => vec![format!("switchover --to {to} --reason moment")],
            Self::Failover => vec![format!(
                "failover --to {to} --reason moment --accept-loss --confirm"
            )],
            Self::Steps => vec![
                format!("prepare --primary {from} --reason moment --hold 20s"),
                "watch-drain --max-wait 5s".to_owned(),
                format!("promote --new-primary {to} --confirm"),
                format!("open-writes --primary {to}"),
            ],
        }
    }
}

/// One move, one kill, one way on; says which.
async fn moment(pair: &mut Pair, dice: &mut Dice) -> Result<String> {
    let from = pair.group().await?["primary"].as_str().map(str::to_owned);
    let from = from.context("primary")?;
    let to = if from == "a" { "b" } else { "a" };
    let moved = Move::thrown(dice);
    let commands = moved.commands(&from, to);
    // It need not wait long to be sure that the daemon is gone.
    let script: Vec<String> = commands
        .iter()
        .map(|command| format!("\"$0\" --socket \"$1\" --timeout 1s {command}"))
        .collect();
    let mut command = tokio::process::Command::new("sh")
        .args(["-c", &script.join(" && ")])
        .arg(pair.daemon.binaries().join("writefencectl"))
        .arg(pair.daemon.socket())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()?;
    let wait = dice.below(WITHIN_MS);
    pause(Duration::from_millis(wait)).await;
    pair.daemon.kill()?;
    command.wait().await?;
    pair.daemon.launch(&[]).await?;
    let way = go_on(pair, dice, &commands, to).await?;
    writes_pass(pair).await?;
    let primary = pair.group().await?["primary"].as_str().map(str::to_owned);
    let primary = primary.context("primary")?;
    if primary != from {
        let Pair { a, b, .. } = &mut *pair;
        let (old, new) = if from == "a" { (a, b) } else { (b, a) };
        let on = old.value("SHOW default_transaction_read_only").await?;
        ensure!(on == "on", "two sides take writes");
        old.rejoin(new).await?;
    }
    let standby = if primary == "a" { &pair.b } else { &pair.a };
    ensure!(standby.in_recovery().await?, "two sides take writes");
    until("the standby to be a candidate", SOON, async || {
        let other = if primary == "a" { "b" } else { "a" };
        Ok(pair.daemon.ctl(&["preflight", "--to", other]).await?.code == 0)
    })
    .await?;
    Ok(format!("{moved:?}, {wait} ms, {way}, {from} → {primary}"))
}

/// Resumes or aborts what was interrupted, by the dice; behind the point of no return only forward.
/// A run of single steps is resumed in its last one, and then led to its end.
async fn go_on(pair: &Pair, dice: &mut Dice, commands: &[String], to: &str) -> Result<String> {
    let run = pair.group().await?["run"].clone();
    let step = run["step"].as_str().unwrap_or("none").to_owned();
    let state = run["state"].as_str().unwrap_or("none").to_owned();
    if state == "interrupted" && dice.below(2) == 0 {
        let answer = pair.daemon.ctl(&["abort"]).await?;
        if answer.code == 0 {
            return Ok(format!("aborted at {step}"));
        }
        ensure!(answer.code == 3, "abort: {}", answer.text);
    }
    if state == "interrupted" {
        pair.ctl(0, &["resume"]).await?;
        // Where it has moved already only the opening is left, and repeating that changes nothing.
        let moved = pair.group().await?["primary"] == to;
        let left = if moved { commands.len() - 1 } else { 0 };
        for command in commands[left..].iter().filter(|_| commands.len() > 1) {
            let words: Vec<&str> = command.split(' ').collect();
            pair.ctl(0, &words).await.context("a step repeated")?;
        }
        return Ok(format!("resumed at {step}"));
    }
    Ok(format!("{state} at {step}"))
}

async fn writes_pass(pair: &Pair) -> Result<()> {
    until("writes to pass", SOON, async || {
        let client = pair.client().await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
        Ok(true)
    })
    .await
}
