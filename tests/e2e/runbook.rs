//! The SEV1 runbook by its six commands and by one, with a real API on PostgreSQL behind both fronts
//! and clients of both at work. `cargo e2e runbook -- --nocapture` prints what an operator sees.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use writefence_tests::api::Api;
use writefence_tests::daemon::HttpOptions;
use writefence_tests::eventually::pause;
use writefence_tests::ledger::{Outcome, Plan, Rows, Shape, Window};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::skipped;
use writefence_tests::{Ledger, process};

use crate::support::Pair;

/// Load before and after.
const AROUND: Duration = Duration::from_millis(700);

/// Runs a command as an operator does and prints both; it must end with 0.
async fn typed(pair: &Pair, args: &[&str]) -> Result<String> {
    let output = tokio::process::Command::new(pair.daemon.binaries().join("writefencectl"))
        .arg("--socket")
        .arg(pair.daemon.socket())
        .args(args)
        .output()
        .await?;
    let code = output.status.code().context("an exit code")?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    println!(
        "$ writefencectl {}\n{text}{}[exit {code}]\n",
        args.join(" "),
        String::from_utf8_lossy(&output.stderr)
    );
    ensure!(
        code == 0,
        "{args:?}: exit {code}\n{text}\n{}",
        process::tail(&pair.daemon.log())
    );
    Ok(text)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_sev1_runbook_with_an_api_in_front_by_six_commands_and_by_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (a, b) = (free_port()?, free_port()?);
    let http = HttpOptions::new(&[a, b])?;
    let front = http.port;
    let mut pair = Pair::start(|options| {
        options.front = Some(http);
        options.be_patient();
    })
    .await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let database = Ledger::endpoint(pair.daemon.port());
    let _apis = [
        Api::start("a", a, database.clone())?,
        Api::start("b", b, database.clone())?,
    ];
    let six: [&[&str]; 6] = [
        &["preflight", "--to", "b"],
        &[
            "prepare",
            "--primary",
            "a",
            "--reason",
            "INC-1234",
            "--hold",
            "20s",
        ],
        &["watch-drain", "--max-wait", "5m"],
        &["promote", "--new-primary", "b", "--confirm"],
        &["open-writes", "--primary", "b"],
        &["verify", "--primary", "b"],
    ];
    let one: [&[&str]; 1] = [&["switchover", "--to", "a", "--reason", "INC-1234-failback"]];
    typed(
        &pair,
        &[
            "switchover",
            "--to",
            "b",
            "--reason",
            "INC-1234",
            "--dry-run",
        ],
    )
    .await?;
    for (to, commands) in [("b", &six[..]), ("a", &one[..])] {
        let load = ledger.load(&Plan::new(database.clone()).with_api(front))?;
        load.warm().await?;
        pause(AROUND).await;
        let from = load.now();
        for command in commands {
            typed(&pair, command).await?;
        }
        pause(AROUND).await;
        let window = Window {
            from,
            to: load.now(),
        };
        let (old, new) = match to {
            "b" => (&pair.a, &pair.b),
            _ => (&pair.b, &pair.a),
        };
        let left = Rows::read(old, load.run()).await.ok();
        let history = load.stop().await?;
        let report = ledger.check(&history, window, new, left.as_ref()).await?;
        let found = &report.findings;
        println!("{report}");
        ensure!(
            found.acked_lost.is_empty()
                && found.acked_only_on_old.is_empty()
                && found.duplicates.is_empty()
                && found.refused_present.is_empty()
                && found.failed_present.is_empty(),
            "{found:?}\n{report}"
        );
        ensure!(
            report.errors() == 0 && report.connections_lost() == 0,
            "{report}\n{}",
            process::tail(&pair.daemon.log())
        );
        let through_api = report.shapes.iter().find(|s| s.shape == Shape::ApiWrite);
        let acked = through_api.and_then(|shape| shape.outcomes.get(&Outcome::Acked));
        ensure!(
            acked.is_some_and(|n| *n > 0),
            "nobody wrote over HTTP\n{report}"
        );
        typed(&pair, &["status"]).await?;
        let Pair { a, b, .. } = &mut pair;
        match to {
            "b" => a.rejoin(b).await?,
            _ => b.rejoin(a).await?,
        }
    }
    Ok(())
}
