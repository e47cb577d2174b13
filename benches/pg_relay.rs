//! What the proxy costs on the path of PostgreSQL traffic, beside no proxy and beside `PgBouncer`.
//!
//! The figure to watch is the proxy's processor time per transaction: on a machine whose cores are
//! shared by client, server and proxy it holds still while throughput does not. Contenders take
//! turns within each round, so that a disturbance meets all of them, and ratios are taken within a
//! round. Absolute throughput is told for orientation only.

use anyhow::{Result, bail};
use clap::Parser;
use writefence_benches::contender::{Contender, find_pgbouncer, version};
use writefence_benches::cpu::Cpu;
use writefence_benches::pgbench::{CLIENTS, MODES, Pgbench, Sample};
use writefence_benches::{Options, build_daemon, figure, header, list, median, table};
use writefence_tests::Cluster;

/// Seconds for each contender before anything counts: caches fill, pools log in.
const WARM_UP: u32 = 1;

const HEAD: [&str; 7] = [
    "contender",
    "tps",
    "tps to direct",
    "CPU µs/txn",
    "of it user",
    "p50 µs",
    "p99 µs",
];

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    build_daemon()?;
    // Dropped half way, the comparison takes its processes and folders along.
    tokio::select! {
        done = compare(&options) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted: everything was stopped"),
    }
}

async fn compare(options: &Options) -> Result<()> {
    // First, while the load is that of the others.
    println!("{}", header(options)?);
    let cluster = Cluster::create("a", &Default::default()).await?;
    let load = Pgbench::prepare(&cluster).await?;
    let mut contenders = vec![Contender::direct(&cluster)];
    let peer = find_pgbouncer();
    if let Some(program) = &peer {
        contenders.push(Contender::pgbouncer(program, &cluster).await?);
    }
    contenders.push(Contender::writefence(&cluster).await?);

    let server = cluster.value("SHOW server_version").await?;
    println!("PostgreSQL {server}, fsync off, {CLIENTS} clients, pgbench --select-only,");
    println!("{} s for each contender in each round.", options.secs);
    match &peer {
        Some(program) => println!("{}, session mode.", version(program)),
        None => println!("PgBouncer was not found: nothing to compare processor time with."),
    }
    for contender in &contenders {
        load.select("simple", contender.port, WARM_UP, None).await?;
    }
    for mode in MODES {
        let rounds = interleaved(options, &load, mode, &contenders).await?;
        println!("\n### {mode}\n\n{}", report(&contenders, &rounds));
    }
    Ok(())
}

/// Samples by contender, then round. Who goes first changes from round to round.
async fn interleaved(
    options: &Options,
    load: &Pgbench,
    mode: &str,
    contenders: &[Contender],
) -> Result<Vec<Vec<Sample>>> {
    let mut samples = vec![Vec::new(); contenders.len()];
    let mut order: Vec<usize> = (0..contenders.len()).collect();
    for round in 1..=options.rounds {
        for &index in &order {
            let it = &contenders[index];
            let sample = load.select(mode, it.port, options.secs, it.pid).await?;
            eprintln!("{mode} {round}: {} {:.0} tps", it.name, sample.tps);
            samples[index].push(sample);
        }
        order.rotate_left(1);
    }
    Ok(samples)
}

fn report(contenders: &[Contender], rounds: &[Vec<Sample>]) -> String {
    let named = |name| {
        let index = contenders.iter().position(|it| it.name == name)?;
        rounds.get(index).map(Vec::as_slice)
    };
    let direct = named("direct").unwrap_or_default();
    let rows: Vec<Vec<String>> = contenders
        .iter()
        .zip(rounds)
        .map(|(contender, samples)| row(contender.name, samples, direct))
        .collect();
    let mut text = table(&HEAD, &rows);
    if let (Some(ours), Some(theirs)) = (named("writefence"), named("pgbouncer")) {
        text += &sentence("CPU, writefence to pgbouncer", &ratios(ours, theirs, cpu));
    }
    for contender in contenders.iter().skip(1) {
        let ratios = ratios(named(contender.name).unwrap_or_default(), direct, tps);
        text += &sentence(&format!("tps, {} to direct", contender.name), &ratios);
    }
    text
}

fn row(name: &str, samples: &[Sample], direct: &[Sample]) -> Vec<String> {
    let middle = |of: fn(&Sample) -> f64| {
        let values: Vec<f64> = samples.iter().map(of).collect();
        figure(median(&values))
    };
    vec![
        name.to_owned(),
        middle(tps),
        figure(median(&ratios(samples, direct, tps))),
        middle(cpu),
        middle(|sample| sample.cpu.map_or(f64::NAN, |cpu| cpu.user)),
        middle(|sample| sample.p50),
        middle(|sample| sample.p99),
    ]
}

const fn tps(sample: &Sample) -> f64 {
    sample.tps
}

fn cpu(sample: &Sample) -> f64 {
    sample.cpu.map_or(f64::NAN, Cpu::total)
}

/// Within each round, since a disturbance lasts longer than one.
fn ratios(these: &[Sample], those: &[Sample], of: fn(&Sample) -> f64) -> Vec<f64> {
    let pairs = these.iter().zip(those);
    pairs.map(|(this, that)| of(this) / of(that)).collect()
}

fn sentence(what: &str, ratios: &[f64]) -> String {
    let middle = figure(median(ratios));
    format!("\n{what}: {middle} (each round: {})\n", list(ratios))
}
