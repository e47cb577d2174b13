//! What a run leaves behind: the audit, checked offline, the report, and drills that leave nothing.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::{pause, until};
use writefence_tests::ledger::Plan;
use writefence_tests::postgres::skipped;
use writefence_tests::{Ledger, process};

use crate::support::Pair;

/// The records that `audit show` prints, oldest first.
async fn records(pair: &Pair) -> Result<Vec<Value>> {
    let shown = pair.ctl(0, &["audit", "show"]).await?;
    Ok(shown["records"].as_array().context("records")?.clone())
}

/// Event and outcome of each record.
fn words(records: &[Value]) -> Vec<String> {
    let word = |record: &Value, name: &str| record[name].as_str().unwrap_or("?").to_owned();
    let both = |record| format!("{} {}", word(record, "event"), word(record, "outcome"));
    records.iter().map(both).collect()
}

fn position(words: &[String], wanted: &str) -> Result<usize> {
    let found = words.iter().position(|word| word == wanted);
    found.with_context(|| format!("no {wanted:?} in {words:#?}"))
}

/// A run, under a load, that goes on behind its fence once a write is held: a transaction that is
/// open until then sees to it.
async fn under_a_hold(pair: &Pair, args: &[&str]) -> Result<Value> {
    let open = pair.client().await?;
    open.batch_execute("BEGIN; INSERT INTO t VALUES (1)")
        .await?;
    let held = async {
        until("a write to be held", Duration::from_secs(30), async || {
            Ok(pair.group().await?["in_flight"]["held"].as_u64() > Some(0))
        })
        .await?;
        Ok(open.batch_execute("COMMIT").await?)
    };
    let (run, held) = tokio::join!(pair.ctl(0, args), held);
    held.and(run)
}

async fn verify(pair: &Pair, dir: &Path, code: i32) -> Result<Value> {
    let key = pair.ctl(0, &["audit", "key"]).await?;
    let key = key["key"].as_str().context("key")?.to_owned();
    let dir = dir.to_str().context("path")?;
    pair.ctl(code, &["audit", "verify", "--dir", dir, "--key", &key])
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_switchover_leaves_a_whole_audit_and_a_report_of_what_it_cost() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| {
        // Within it the open transaction waits for a write to be held.
        o.be_patient();
        o.extra = "[group.main.objectives]\nrto = \"30s\"\nrpo = \"0s\"\n".into();
    })
    .await?;
    let ledger = Ledger::create(&pair.a).await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    pair.ctl(3, &["switchover", "--to", "nowhere", "--reason", "typo"])
        .await?;
    let move_it = ["switchover", "--to", "b", "--reason", "CHG-7"];
    let run = under_a_hold(&pair, &move_it).await?;
    pause(Duration::from_millis(200)).await;
    load.stop().await?;
    let id = run["id"].as_str().context("id")?;

    // Asked by id and as the last one: the same.
    let report = pair
        .ctl(0, &["report", "--run", id, "--format", "json"])
        .await?;
    let last = pair.ctl(0, &["report"]).await?;
    ensure!(report["timeline"] == last["timeline"], "{report} {last}");
    let cost = &report["measured"];
    let gap = cost["write_gap_ms"].as_u64().context("write gap")?;
    // From the fence to the opening by the journal, beside what the data path saw.
    let journal = run["write_gap_ms"].as_u64().context("gap")?;
    ensure!(
        gap < journal + 1000 && gap + 1000 > journal,
        "the data path saw {gap} ms, the journal says {journal} ms"
    );
    ensure!(cost["held"].as_u64() > Some(0), "nothing was held: {cost}");
    ensure!(cost["first_was_held"] == true, "{cost}");
    ensure!(cost["longest_hold_ms"].as_u64() > Some(0), "{cost}");
    ensure!(cost["sessions_moved"].as_u64() > Some(0), "{cost}");
    ensure!(report["objectives"]["rto_met"] == true, "{report}");
    ensure!(report["objectives"]["rpo_met"] == true, "{report}");
    ensure!(report["lineage"]["new_timeline"] == 2, "{report}");
    ensure!(report["lineage"]["fork_lsn"].is_string(), "{report}");
    ensure!(report["audit"]["size"].as_u64() > Some(10), "{report}");

    let records = records(&pair).await?;
    let words = words(&records);
    let refused = position(&words, "verb refused: wrong_region")?;
    ensure!(records[refused]["reason"] == "typo", "{records:#?}");
    let order = [
        "daemon started",
        "run started",
        "phase fenced",
        "run certificate",
        "run point_of_no_return",
        "run promoted",
        "phase opened",
        "run done",
        "region_failover done",
    ];
    let places = order.map(|word| position(&words, word));
    let places = places.into_iter().collect::<Result<Vec<_>>>()?;
    // The first opening is the start's own; the run's comes behind its promotion.
    let last_open = words.iter().rposition(|word| word == "phase opened");
    ensure!(last_open > Some(places[5]), "{words:#?}");
    ensure!(places[..6].is_sorted(), "{words:#?}");
    let summary = &records[places[8]];
    ensure!(summary["facts"]["to"] == "b", "{summary}");
    ensure!(summary["reason"] == "CHG-7", "{summary}");
    ensure!(
        summary["actor"]
            .as_str()
            .is_some_and(|a| a.contains("uid=")),
        "{summary}"
    );

    let dir = pair.daemon.state_dir().join("audit");
    let verdict = verify(&pair, &dir, 0).await?;
    ensure!(
        verdict["signed_size"] == verdict["records"],
        "not all of it is signed: {verdict}"
    );
    // A copy of it, edited.
    let copy = tempfile::tempdir()?;
    for file in std::fs::read_dir(&dir)? {
        let file = file?;
        let text = std::fs::read_to_string(file.path())?;
        let text = text.replacen("CHG-7", "CHG-8", 1);
        std::fs::write(copy.path().join(file.file_name()), text)?;
    }
    let verdict = verify(&pair, copy.path(), 7).await?;
    let edited = records.iter().position(|r| r["reason"] == "CHG-7");
    let edited = edited.context("a record with the reason")? + 1;
    ensure!(verdict["damage"][0]["record"] == edited, "{verdict}");
    Ok(())
}

#[tokio::test]
async fn a_restart_and_a_kill_leave_an_audit_that_goes_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    pair.ctl(0, &["abort"]).await?;
    pair.daemon.stop().await?;
    pair.daemon.launch(&[]).await?;
    pair.daemon.wait_open().await?;
    let words = words(&records(&pair).await?);
    let starts = words
        .iter()
        .filter(|word| *word == "daemon started")
        .count();
    ensure!(starts == 3, "{words:#?}");
    position(&words, "run interrupted")?;
    position(&words, "region_failover aborted")?;
    verify(&pair, &pair.daemon.state_dir().join("audit"), 0).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_drill_goes_back_by_itself_and_promotes_nobody() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| {
        // Within it the open transaction waits for a write to be held.
        o.be_patient();
    })
    .await?;
    let ledger = Ledger::create(&pair.a).await?;
    let load = ledger.load(&Plan::new(Ledger::endpoint(pair.daemon.port())))?;
    load.warm().await?;
    for only in [true, false] {
        let mut args = vec!["drill", "--to", "b", "--reason", "quarter"];
        if only {
            args.push("--fence-only");
        }
        let run = under_a_hold(&pair, &args).await?;
        ensure!(run["kind"] == "drill", "{run}");
        let state = |name: &str| {
            let steps = run["steps"]
                .as_array()
                .map(Vec::as_slice)
                .unwrap_or_default();
            let step = steps.iter().find(|step| step["name"] == name);
            step.map(|step| step["state"].clone()).unwrap_or_default()
        };
        ensure!(
            state("drain") == "done" && state("pnr") == "pending",
            "{run}"
        );
        ensure!((state("caught_up") == "done") != only, "{run}");
        let report = pair.ctl(0, &["report"]).await?;
        ensure!(report["measured"]["write_gap_ms"].is_u64(), "{report}");
        ensure!(report["measured"]["held"].as_u64() > Some(0), "{report}");
        ensure!(report["objectives"]["lost_bytes"] == 0, "{report}");
        ensure!(pair.b.in_recovery().await?);
        let on = pair.a.value("SHOW default_transaction_read_only").await?;
        ensure!(on == "off", "the barrier was left behind");
        ensure!(pair.group().await?["phase"] == "open");
    }
    let history = load.stop().await?;
    let window = writefence_tests::ledger::Window {
        from: Duration::ZERO,
        to: Duration::from_secs(3600),
    };
    let report = ledger.check(&history, window, &pair.a, None).await?;
    let found = &report.findings;
    ensure!(
        found.acked_lost.is_empty() && found.duplicates.is_empty(),
        "{report}\n{}",
        process::tail(&pair.daemon.log())
    );
    Ok(())
}

#[tokio::test]
async fn a_full_disk_stops_writes_all_the_same_and_keeps_them_stopped() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.answer = "reject".into()).await?;
    let client = pair.client().await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    // The disk takes no byte more.
    pair.daemon.limit_files(Some(0))?;
    let told = pair
        .ctl(3, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    ensure!(told["error"]["code"] == "storage", "{told}");
    let said = told["error"]["message"].as_str().unwrap_or_default();
    ensure!(said.contains("stopped in memory"), "{told}");
    let refused = client.batch_execute("INSERT INTO t VALUES (2)").await;
    ensure!(
        refused.is_err(),
        "writes pass although they were to be stopped"
    );
    client.batch_execute("SELECT 1").await?;
    // What cannot be recorded is not opened.
    pair.ctl(3, &["open-writes", "--primary", "a"]).await?;
    let group = pair.group().await?;
    ensure!(group["phase"] == "fenced", "{group}");
    ensure!(group["notices"].to_string().contains("audit"), "{group}");
    pair.daemon.limit_files(None)?;
    until("writes to be opened", Duration::from_secs(10), async || {
        let again = pair.daemon.ctl(&["open-writes", "--primary", "a"]).await?;
        Ok(again.code == 0)
    })
    .await?;
    client.batch_execute("INSERT INTO t VALUES (3)").await?;
    // Nothing of it is missing in the audit.
    let words = words(&records(&pair).await?);
    position(&words, "verb refused: storage")?;
    position(&words, "phase fenced_in_memory_only")?;
    verify(&pair, &pair.daemon.state_dir().join("audit"), 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_disk_that_fills_behind_the_fence_refuses_the_opening_until_there_is_room() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.daemon.limit_files(Some(0))?;
    let told = pair.ctl(3, &["open-writes", "--primary", "a"]).await?;
    ensure!(told.to_string().contains("storage"), "{told}");
    ensure!(pair.group().await?["phase"] == "fenced");
    pair.daemon.limit_files(None)?;
    pair.ctl(0, &["abort"]).await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    verify(&pair, &pair.daemon.state_dir().join("audit"), 0).await?;
    Ok(())
}

#[tokio::test]
async fn a_state_directory_that_cannot_be_written_is_told_at_the_start() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let config = pair.daemon.write_config()?;
    let text = std::fs::read_to_string(&config)?;
    let state = pair.daemon.state_dir();
    let state = state.to_str().context("path")?;
    // Not even root may make a folder there.
    let text = text.replace(state, "/sys/kernel/writefence");
    std::fs::write(&config, text)?;
    let out = std::process::Command::new(pair.daemon.binaries().join("writefence"))
        .args(["serve", "--config"])
        .arg(&config)
        .output()?;
    ensure!(out.status.code() == Some(1), "{out:?}");
    let said = String::from_utf8_lossy(&out.stderr);
    ensure!(
        said.contains("cannot create /sys/kernel/writefence") && said.contains("[admin] state_dir"),
        "{said}"
    );
    Ok(())
}
