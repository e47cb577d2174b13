//! Many switchovers in a row under one load: the same connections all the way through.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde::Serialize;
use serde_json::json;
use writefence_tests::daemon::{promotion, steps};
use writefence_tests::ledger::{Load, Outcome, Shape, Window, gaps, ms, text_ms};

use crate::act::{Promise, faults};
use crate::report;
use crate::spread::Spread;
use crate::stage::Stage;
use crate::switchover::{Moved, command};
use crate::tell;

/// Load after each move: enough for every client to come back, and 100 rounds end in minutes.
const AFTER: Duration = Duration::from_millis(500);

/// What the daemon logs when two sides take writes, which at no time they do here.
const ALARM: &str = "SPLIT BRAIN";

#[derive(Debug, Serialize)]
struct Round {
    write_ms: Option<f64>,
    nothing_written_ms: Option<f64>,
    read_ms: Option<f64>,
    promotion_ms: Option<f64>,
    /// The write gap beyond the promotion's own time.
    added_ms: Option<f64>,
    command_ms: f64,
    steps: Vec<(String, f64)>,
    errors: usize,
    closed: usize,
}

pub(crate) async fn run(stage: &mut Stage, rounds: u32, out: &Path) -> Result<()> {
    tell::title(&format!("{rounds} switchovers in a row"));
    let load = stage.clients().await?;
    let begin = load.now();
    let mut done: Vec<Round> = Vec::new();
    for n in 1..=rounds {
        let moved = command(stage, &load, AFTER)
            .await
            .with_context(|| format!("round {n}"))?;
        let round = measure(&load, &moved);
        tell::note(&format!(
            "{n:3}/{rounds} → {}   write gap {:>9}   promotion {:>9}   read gap {:>9}   errors {}   closed {}",
            stage.standby().name(),
            text_ms(round.write_ms),
            text_ms(round.promotion_ms),
            text_ms(round.read_ms),
            round.errors,
            round.closed
        ));
        done.push(round);
        stage.rejoin().await?;
    }
    finish(stage, load, begin, &done, out).await
}

fn measure(load: &Load, moved: &Moved) -> Round {
    // A little of before, since a gap begins with the last success before the move.
    let ops = load.since(moved.window.from.saturating_sub(Duration::from_secs(1)));
    let write = gaps(&ops, &Shape::WRITERS, moved.window);
    let read = gaps(&ops, &Shape::READERS, moved.window);
    let promotion_ms = promotion(&moved.run).map(ms);
    Round {
        write_ms: write.worst,
        nothing_written_ms: write.nothing_at_all,
        read_ms: read.worst,
        promotion_ms,
        added_ms: write.worst.zip(promotion_ms).map(|(gap, own)| gap - own),
        command_ms: ms(moved.command),
        steps: steps(&moved.run)
            .into_iter()
            .map(|(name, took)| (name, ms(took)))
            .collect(),
        errors: ops.iter().filter(|op| op.outcome != Outcome::Acked).count(),
        closed: ops.iter().filter(|op| op.lost).count(),
    }
}

/// What each step took, in the order of the first round's.
fn step_spreads(rounds: &[Round]) -> Vec<(&str, Spread)> {
    let names = rounds.first().into_iter().flat_map(|round| &round.steps);
    let took = |round: &Round, name: &str| {
        let step = round.steps.iter().find(|(of, _)| of == name);
        step.map(|(_, took)| *took)
    };
    names
        .map(|(name, _)| {
            let samples = rounds.iter().map(|round| took(round, name));
            (name.as_str(), Spread::of(samples))
        })
        .collect()
}

async fn finish(
    stage: &Stage,
    load: Load,
    begin: Duration,
    rounds: &[Round],
    out: &Path,
) -> Result<()> {
    let window = Window {
        from: begin,
        to: load.now(),
    };
    let history = load.stop().await?;
    let report = stage
        .ledger
        .check(&history, window, stage.primary(), None)
        .await?;
    let spreads = [
        (
            "write gap",
            Spread::of(rounds.iter().map(|round| round.write_ms)),
        ),
        (
            "no write at all",
            Spread::of(rounds.iter().map(|round| round.nothing_written_ms)),
        ),
        (
            "promotion",
            Spread::of(rounds.iter().map(|round| round.promotion_ms)),
        ),
        (
            "gap - promotion",
            Spread::of(rounds.iter().map(|round| round.added_ms)),
        ),
        (
            "read gap",
            Spread::of(rounds.iter().map(|round| round.read_ms)),
        ),
        (
            "command",
            Spread::of(rounds.iter().map(|round| Some(round.command_ms))),
        ),
    ];
    tell::title(&format!("{} switchovers", rounds.len()));
    for (name, spread) in &spreads {
        println!("  {name:16} {}", spread.line());
    }
    println!();
    for (name, spread) in &step_spreads(rounds) {
        println!("  {name:16} {}", spread.line());
    }
    let found = &report.findings;
    println!(
        "\n  acknowledged {}   errors {}   closed connections {}   acknowledged lost {}   duplicates {}\n",
        report.count(Outcome::Acked),
        report.errors(),
        report.connections_lost(),
        found.acked_lost.len(),
        found.duplicates.len()
    );
    println!("{report}");
    report::json(
        out,
        "soak.json",
        &json!({ "rounds": rounds, "spread": spreads, "ledger": report }),
    )?;
    println!("report  {}", out.join("soak.json").display());
    let mut faults = faults(&report, Promise::NothingButAPause);
    let log = std::fs::read_to_string(stage.daemon.log()).context("read the daemon's log")?;
    let alarms = log.lines().filter(|line| line.contains(ALARM)).count();
    if alarms > 0 {
        faults.push(format!("{alarms} false alarms: {ALARM}"));
    }
    if !faults.is_empty() {
        bail!("a promise was not kept:\n  {}", faults.join("\n  "));
    }
    Ok(())
}
