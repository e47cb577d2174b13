//! The load: PostgreSQL's own `pgbench`, selecting one row by its key.
//!
//! A statement this small leaves the server little to do, so a hop shows as much as it ever will.
//! Latencies are taken from the log of every transaction, not from its average.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustix::process::Pid;
use tempfile::TempDir;
use writefence_tests::Cluster;
use writefence_tests::postgres::{Programs, SUPERUSER};

use crate::cpu::Cpu;
use crate::percentile;

/// More than a small machine's cores, as a pool of an application has.
pub const CLIENTS: u32 = 16;

/// A million rows: they stay in memory.
const SCALE: u32 = 10;

/// How long it may take beyond its own time.
const PATIENCE: Duration = Duration::from_secs(60);

/// Ways to send a statement: in one message; parsed, bound and executed each time; parsed once.
pub const MODES: [&str; 3] = ["simple", "extended", "prepared"];

/// What one round told.
#[derive(Debug, Clone, Copy)]
pub struct Sample {
    /// Transactions per second.
    pub tps: f64,
    /// Median latency in microseconds.
    pub p50: f64,
    /// The latency that one in a hundred exceeds, in microseconds.
    pub p99: f64,
    /// The proxy's time per transaction in microseconds, if there is a proxy.
    pub cpu: Option<Cpu>,
}

/// The program and a folder for its logs.
#[derive(Debug)]
pub struct Pgbench {
    programs: Programs,
    folder: TempDir,
}

impl Pgbench {
    /// Fills the tables of `cluster`.
    ///
    /// # Errors
    /// The program is missing or fails.
    pub async fn prepare(cluster: &Cluster) -> Result<Self> {
        let programs = Programs::find()?;
        let folder = tempfile::Builder::new().prefix("writefence-").tempdir()?;
        programs.own(folder.path())?;
        let this = Self { programs, folder };
        let mut command = this.command(cluster.port());
        command.args(["--initialize", "--quiet", "--scale", &SCALE.to_string()]);
        run(command, PATIENCE).await?;
        // Not in the middle of a round.
        cluster.query("CHECKPOINT").await?;
        Ok(this)
    }

    /// One round of selects through `port`, during which the time of `proxy` is counted.
    ///
    /// # Errors
    /// A transaction failed, or the program's output is not what it was.
    pub async fn select(
        &self,
        mode: &str,
        port: u16,
        secs: u32,
        proxy: Option<Pid>,
    ) -> Result<Sample> {
        let mut command = self.command(port);
        command.args([
            "--select-only",
            "--no-vacuum",
            "--log",
            "--log-prefix=round",
        ]);
        command.arg(format!("--protocol={mode}"));
        command.arg(format!("--client={CLIENTS}"));
        command.arg(format!("--time={secs}"));
        let before = proxy.map(Cpu::of).transpose()?;
        let output = run(command, PATIENCE + Duration::from_secs(secs.into())).await?;
        let after = proxy.map(Cpu::of).transpose()?;

        let latencies = latencies(self.folder.path())?;
        let count = f64::from(u32::try_from(latencies.len()).context("count transactions")?);
        let at = |percent| {
            let value = percentile(&latencies, percent).context("no transaction was made")?;
            anyhow::Ok(f64::from(value))
        };
        let micros = |seconds: f64| seconds / count * 1e6;
        Ok(Sample {
            tps: tps(&output).with_context(|| format!("pgbench told no tps:\n{output}"))?,
            p50: at(50)?,
            p99: at(99)?,
            cpu: before.zip(after).map(|(before, after)| Cpu {
                user: micros((after - before).user),
                system: micros((after - before).system),
            }),
        })
    }

    fn command(&self, port: u16) -> Command {
        let mut command = self.programs.command("pgbench", self.folder.path());
        // After `command` took the caller's own PG* variables away. Negotiating encryption is not
        // what is compared.
        command.env("PGSSLMODE", "disable");
        command.env("PGGSSENCMODE", "disable");
        command.args(["--host=127.0.0.1", "--username", SUPERUSER]);
        command.arg(format!("--port={port}"));
        command.env("PGDATABASE", "postgres");
        command
    }
}

async fn run(command: Command, within: Duration) -> Result<String> {
    let run = tokio::process::Command::from(command)
        .kill_on_drop(true)
        .output();
    let output = tokio::time::timeout(within, run)
        .await
        .with_context(|| format!("pgbench did not end within {within:?}"))?
        .context("run pgbench, which comes with PostgreSQL's server")?;
    let told = String::from_utf8_lossy(&output.stderr);
    // It exits 0 only if no client was aborted.
    ensure!(output.status.success(), "pgbench failed: {told}");
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}

/// `tps = 12345.678 (without initial connection time)`
fn tps(output: &str) -> Option<f64> {
    let line = output.lines().find_map(|it| it.strip_prefix("tps = "))?;
    line.split_whitespace().next()?.parse().ok()
}

/// The latencies of the last round in microseconds, sorted. The logs are removed.
fn latencies(folder: &Path) -> Result<Vec<u32>> {
    let mut all = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let text = fs::read_to_string(&path)?;
        // Client, its transaction's number, time, …
        let times = text
            .lines()
            .map(|line| line.split(' ').nth(2)?.parse().ok());
        let times: Option<Vec<u32>> = times.collect();
        all.extend(times.with_context(|| format!("{} is no log of pgbench", path.display()))?);
        fs::remove_file(path)?;
    }
    all.sort_unstable();
    Ok(all)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn throughput_is_read_from_the_summary() {
        let output = "latency average = 0.7 ms\ntps = 20511.25 (without initial connection time)\n";
        assert_eq!(tps(output), Some(20511.25));
        assert_eq!(tps("no summary"), None);
    }

    #[test]
    fn latencies_come_sorted_from_all_logs_which_go() -> Result<()> {
        let folder = tempfile::tempdir()?;
        fs::write(
            folder.path().join("round.1"),
            "0 1 900 0 1 2\n1 1 300 0 1 2\n",
        )?;
        fs::write(folder.path().join("round.1.1"), "2 1 600 0 1 2\n")?;
        assert_eq!(latencies(folder.path())?, [300, 600, 900]);
        assert!(latencies(folder.path())?.is_empty());
        Ok(())
    }
}
