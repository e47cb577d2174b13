//! Shared parts of the benches: their options, the contenders of a comparison, the load, the
//! accounting of processor time, and figures as Markdown.
//!
//! A bench prints what it measured and under which conditions; it judges nothing. What counts as a
//! regression stands in the README beside this file.

pub mod contender;
pub mod cpu;
pub mod pgbench;

use std::env;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use clap::Parser;

/// What every bench understands; one set, because `cargo bench` hands the same to all of them.
#[derive(Debug, Parser)]
#[command(about = "See benches/README.md for what is measured and how to read it")]
pub struct Options {
    /// Rounds; figures are medians over them
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub rounds: u32,
    /// Seconds of load per round and contender
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u32).range(1..))]
    pub secs: u32,
    /// Cargo adds it to every bench that it starts.
    #[arg(long, hide = true)]
    bench: bool,
}

/// The conditions of a run: commit, cores, what else the machine does, rounds.
///
/// # Errors
/// The number of cores or the load is not to be had.
pub fn header(options: &Options) -> Result<String> {
    let cores = std::thread::available_parallelism().context("number of cores")?;
    let load = fs::read_to_string("/proc/loadavg").context("read /proc/loadavg")?;
    let load = load.split(' ').next().unwrap_or_default();
    let (commit, rounds) = (commit(), options.rounds);
    Ok(format!(
        "Commit {commit}; {cores} cores, load average {load}; rounds: {rounds}."
    ))
}

/// The commit that is checked out; marked if the files differ from it.
fn commit() -> String {
    let described = Command::new("git")
        .args(["describe", "--always", "--dirty", "--exclude=*"])
        .current_dir(workspace())
        .output();
    match described {
        Ok(output) if output.status.success() => {
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        }
        _ => "unknown".to_owned(),
    }
}

fn workspace() -> &'static Path {
    let package = Path::new(env!("CARGO_MANIFEST_DIR"));
    package.parent().unwrap_or(package)
}

/// Builds the daemon with the profile that is shipped. Cargo does nothing if it is up to date, and
/// a figure of yesterday's daemon under today's commit is worse than none. Not done if
/// `WRITEFENCE_BIN` names the programs to measure.
///
/// # Errors
/// It does not compile, or this program lies where cargo would not have put it.
pub fn build_daemon() -> Result<()> {
    if env::var_os("WRITEFENCE_BIN").is_some() {
        return Ok(());
    }
    // target/release/deps/this: the programs must land beside it, wherever `target` is.
    let program = env::current_exe().context("the path of this program")?;
    let target: PathBuf = program
        .ancestors()
        .nth(3)
        .context("this program is not in cargo's target folder; set WRITEFENCE_BIN")?
        .to_owned();
    // The same selection as `make build`: another one would choose other features and compile the
    // dependencies once more.
    let cargo = env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let status = Command::new(cargo)
        .args(["build", "--release", "--workspace", "--bins", "--locked"])
        .arg("--target-dir")
        .arg(&target)
        .current_dir(workspace())
        .status()
        .context("run cargo to build the daemon")?;
    ensure!(status.success(), "the daemon does not build");
    Ok(())
}

/// The middle value, or the mean of the two in the middle; not a number if there is none.
#[must_use]
pub fn median(values: &[f64]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.len() % 2, sorted.get(middle)) {
        (_, None) => f64::NAN,
        (1, Some(value)) => *value,
        (_, Some(value)) => f64::midpoint(sorted[middle - 1], *value),
    }
}

/// The smallest value that at least `percent` of the sorted values do not exceed.
#[must_use]
pub fn percentile(sorted: &[u32], percent: usize) -> Option<u32> {
    let rank = (sorted.len() * percent).div_ceil(100);
    sorted.get(rank.saturating_sub(1)).copied()
}

/// A number with three digits that mean something, more than noise leaves.
#[must_use]
pub fn figure(value: f64) -> String {
    match value {
        _ if value.is_nan() => "–".to_owned(),
        _ if value.abs() >= 100.0 => format!("{value:.0}"),
        _ if value.abs() >= 10.0 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

/// Numbers with commas between.
#[must_use]
pub fn list(values: &[f64]) -> String {
    let all: Vec<String> = values.iter().copied().map(figure).collect();
    all.join(", ")
}

/// A Markdown table; the first column is text, the others are numbers.
#[must_use]
pub fn table(head: &[&str], rows: &[Vec<String>]) -> String {
    let line = |cells: &[String]| format!("| {} |\n", cells.join(" | "));
    let head: Vec<String> = head.iter().map(|&cell| cell.to_owned()).collect();
    let mut rule = vec!["--:".to_owned(); head.len()];
    if let Some(first) = rule.first_mut() {
        "---".clone_into(first);
    }
    let rows = rows.iter().map(|row| line(row));
    line(&head) + &line(&rule) + &rows.collect::<String>()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_median_is_the_middle_or_between_the_middles() {
        assert_eq!(median(&[3.0, 1.0, 2.0]), 2.0);
        assert_eq!(median(&[4.0, 1.0, 2.0, 3.0]), 2.5);
        assert!(median(&[]).is_nan());
    }

    #[test]
    fn a_percentile_is_a_value_that_occurred() {
        let values: Vec<u32> = (1..=200).collect();
        assert_eq!(percentile(&values, 50), Some(100));
        assert_eq!(percentile(&values, 99), Some(198));
        assert_eq!(percentile(&[7], 99), Some(7));
        assert_eq!(percentile(&[], 50), None);
    }

    #[test]
    fn a_table_is_markdown() {
        let rows = [vec!["a".to_owned(), figure(1.234)]];
        assert_eq!(
            table(&["x", "y"], &rows),
            "| x | y |\n| --- | --: |\n| a | 1.23 |\n"
        );
    }
}
