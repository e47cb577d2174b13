//! `writefence-demo`: what writefence is for, shown on real PostgreSQL in about a minute.
//!
//! It starts a primary and a streaming standby, the daemon in front of them, and clients of every
//! shape; moves the primary there and back, kills it twice, and prints what the clients saw.
//! `soak` does nothing but switchovers. Exit code 0 only if every zero is a zero. Whatever was
//! started ends with it, also on Ctrl-C.

mod act;
mod failover;
mod keep;
mod report;
mod soak;
mod spread;
mod stage;
mod switchover;
mod tell;

use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Result, bail};
use clap::{Parser, Subcommand};
use tokio::signal::unix::{SignalKind, signal};

use act::Act;
use stage::Stage;

#[derive(Parser)]
#[command(about = "Shows what clients see while writefence moves a PostgreSQL primary")]
struct Args {
    #[command(subcommand)]
    command: Option<Verb>,
    /// Leave everything running at the end, to play with, until Ctrl-C
    #[arg(long)]
    keep: bool,
    /// Folder for the report [default: demo/ in cargo's target folder]
    #[arg(long, value_name = "FOLDER", global = true)]
    out: Option<PathBuf>,
}

#[derive(Subcommand)]
enum Verb {
    /// Many planned switchovers in a row under one load
    Soak {
        /// How many
        #[arg(long, default_value_t = 100)]
        rounds: u32,
    },
}

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    match perform(&Args::parse()).await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("\nwritefence-demo: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Runs `work` unless a signal comes first. Dropped half way, it takes along every process and
/// every folder it owns.
async fn guarded<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    tokio::select! {
        result = work => result,
        name = interrupted() => Err(anyhow::anyhow!("{name}: everything was stopped")),
    }
}

async fn interrupted() -> &'static str {
    let wait = async |kind| match signal(kind) {
        Ok(mut signal) => signal.recv().await,
        Err(_) => std::future::pending().await,
    };
    tokio::select! {
        _ = wait(SignalKind::interrupt()) => "interrupted",
        _ = wait(SignalKind::terminate()) => "terminated",
        _ = wait(SignalKind::hangup()) => "hung up",
    }
}

async fn perform(args: &Args) -> Result<()> {
    let out = report::folder(args.out.as_deref())?;
    if let Some(Verb::Soak { rounds }) = args.command {
        return guarded(async {
            let mut stage = Stage::set_up().await?;
            let result = soak::run(&mut stage, rounds, &out).await;
            stage.keep_logs(&out).and(result)
        })
        .await;
    }
    let (mut stage, acts) = guarded(async {
        let mut stage = Stage::set_up().await?;
        let acts = play(&mut stage).await;
        stage.keep_logs(&out)?;
        Ok((stage, acts?))
    })
    .await?;
    println!("\n{}", report::table(&acts));
    println!("report  {}", report::write(&acts, &out)?.display());
    let faults: Vec<String> = acts.iter().flat_map(Act::faults).collect();
    if faults.is_empty() {
        println!("Every promise was kept.");
    }
    if args.keep {
        tokio::select! {
            result = keep::up(&mut stage) => result?,
            _ = interrupted() => {}
        }
    }
    drop(stage);
    if !faults.is_empty() {
        bail!("a promise was not kept:\n  {}", faults.join("\n  "));
    }
    println!("Nothing is left running.");
    Ok(())
}

async fn play(stage: &mut Stage) -> Result<Vec<Act>> {
    Ok(vec![
        switchover::perform(stage).await?,
        switchover::perform(stage).await?,
        failover::perform(stage, failover::Replication::Synchronous).await?,
        failover::perform(stage, failover::Replication::Asynchronous).await?,
    ])
}
