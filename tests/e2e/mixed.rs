//! Planned moves, there and back, under clients of every shape at once: those whose session can be
//! moved notice nothing but a pause, and the others were named before.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio_postgres::Client;
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::{History, Outcome, Plan, Window};
use writefence_tests::postgres::skipped;
use writefence_tests::{DaemonOptions, Ledger};

use crate::support::{Pair, value};

/// Load around a move: every client comes to its turn many times.
const AROUND: Duration = Duration::from_millis(500);

const MOVES: usize = 4;

/// Sessions that cannot be moved, made anew for each move.
const PINNED: [&str; 3] = [
    "CREATE TEMP TABLE mine (a int)",
    "BEGIN; DECLARE c CURSOR WITH HOLD FOR SELECT 1; COMMIT",
    "SELECT pg_advisory_lock(77)",
];

async fn pinned(pair: &Pair) -> Result<Vec<(String, Client)>> {
    let mut all = Vec::new();
    for sql in PINNED {
        let client = pair.client().await?;
        client.batch_execute(sql).await?;
        let pid = value(&client, "SELECT pg_backend_pid()").await?;
        all.push((pid, client));
    }
    Ok(all)
}

/// One move; who is ended by it was named by `preflight`.
async fn switch(pair: &Pair, to: &str) -> Result<()> {
    let ends = pinned(pair).await?;
    let found = pair.ctl(0, &["preflight", "--to", to]).await?;
    let findings = found["findings"].as_array().context("findings")?;
    let named: Vec<&str> = findings
        .iter()
        .filter(|f| f["name"] == "session_ends")
        .filter_map(|f| f["sentence"].as_str())
        .collect();
    ensure!(named.len() == ends.len(), "to {to}: {named:#?}");
    for (pid, _) in &ends {
        ensure!(
            named.iter().any(|n| n.contains(&format!("pid {pid} "))),
            "{pid}: {named:#?}"
        );
    }
    pair.ctl(0, &["switchover", "--to", to, "--reason", "mixed"])
        .await?;
    for (pid, client) in &ends {
        until(
            &format!("the session with pid {pid} to end"),
            Duration::from_secs(30),
            async || Ok(client.is_closed()),
        )
        .await?;
    }
    Ok(())
}

/// Every operation that was not acknowledged, by shape.
fn complaints(history: &History) -> Vec<String> {
    let bad = history
        .ops
        .iter()
        .filter(|op| op.outcome != Outcome::Acked || op.lost);
    bad.map(|op| {
        let code = op.sqlstate.as_deref().unwrap_or("no code");
        format!(
            "client \"{}\": operation {} was {:?} ({code}) after {:?}, connection lost: {}",
            op.id.shape,
            op.id.seq,
            op.outcome,
            op.end - op.start,
            op.lost
        )
    })
    .collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_of_every_shape_notice_nothing_but_a_pause_there_and_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(DaemonOptions::be_patient).await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let load = ledger.load(&Plan::mixed(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    let from = load.now();
    for n in 0..MOVES {
        pause(AROUND).await;
        let to = if n % 2 == 0 { "b" } else { "a" };
        switch(&pair, to)
            .await
            .with_context(|| format!("move {n} to {to}"))?;
        pause(AROUND).await;
        let Pair { a, b, .. } = &mut pair;
        let (new, old) = if to == "b" { (b, a) } else { (a, b) };
        old.rejoin(new).await?;
        old.wait_caught_up(new).await?;
    }
    let window = Window {
        from,
        to: load.now(),
    };
    let history = load.stop().await?;
    let report = ledger.check(&history, window, &pair.a, None).await?;
    let complaints = complaints(&history);
    ensure!(complaints.is_empty(), "{}\n{report}", complaints.join("\n"));
    ensure!(
        history.hung == 0,
        "{} clients never got an answer\n{report}",
        history.hung
    );
    let f = &report.findings;
    ensure!(
        f.acked_lost.is_empty() && f.duplicates.is_empty() && f.torn.is_empty(),
        "lost {:?}, doubled {:?}, torn {:?}\n{report}",
        f.acked_lost,
        f.duplicates,
        f.torn
    );
    let ended = pair
        .metric("writefence_sessions_ended_unmovable_total")
        .await?;
    let expected = MOVES * PINNED.len();
    ensure!(
        ended == expected.to_string(),
        "{ended} sessions were ended, {expected} were named"
    );
    println!("{report}");
    Ok(())
}
