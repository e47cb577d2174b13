//! Servers that are lost: what the client is told at each point, and what became of it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::{eventually, until};
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions, Relay, process};

use crate::frames::{Wire, state, status};
use crate::orphans::{gated_commits, runs, slow_commits};
use crate::support::{Gate, Pair};

const SOON: Duration = Duration::from_secs(30);
const TRACKED: &str = "[group.main.sql]\ntrack_xid = true\n";

/// A pair whose primary is reached through a cable that can be cut.
pub(crate) async fn cabled(extra: &str) -> Result<(Pair, Relay)> {
    let a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE TABLE t (a int)").await?;
    let b = a.standby("b").await?;
    let relay = Relay::start(a.port()).await?;
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.regions[0].1 = relay.port();
    options.extra = extra.to_owned();
    let daemon = Daemon::start(options).await?;
    daemon
        .wait_open()
        .await
        .with_context(|| process::tail(&daemon.log()))?;
    Ok((Pair { daemon, a, b }, relay))
}

/// The only write of unknown outcome, once it is in this state.
async fn settled(pair: &Pair, wanted: &str) -> Result<Value> {
    eventually(&format!("the write to be {wanted}"), SOON, async || {
        let list = unknown(pair).await?;
        ensure!(list.len() == 1, "{list:?}");
        ensure!(list[0]["state"] == wanted, "{list:?}");
        Ok(list.into_iter().next())
    })
    .await
    .with_context(|| process::tail(&pair.daemon.log()))
}

/// The audit's records about writes of unknown outcome, oldest first.
async fn audited(pair: &Pair) -> Result<Vec<Value>> {
    let shown = pair.ctl(0, &["audit", "show"]).await?;
    let records = shown["records"].as_array().context("records")?;
    let about = records.iter().filter(|record| record["event"] == "unknown");
    Ok(about.cloned().collect())
}

async fn unknown(pair: &Pair) -> Result<Vec<Value>> {
    let document = pair.ctl(0, &["unknown", "list"]).await?;
    Ok(document["writes"].as_array().cloned().unwrap_or_default())
}

/// Cuts, and waits until the server has noticed.
async fn cut(pair: &Pair, relay: &Relay) -> Result<()> {
    relay.cut();
    let sql = "SELECT count(*) FROM pg_stat_activity \
               WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()";
    until("the sessions to be gone", SOON, async || {
        Ok(pair.a.value(sql).await? == "0")
    })
    .await
}

/// Runs longer than two of the observer's intervals, so that it was looked at.
async fn runs_long(pair: &Pair, query: &str) -> Result<()> {
    let sql = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE state = 'active' AND query = '{query}' \
         AND clock_timestamp() - query_start > interval '2500 ms'"
    );
    until("the statement to be looked at", SOON, async || {
        Ok(pair.a.value(&sql).await? == "1")
    })
    .await
}

/// Cuts while `last` runs, behind `first`, and says what the client is told.
async fn cut_during(first: &str, last: &str) -> Result<(String, Option<char>, usize)> {
    let (pair, relay) = cabled("").await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    // Before the catalog is known, any name could stand for a writer.
    until("the catalog to be read", SOON, async || {
        let found = pair
            .daemon
            .ctl(&["explain-sql", "SELECT pg_sleep(1)"])
            .await?;
        Ok(found.text.contains(r#""verdict":"read""#))
    })
    .await?;
    if !first.is_empty() {
        client.ask(first).await?;
    }
    client.query(last).await?;
    runs(&pair, last).await?;
    relay.cut();
    let answer = client.until_ready().await?;
    relay.heal();
    // The connection lives on, on a new login.
    if status(&answer) == Some('E') {
        client.ask("ROLLBACK").await?;
    }
    let after = client.ask("SELECT 1").await?;
    ensure!(
        state(&after).is_empty() && status(&after) == Some('I'),
        "{after:?}"
    );
    let known = unknown(&pair).await?.len();
    Ok((state(&answer), status(&answer), known))
}

#[tokio::test]
async fn unknown_is_said_only_where_something_may_have_been_committed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let lost = |status| ("08006".to_owned(), Some(status), 0);
    let unknown = ("08007".to_owned(), Some('I'), 1);
    ensure!(cut_during("", "SELECT pg_sleep(60)").await? == lost('I'));
    let write = "INSERT INTO t SELECT 1 FROM pg_sleep(60)";
    ensure!(cut_during("", write).await? == unknown);
    ensure!(cut_during("BEGIN", write).await? == lost('E'));
    ensure!(
        cut_during(
            "BEGIN; INSERT INTO d VALUES (1)",
            "SET CONSTRAINTS ALL IMMEDIATE"
        )
        .await?
            == lost('E')
    );
    // As after a COMMIT that fails, the transaction is over.
    ensure!(cut_during("BEGIN; INSERT INTO d VALUES (1)", "COMMIT").await? == unknown);
    Ok(())
}

#[tokio::test]
async fn a_server_lost_in_rest_is_an_error_only_where_something_was_lost() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled("").await?;
    let mut idle = Wire::login(pair.daemon.port()).await?;
    let mut inside = Wire::login(pair.daemon.port()).await?;
    inside.ask("BEGIN; INSERT INTO t VALUES (1)").await?;
    let mut run = Wire::login(pair.daemon.port()).await?;
    run.run("INSERT INTO t VALUES (2)", 0).await?;
    run.flush().await?;
    run.until('C').await?;
    cut(&pair, &relay).await?;
    relay.heal();
    let answer = idle.ask("SELECT 1").await?;
    ensure!(state(&answer).is_empty(), "nothing was lost: {answer:?}");
    let answer = inside.ask("SELECT 1").await?;
    ensure!(
        state(&answer) == "25P02" && status(&answer) == Some('E'),
        "{answer:?}"
    );
    let answer = inside.ask("ROLLBACK").await?;
    ensure!(status(&answer) == Some('I'), "{answer:?}");
    run.sync().await?;
    let answer = run.until_ready().await?;
    ensure!(state(&answer) == "08006", "a run is undone: {answer:?}");
    ensure!(unknown(&pair).await?.is_empty());
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}

#[tokio::test]
async fn a_commit_in_a_run_without_a_sync_is_unknown_too() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled("").await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.run("COMMIT", 0).await?;
    client.flush().await?;
    runs(&pair, "COMMIT").await?;
    relay.cut();
    client.sync().await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer) == "08007", "{answer:?}");
    Ok(())
}

#[tokio::test]
async fn an_answer_that_is_torn_in_a_message_ends_the_client() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled("").await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.query("SELECT repeat('x', 200000000)").await?;
    client.taste(1_000_000).await?;
    // No message of ours may follow half of one of the server's.
    cut(&pair, &relay).await?;
    relay.heal();
    client.closed().await?;
    let mut other = Wire::login(pair.daemon.port()).await?;
    ensure!(state(&other.ask("SELECT 1").await?).is_empty());
    Ok(())
}

#[tokio::test]
async fn a_commit_that_was_carried_out_is_found_committed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    // By the id that was asked for, and by the observer's look.
    for extra in [TRACKED, ""] {
        let (pair, relay) = cabled(extra).await?;
        let gate = gated_commits(&pair).await?;
        let mut client = Wire::login(pair.daemon.port()).await?;
        client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
        client.query("COMMIT").await?;
        match extra {
            TRACKED => runs(&pair, "COMMIT").await?,
            _ => runs_long(&pair, "COMMIT").await?,
        }
        relay.cut();
        let answer = client.until_ready().await?;
        ensure!(state(&answer) == "08007", "{answer:?}");
        let before = unknown(&pair).await?;
        ensure!(before[0]["state"] == "unresolved", "{before:?}");
        gate.open().await?;
        relay.heal();
        let write = settled(&pair, "committed").await?;
        let xid = pair.a.value("SELECT xmin FROM d").await?;
        let told = write["xid"].to_string();
        ensure!(told == xid, "{write}, the row's is {xid}");
        ensure!(
            write["digest"]
                .as_str()
                .is_some_and(|d| d.starts_with("commit:")),
            "{write}"
        );
        ensure!(
            write["client"]
                .as_str()
                .is_some_and(|c| c.starts_with("127.0.0.1:")),
            "{write}"
        );
        ensure!(write["at"].is_string() && write["region"] == "a", "{write}");
        // An outcome that is known blocks nothing.
        pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
            .await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_write_of_its_own_is_found_by_what_its_backend_shows() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled("").await?;
    let gate = gated_commits(&pair).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.query("INSERT INTO d VALUES (1)").await?;
    runs(&pair, "INSERT INTO d").await?;
    relay.cut();
    ensure!(state(&client.until_ready().await?) == "08007");
    relay.heal();
    until("its id to be seen", SOON, async || {
        Ok(unknown(&pair).await?[0]["xid"].is_u64())
    })
    .await?;
    gate.open().await?;
    let write = settled(&pair, "committed").await?;
    ensure!(write["xid"].is_u64(), "{write}");
    Ok(())
}

#[tokio::test]
async fn a_commit_that_was_undone_is_found_lost_also_by_an_abort() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled(TRACKED).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    relay.cut();
    ensure!(state(&client.until_ready().await?) == "08007");
    relay.heal();
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    // Its backend is there: nothing is known, and it blocks.
    pair.ctl(4, &["watch-drain", "--max-wait", "700ms"]).await?;
    let drain = &pair.group().await?["drain"];
    ensure!(drain["unknown"].as_u64() == Some(1), "{drain}");
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'";
    pair.a.query(end).await?;
    pair.ctl(0, &["abort"]).await?;
    settled(&pair, "lost").await?;
    ensure!(pair.a.value("SELECT count(*) FROM d").await? == "0");
    Ok(())
}

#[tokio::test]
async fn without_an_id_an_outcome_is_unresolvable_and_says_so() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled("").await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    client
        .query(&format!("INSERT INTO t SELECT 1 FROM {}", Gate::WAIT))
        .await?;
    runs(&pair, "INSERT INTO t").await?;
    relay.cut();
    ensure!(state(&client.until_ready().await?) == "08007");
    gate.open().await?;
    until("the statement to end", SOON, async || {
        Ok(pair.rows(&pair.a).await? == "1")
    })
    .await?;
    relay.heal();
    let write = settled(&pair, "unresolvable").await?;
    ensure!(write["xid"].is_null(), "{write}");
    Ok(())
}

#[tokio::test]
async fn after_a_crash_of_the_server_its_own_log_is_not_believed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|o| o.extra = TRACKED.into()).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    pair.a.kill()?;
    ensure!(state(&client.until_ready().await?) == "08007");
    pair.a.start().await?;
    let write = settled(&pair, "unresolvable").await?;
    ensure!(write["xid"].is_u64(), "{write}");
    Ok(())
}

/// A COMMIT that waits for its standby when the primary dies, then the failover.
async fn killed_during_commit(mut pair: Pair, client: &mut Wire) -> Result<Pair> {
    pair.a.kill()?;
    ensure!(state(&client.until_ready().await?) == "08007");
    let args = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &args).await?;
    Ok(pair)
}

const WAITS: &str = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'SyncRep'";

#[tokio::test]
async fn a_commit_that_reached_the_new_primary_is_found_committed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.extra = TRACKED.into()).await?;
    pair.a.synchronous(true).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("SET synchronous_commit = remote_apply").await?;
    client.ask("BEGIN; INSERT INTO t VALUES (1)").await?;
    pair.b.query("SELECT pg_wal_replay_pause()").await?;
    client.query("COMMIT").await?;
    until("the commit to wait", SOON, async || {
        Ok(pair.a.value(WAITS).await? == "1")
    })
    .await?;
    let shipped =
        "SELECT bool_and(flush_lsn >= pg_current_wal_flush_lsn()) FROM pg_stat_replication";
    until("it to be shipped", SOON, async || {
        Ok(pair.a.value(shipped).await? == "t")
    })
    .await?;
    let pair = killed_during_commit(pair, &mut client).await?;
    settled(&pair, "committed").await?;
    ensure!(pair.rows(&pair.b).await? == "1");
    let records = audited(&pair).await?;
    ensure!(
        records
            .last()
            .is_some_and(|last| last["outcome"] == "committed"),
        "{records:#?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_commit_that_was_not_shipped_is_found_lost() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.extra = TRACKED.into()).await?;
    let stream = Relay::start(pair.a.port()).await?;
    pair.b.stream_through(&pair.a, stream.port()).await?;
    pair.a.synchronous(true).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    stream.black_hole();
    client.ask("BEGIN; INSERT INTO t VALUES (1)").await?;
    client.query("COMMIT").await?;
    until("the commit to wait", SOON, async || {
        Ok(pair.a.value(WAITS).await? == "1")
    })
    .await?;
    let pair = killed_during_commit(pair, &mut client).await?;
    let write = settled(&pair, "lost").await?;
    ensure!(pair.rows(&pair.b).await? == "0");
    // Nobody asked, so who has to answer for it finds what it was concluded from.
    let records = audited(&pair).await?;
    let last = records.last().context("a record")?;
    ensure!(
        last["outcome"] == "lost" && last["actor"] == "writefence",
        "{records:#?}"
    );
    let (facts, xid) = (&last["facts"], write["xid"].to_string());
    ensure!(
        facts["write"] == write["id"] && facts["region"] == "a" && facts["xid"] == xid,
        "{last} of {write}"
    );
    ensure!(last["run"].is_string() && last["epoch"].is_u64(), "{last}");
    // The id has been given out again by now, or will be: the answer was kept before that.
    client.ask("INSERT INTO t VALUES (2)").await?;
    let again = unknown(&pair).await?;
    ensure!(
        again[0]["state"] == "lost" && again[0]["xid"] == write["xid"],
        "{again:?}"
    );
    Ok(())
}

#[tokio::test]
async fn a_transaction_that_arrived_without_its_commit_is_found_lost() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.extra = TRACKED.into()).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    // A later transaction takes its records to the standby.
    pair.a.query("INSERT INTO t VALUES (1)").await?;
    pair.b.wait_caught_up(&pair.a).await?;
    let pair = killed_during_commit(pair, &mut client).await?;
    settled(&pair, "lost").await?;
    ensure!(pair.b.value("SELECT count(*) FROM d").await? == "0");
    let journal = journals(&pair)?;
    ensure!(
        journal.contains("\"next_xid\":"),
        "not in the journal: {journal}"
    );
    Ok(())
}

fn journals(pair: &Pair) -> Result<String> {
    let mut text = String::new();
    for entry in std::fs::read_dir(pair.daemon.state_dir().join("runs"))? {
        text.push_str(&std::fs::read_to_string(entry?.path())?);
    }
    Ok(text)
}

#[tokio::test]
async fn a_primary_that_is_cut_off_does_not_hold_up_a_failover() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled(TRACKED).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    relay.black_hole();
    let args = [
        "failover",
        "--to",
        "b",
        "--reason",
        "x",
        "--accept-loss",
        "--confirm",
    ];
    pair.ctl(0, &args).await?;
    // The client is told, and keeps its connection.
    let answer = client.until_ready().await?;
    ensure!(state(&answer) == "08007", "{answer:?}");
    let answer = client.ask("INSERT INTO t VALUES (1)").await?;
    ensure!(state(&answer).is_empty(), "{answer:?}");
    settled(&pair, "lost").await?;
    Ok(())
}

/// A COMMIT that is still running behind a cut cable when the daemon is killed.
async fn inherited() -> Result<(Pair, Relay)> {
    let (mut pair, relay) = cabled(TRACKED).await?;
    slow_commits(&pair, 60.0).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    relay.cut();
    ensure!(state(&client.until_ready().await?) == "08007");
    relay.heal();
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    pair.daemon.wait_open().await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "700ms"]).await?;
    let drain = pair.group().await?["drain"].clone();
    ensure!(
        drain["unknown"].as_u64() == Some(1) && drain["lanes"]["sql"].as_u64() == Some(0),
        "{drain}"
    );
    Ok((pair, relay))
}

#[tokio::test]
async fn what_an_earlier_start_left_unknown_blocks_until_it_is_proved() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, _relay) = inherited().await?;
    let end = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query = 'COMMIT'";
    pair.a.query(end).await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    settled(&pair, "lost").await?;
    Ok(())
}

#[tokio::test]
async fn what_an_earlier_start_left_unknown_blocks_until_it_is_acknowledged() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (mut pair, _relay) = inherited().await?;
    pair.ctl(1, &["unknown", "ack", "77", "--reason", "no such write"])
        .await?;
    let id = unknown(&pair).await?[0]["id"]
        .as_str()
        .unwrap_or_default()
        .to_owned();
    pair.ctl(0, &["unknown", "ack", &id, "--reason", "looked at by hand"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    let write = settled(&pair, "acknowledged").await?;
    let by = write["acknowledged_by"].as_str().unwrap_or_default();
    ensure!(by.contains("looked at by hand"), "{write}");
    let records = audited(&pair).await?;
    let last = records.last().context("a record")?;
    ensure!(
        last["outcome"] == "acknowledged"
            && last["reason"] == "looked at by hand"
            && last["facts"]["write"] == id,
        "{records:#?}"
    );
    ensure!(
        last["actor"].as_str().is_some_and(|by| by.contains("uid=")),
        "{last}"
    );
    // For good: neither proof nor a restart brings it back.
    pair.daemon.kill()?;
    pair.daemon.launch(&[]).await?;
    settled(&pair, "acknowledged").await?;
    ensure!(pair.group().await?["in_flight"]["unknown"].as_u64() == Some(0));
    Ok(())
}
