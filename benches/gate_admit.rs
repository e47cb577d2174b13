//! What admitting a write costs while the gate is open: nanoseconds per `admit` and drop.
//!
//! One thread, then two on the same lane of the same gate, which is the worst case: both write the
//! same word. Rounds are interleaved and the median is told. What comes after a fence is not
//! measured here: there, a write waits for milliseconds anyway.

use std::hint::black_box;
use std::sync::{Arc, Barrier};
use std::thread;
use std::time::Instant;

use anyhow::{Result, ensure};
use clap::Parser;
use writefence::gate::{Epoch, Gate, Lane, Limits};
use writefence_benches::{Options, figure, header, list, median, table};

/// Admissions per thread and round: some 0.3 s, so that starting a thread does not show.
const ADMISSIONS: u32 = 10_000_000;

const THREADS: [u32; 2] = [1, 2];

fn main() -> Result<()> {
    let options = Options::parse();
    // First, while the load is that of the others.
    println!("{}", header(&options)?);
    println!("{ADMISSIONS} admissions per thread and round; `--secs` has no meaning here.\n");
    // Nobody is held here, so the waiting room's bounds mean nothing.
    let limits = Limits {
        held: 1,
        held_bytes: 1,
        release_burst: 1,
    };
    let gate = Gate::new(limits, Epoch::new(1));
    gate.open();

    let mut rounds = [const { Vec::new() }; THREADS.len()];
    for _ in 0..options.rounds {
        for (threads, taken) in THREADS.into_iter().zip(&mut rounds) {
            taken.push(admit_and_drop(&gate, threads)?);
        }
    }

    let rows: Vec<Vec<String>> = THREADS
        .into_iter()
        .zip(&rounds)
        .map(|(threads, taken)| vec![threads.to_string(), figure(median(taken)), list(taken)])
        .collect();
    let head = ["threads", "ns per admit and drop", "each round"];
    print!("{}", table(&head, &rows));
    Ok(())
}

/// Nanoseconds that one admission and its end take as a thread sees it; the mean over threads.
fn admit_and_drop(gate: &Arc<Gate>, threads: u32) -> Result<f64> {
    let start = Barrier::new(threads as usize);
    let work = || {
        start.wait();
        let begin = Instant::now();
        let mut admitted = 0_u32;
        for _ in 0..ADMISSIONS {
            admitted += u32::from(black_box(gate.admit(Lane::Sql)).is_ok());
        }
        (admitted, begin.elapsed().as_secs_f64())
    };
    let results: Vec<(u32, f64)> = thread::scope(|scope| {
        let running: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        running.into_iter().flat_map(|it| it.join()).collect()
    });
    // A refused admission is quicker and would pass for a better figure.
    let all = results
        .iter()
        .filter(|(admitted, _)| *admitted == ADMISSIONS);
    ensure!(
        all.count() == threads as usize,
        "the gate refused an admission"
    );
    ensure!(gate.in_flight(Lane::Sql) == 0, "a permit outlived its drop");
    let seconds: f64 = results.iter().map(|(_, seconds)| seconds).sum();
    Ok(seconds / f64::from(threads) / f64::from(ADMISSIONS) * 1e9)
}
