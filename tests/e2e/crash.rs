//! The daemon stopped hard after each step, the primary killed: what comes back, and how it ends.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_admin::api::Step;
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::{Plan, Rows, Window};
use writefence_tests::postgres::skipped;
use writefence_tests::{Cluster, Daemon, DaemonOptions, Ledger, Load};

use crate::support::{Gate, Pair, sqlstate};

const SOON: Duration = Duration::from_secs(30);

/// Before the point of no return, `abort` leads back: behind each step, before its effect, and behind
/// each record that its effect leaves.
const BEFORE: [&str; 13] = [
    "record:started",
    "preflight",
    "fence:before",
    "record:fence",
    "fence",
    "drain",
    "record:evidence",
    "record:fence_lsn",
    "evidence",
    "record:certificate",
    "certificate",
    "caught_up",
    "pnr:before",
];

/// The point of no return and behind it: only forward.
const BEHIND: [&str; 8] = [
    "record:pnr",
    "pnr",
    "promote:before",
    "promote",
    "record:promoted",
    "identity",
    "hooks",
    "open:before",
];

/// Behind the opening: writes pass, the run is only to be finished.
const OPENED: [&str; 6] = [
    "record:open",
    "open",
    "converge",
    "verify",
    "record:measured",
    "report",
];

/// What a failover before its point of no return leaves out or adds: there is no fence LSN of a dead
/// primary.
const FAILOVER_BEFORE: [&str; 10] = [
    "record:loss",
    "preflight",
    "record:fence",
    "fence",
    "drain",
    "record:evidence",
    "evidence",
    "certificate",
    "caught_up",
    "pnr:before",
];

/// Writes are not fenced yet.
fn is_open_at(step: &str) -> bool {
    ["record:started", "record:loss", "preflight"].contains(&step) || OPENED.contains(&step)
}

#[test]
fn no_step_of_a_run_is_left_out() {
    for step in Step::ALL {
        let name = step.to_string();
        let all = || BEFORE.iter().chain(&BEHIND).chain(&OPENED);
        // Between `pnr:before` and `pnr` there is its record.
        assert!(all().any(|named| *named == name), "{name}");
        let failover = || FAILOVER_BEFORE.iter().chain(&BEHIND).chain(&OPENED);
        assert!(failover().any(|named| *named == name), "{name}");
    }
}

/// Starts a switchover in a daemon that stops hard after `step`, and starts it again.
async fn stopped_after(pair: &mut Pair, step: &str) -> Result<Value> {
    pair.daemon.kill()?;
    pair.daemon
        .launch(&[("WRITEFENCE_STOP_AFTER", step)])
        .await?;
    pair.daemon.wait_open().await?;
    pair.daemon
        .ctl_to_its_end(&["switchover", "--to", "b", "--reason", step])
        .await
        .with_context(|| step.to_owned())?;
    pair.daemon.launch(&[]).await?;
    pair.group().await.with_context(|| step.to_owned())
}

/// Clients at work all the while, and what they were told.
struct Books {
    ledger: Ledger,
    load: Load,
}

impl Books {
    async fn open(pair: &Pair) -> Result<Self> {
        let ledger = Ledger::create(&pair.a).await?;
        pair.b.wait_caught_up(&pair.a).await?;
        let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
        load.warm().await?;
        Ok(Self { ledger, load })
    }

    /// Nothing acknowledged is missing on the primary, nothing is there twice, and nothing that was
    /// refused is there.
    async fn balance(self, primary: &Cluster) -> Result<()> {
        let window = Window {
            from: Duration::ZERO,
            to: self.load.now(),
        };
        let history = self.load.stop().await?;
        let report = self.ledger.check(&history, window, primary, None).await?;
        let found = &report.findings;
        ensure!(
            found.acked_lost.is_empty()
                && found.duplicates.is_empty()
                && found.refused_present.is_empty(),
            "lost {:?}, twice {:?}, refused and there {:?}\n{report}",
            found.acked_lost,
            found.duplicates,
            found.refused_present
        );
        Ok(())
    }
}

async fn writes_pass(pair: &Pair, primary: &str) -> Result<()> {
    until("writes to pass", SOON, async || {
        let client = pair.client().await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
        let at = client
            .query_one("SELECT inet_server_port()", &[])
            .await?
            .get::<_, i32>(0);
        let wanted = if primary == "a" {
            pair.a.port()
        } else {
            pair.b.port()
        };
        Ok(u16::try_from(at).ok() == Some(wanted))
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_after_any_step_before_the_point_of_no_return_it_can_go_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let books = Books::open(&pair).await?;
    for step in BEFORE {
        let group = stopped_after(&mut pair, step).await?;
        if !is_open_at(step) {
            ensure!(group["phase"] == "fenced", "{step}: {group}");
            ensure!(
                group["run"]["state"] == "interrupted",
                "{step}: {}",
                group["run"]
            );
            pair.ctl(0, &["abort"]).await.context(step)?;
        } else if group["run"]["state"] == "interrupted" {
            pair.ctl(0, &["abort"]).await.context(step)?;
        }
        writes_pass(&pair, "a").await.context(step)?;
        let on = pair.a.value("SHOW default_transaction_read_only").await?;
        ensure!(on == "off", "{step}: the barrier was left behind");
        ensure!(pair.b.in_recovery().await?, "{step}");
    }
    books.balance(&pair.a).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_at_any_step_it_can_go_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let books = Books::open(&pair).await?;
    for step in BEFORE.iter().chain(&BEHIND) {
        let group = stopped_after(&mut pair, step).await?;
        ensure!(
            group["phase"] == if is_open_at(step) { "open" } else { "fenced" },
            "{step}: {group}"
        );
        if BEHIND.contains(step) {
            pair.ctl(3, &["abort"])
                .await
                .with_context(|| format!("{step}: no way back"))?;
        }
        pair.ctl(0, &["resume"]).await.context(*step)?;
        writes_pass(&pair, "b").await.context(*step)?;
        // There and back for the next one.
        let Pair { a, b, .. } = &mut pair;
        a.rejoin(b).await.context(*step)?;
        pair.ctl(0, &["switchover", "--to", "a", "--reason", "back"])
            .await
            .context(*step)?;
        let Pair { a, b, .. } = &mut pair;
        b.rejoin(a).await.context(*step)?;
    }
    books.balance(&pair.a).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn stopped_behind_the_opening_writes_go_on_and_the_run_can_be_finished() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let books = Books::open(&pair).await?;
    for step in OPENED {
        let group = stopped_after(&mut pair, step).await?;
        ensure!(group["phase"] == "open", "{step}: {group}");
        ensure!(
            group["run"]["state"] == "interrupted",
            "{step}: {}",
            group["run"]
        );
        pair.ctl(3, &["abort"])
            .await
            .with_context(|| format!("{step}: no way back"))?;
        writes_pass(&pair, "b").await.context(step)?;
        let run = pair.ctl(0, &["resume"]).await.context(step)?;
        ensure!(run["state"] == "done", "{step}: {run}");
        let Pair { a, b, .. } = &mut pair;
        a.rejoin(b).await.context(step)?;
        pair.ctl(0, &["switchover", "--to", "a", "--reason", "back"])
            .await
            .context(step)?;
        let Pair { a, b, .. } = &mut pair;
        b.rejoin(a).await.context(step)?;
    }
    books.balance(&pair.a).await
}

/// Kills the primary `from` and starts a failover in a daemon that stops hard at `step`, and starts
/// that again.
async fn failing_over(pair: &mut Pair, from: &str, step: &str) -> Result<Value> {
    let to = if from == "a" { "b" } else { "a" };
    pair.daemon.kill()?;
    pair.daemon
        .launch(&[("WRITEFENCE_STOP_AFTER", step)])
        .await?;
    pair.daemon.wait_open().await?;
    let old = if from == "a" {
        &mut pair.a
    } else {
        &mut pair.b
    };
    old.kill()?;
    let args = ["failover", "--to", to, "--reason", step, "--accept-loss"];
    pair.daemon
        .ctl_to_its_end(&[&args[..], &["--confirm"]].concat())
        .await
        .with_context(|| step.to_owned())?;
    pair.daemon.launch(&[]).await?;
    let group = pair.group().await?;
    ensure!(
        group["run"]["state"] == "interrupted",
        "{step}: {}",
        group["run"]
    );
    let is_open = is_open_at(step);
    ensure!((group["phase"] == "open") == is_open, "{step}: {group}");
    Ok(group)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_stopped_at_any_step_can_go_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let mut from = "a";
    for step in FAILOVER_BEFORE.iter().chain(&BEHIND).chain(&OPENED) {
        let to = if from == "a" { "b" } else { "a" };
        failing_over(&mut pair, from, step).await?;
        if !FAILOVER_BEFORE.contains(step) {
            pair.ctl(3, &["abort"])
                .await
                .with_context(|| format!("{step}: no way back"))?;
        }
        let run = pair.ctl(0, &["resume"]).await.context(*step)?;
        ensure!(run["state"] == "done", "{step}: {run}");
        writes_pass(&pair, to).await.context(*step)?;
        let Pair { a, b, .. } = &mut pair;
        let (old, new) = if from == "a" { (a, b) } else { (b, a) };
        old.rejoin(new).await.context(*step)?;
        from = to;
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_failover_stopped_before_its_point_of_no_return_goes_back_once_the_old_primary_is_there()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    for step in FAILOVER_BEFORE {
        failing_over(&mut pair, "a", step).await?;
        pair.a.start().await?;
        pair.ctl(0, &["abort"]).await.context(step)?;
        writes_pass(&pair, "a").await.context(step)?;
        ensure!(pair.b.in_recovery().await?, "{step}");
    }
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_abort_is_durable_before_the_barrier_is_lifted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    for step in ["aborting", "lift", "reopen:before"] {
        pair.daemon.kill()?;
        pair.daemon
            .launch(&[("WRITEFENCE_STOP_AFTER", step)])
            .await?;
        pair.daemon.wait_open().await?;
        pair.ctl(0, &["prepare", "--primary", "a", "--reason", step])
            .await?;
        pair.daemon
            .ctl_to_its_end(&["abort"])
            .await
            .with_context(|| step.to_owned())?;
        pair.daemon.launch(&[]).await?;
        // A successor goes on aborting by itself: what it must never do is open first.
        let group = pair.group().await?;
        let on = pair.a.value("SHOW default_transaction_read_only").await?;
        let goes_back = ["aborting", "aborted"].map(|state| group["run"]["state"] == state);
        ensure!(
            group["phase"] == "fenced" || (goes_back.contains(&true) && on == "off"),
            "{step}: the barrier is {on}, {group}"
        );
        let promote = pair
            .daemon
            .ctl(&["promote", "--new-primary", "b", "--confirm"])
            .await?;
        ensure!([3, 5].contains(&promote.code), "{step}: {}", promote.text);
        let again = pair.daemon.ctl(&["abort"]).await?;
        let done = again.code == 3 && again.text.contains("nothing_to_abort");
        ensure!(again.code == 0 || done, "{step}: {}", again.text);
        writes_pass(&pair, "a").await.context(step)?;
    }
    Ok(())
}

#[tokio::test]
async fn killed_while_fenced_it_comes_back_fenced() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|o| o.answer = "reject".into()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    let before = pair.group().await?["epoch"].as_u64();
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    let group = pair.group().await?;
    ensure!(
        group["phase"] == "fenced" && group["epoch"].as_u64() > before,
        "{group}"
    );
    let client = pair.client().await?;
    let error = client
        .batch_execute("INSERT INTO t VALUES (1)")
        .await
        .expect_err("fenced");
    ensure!(sqlstate(&error) == "25006", "{error}");
    client.batch_execute("SELECT 1").await?;
    pair.ctl(0, &["abort"]).await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}

#[tokio::test]
async fn lost_state_in_a_used_directory_stays_fenced() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.daemon.kill()?;
    let gate = pair.daemon.state_dir().join("gate").join("main.json");
    std::fs::remove_file(&gate)?;
    pair.daemon.launch(&[]).await?;
    ensure!(pair.group().await?["phase"] == "fenced");
    pair.ctl(0, &["open-writes", "--primary", "a"]).await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    Ok(())
}

#[tokio::test]
async fn after_an_unclean_stop_a_drain_waits_for_the_predecessors_statement() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let client = pair.client().await?;
    let gate = Gate::shut(&pair.a).await?;
    let sql = format!("INSERT INTO t SELECT 1 FROM {}", Gate::WAIT);
    let write = tokio::spawn(async move { client.batch_execute(&sql).await });
    until("the statement to run", SOON, async || {
        Ok(pair.group().await?["in_flight"]["executing"].as_u64() == Some(1))
    })
    .await?;
    pair.daemon.kill()?;
    ensure!(write.await?.is_err());
    pair.daemon.launch(&[]).await?;
    pair.daemon.wait_open().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "1s"]).await?;
    gate.open().await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "10s"]).await?;
    let running = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t SELECT 1%' AND state = 'active'";
    ensure!(
        pair.a.value(running).await? == "0",
        "drained while it was still running"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_killed_primary_with_synchronous_replication_loses_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    pair.a.synchronous(true).await?;
    let idle = pair.client().await?;
    let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    pause(Duration::from_millis(500)).await;
    let from = load.now();
    pair.a.kill()?;
    let args = [
        "failover",
        "--to",
        "b",
        "--reason",
        "fire",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &args).await?;
    pause(Duration::from_millis(700)).await;
    let window = Window {
        from,
        to: load.now(),
    };
    let history = load.stop().await?;
    let report = ledger
        .check(&history, window, &pair.b, None::<&Rows>)
        .await?;
    let f = &report.findings;
    ensure!(
        f.acked_lost.len() == f.of_them_async,
        "acknowledged and lost: {:?}\n{report}",
        f.acked_lost
    );
    ensure!(
        f.duplicates.is_empty() && f.refused_present.is_empty(),
        "{report}"
    );
    // Only an answer that was torn in the middle of a message can cost a connection.
    let log = std::fs::read_to_string(pair.daemon.log())?;
    ensure!(
        !log.contains("cannot be moved"),
        "sessions were ended\n{log}"
    );
    idle.batch_execute("INSERT INTO t VALUES (1)").await?;
    Ok(())
}

#[tokio::test]
async fn a_second_daemon_on_the_same_state_is_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let config = pair.daemon.write_config()?;
    let program = pair.daemon.binaries().join("writefence");
    let out = std::process::Command::new(program)
        .arg("serve")
        .arg("--config")
        .arg(config)
        .output()?;
    ensure!(!out.status.success());
    let said =
        String::from_utf8_lossy(&out.stderr).into_owned() + &String::from_utf8_lossy(&out.stdout);
    ensure!(said.contains("lock"), "{said}");
    Ok(())
}

#[tokio::test]
async fn a_group_of_one_region_opens_after_its_own_probe() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&pair.a])).await?;
    daemon.wait_open().await
}
