//! What is in flight when the fence falls, form by form; and what `--force` does to it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::frames::{Wire, state, status};
use crate::orphans::{gated_commits, runs};
use crate::support::{Gate, Pair};

const SOON: Duration = Duration::from_secs(30);

/// Fences, and requires that a drain times out on exactly this one straggler.
async fn one_straggler(pair: &Pair) -> Result<Value> {
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    let group = pair.group().await?;
    ensure!(group["drain"]["outcome"] == "timed_out", "{group}");
    let all = group["drain"]["stragglers"].as_array();
    let all = all.with_context(|| group.to_string())?;
    ensure!(all.len() == 1, "{group}");
    Ok(all[0].clone())
}

async fn drained(pair: &Pair) -> Result<()> {
    pair.ctl(0, &["watch-drain", "--max-wait", "10s"]).await?;
    Ok(())
}

async fn forced(pair: &Pair) -> Result<()> {
    pair.ctl(0, &["watch-drain", "--max-wait", "10s", "--force"])
        .await?;
    Ok(())
}

/// After the fence the session is as good as before.
async fn still_of_use(pair: &Pair, client: &mut Wire) -> Result<()> {
    pair.ctl(0, &["abort"]).await?;
    // A transaction of its own, which nothing that was said about the last one may touch.
    for (sql, expected) in [
        ("BEGIN", 'T'),
        ("INSERT INTO t VALUES (100)", 'T'),
        ("COMMIT", 'I'),
    ] {
        let answer = client.ask(sql).await?;
        ensure!(
            state(&answer).is_empty() && status(&answer) == Some(expected),
            "{sql}: {answer:?}"
        );
    }
    Ok(())
}

#[tokio::test]
async fn a_straggler_is_named_with_all_that_finds_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client
        .query("INSERT INTO t SELECT 1 FROM pg_sleep(60)")
        .await?;
    runs(&pair, "INSERT INTO t SELECT").await?;
    let pid = pair
        .a
        .value("SELECT pid FROM pg_stat_activity WHERE query LIKE 'INSERT INTO t SELECT%' AND pid <> pg_backend_pid()")
        .await?;
    let s = one_straggler(&pair).await?;
    ensure!(s["kind"] == "sql" && s["state"] == "executing", "{s}");
    ensure!(
        s["user"] == "postgres" && s["database"] == "postgres",
        "{s}"
    );
    let told = s["pid"].to_string();
    ensure!(told == pid, "{s}, the backend is {pid}");
    ensure!(
        s["client"]
            .as_str()
            .is_some_and(|c| c.starts_with("127.0.0.1:")),
        "{s}"
    );
    ensure!(s["age_ms"].as_u64() >= Some(300), "{s}");
    ensure!(
        s["digest"]
            .as_str()
            .is_some_and(|d| d.starts_with("insert:")),
        "{s}"
    );
    ensure!(s["id"].as_str().is_some_and(|id| !id.is_empty()), "{s}");
    forced(&pair).await?;
    ensure!(state(&client.until_ready().await?) == "57014");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_copy_counts_until_its_end() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.query("COPY t FROM STDIN").await?;
    client.until('G').await?;
    client.say(b'd', b"1\n").await?;
    one_straggler(&pair).await?;
    client.say(b'd', b"2\n").await?;
    client.say(b'c', &[]).await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer).is_empty(), "{answer:?}");
    drained(&pair).await?;
    ensure!(pair.rows(&pair.a).await? == "2");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_copy_is_failed_by_force_also_while_its_client_is_silent() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut simple = Wire::login(pair.daemon.port()).await?;
    simple.query("COPY t FROM STDIN").await?;
    simple.until('G').await?;
    simple.say(b'd', b"1\n").await?;
    one_straggler(&pair).await?;
    forced(&pair).await?;
    let answer = simple.until_ready().await?;
    ensure!(state(&answer) == "57014", "{answer:?}");
    // It had more under way.
    simple.say(b'd', b"2\n").await?;
    simple.say(b'c', &[]).await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    still_of_use(&pair, &mut simple).await?;

    let mut inside = Wire::login(pair.daemon.port()).await?;
    inside.ask("BEGIN").await?;
    inside.query("COPY t FROM STDIN").await?;
    inside.until('G').await?;
    one_straggler(&pair).await?;
    forced(&pair).await?;
    ensure!(state(&inside.until_ready().await?) == "57014");
    inside.ask("ROLLBACK").await?;
    still_of_use(&pair, &mut inside).await?;

    let mut extended = Wire::login(pair.daemon.port()).await?;
    extended.run("COPY t FROM STDIN", 0).await?;
    extended.sync().await?;
    extended.until('G').await?;
    extended.say(b'd', b"1\n").await?;
    one_straggler(&pair).await?;
    forced(&pair).await?;
    extended.say(b'c', &[]).await?;
    extended.sync().await?;
    let answer = extended.until_ready().await?;
    ensure!(state(&answer) == "57014", "{answer:?}");
    ensure!(
        pair.rows(&pair.a).await? == "2",
        "only those of `still_of_use`"
    );
    still_of_use(&pair, &mut extended).await
}

#[tokio::test]
async fn a_function_call_counts_until_it_has_returned() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    // What `Gate::WAIT` calls; one argument as text, a result as text.
    let oid = "SELECT 'pg_advisory_xact_lock_shared(bigint)'::regprocedure::oid";
    let oid: i32 = pair.a.value(oid).await?.parse()?;
    let call = [
        &oid.to_be_bytes()[..],
        &[0, 0, 0, 1],
        &4i32.to_be_bytes(),
        b"4711",
        &[0, 0],
    ];
    client.say(b'F', &call.concat()).await?;
    until("the call to run", SOON, async || {
        Ok(pair.group().await?["in_flight"]["executing"].as_u64() == Some(1))
    })
    .await?;
    let s = one_straggler(&pair).await?;
    ensure!(
        s["digest"]
            .as_str()
            .is_some_and(|d| d.starts_with("function")),
        "{s}"
    );
    gate.open().await?;
    drained(&pair).await?;
    ensure!(state(&client.until_ready().await?).is_empty());
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_suspended_portal_ends_with_its_sync() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let sql = "INSERT INTO t SELECT generate_series(1, 3) RETURNING a";
    client.run(sql, 1).await?;
    client.sync().await?;
    let answer = client.until_ready().await?;
    ensure!(answer.iter().any(|f| f.tag == 's'), "{answer:?}");
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    drained(&pair).await?;
    ensure!(pair.rows(&pair.a).await? == "3", "the Sync committed it");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_run_without_a_sync_is_one_transaction_across_the_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| {
        o.grace = "60s".into();
        o.deadline = "60s".into();
    })
    .await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let sql = "INSERT INTO t SELECT generate_series(1, 3) RETURNING a";
    client.run(sql, 1).await?;
    client.flush().await?;
    client.until('s').await?;
    one_straggler(&pair).await?;
    // The rest of the portal, and another write of the same run, within the grace.
    client.execute(0).await?;
    client.run("INSERT INTO t VALUES (4)", 0).await?;
    client.flush().await?;
    client.until('C').await?;
    client.until('C').await?;
    ensure!(
        pair.rows(&pair.a).await? == "0",
        "committed without its Sync"
    );
    client.sync().await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer).is_empty(), "{answer:?}");
    drained(&pair).await?;
    ensure!(pair.rows(&pair.a).await? == "4");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_run_that_goes_on_writing_after_the_grace_is_refused_as_a_whole() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    for answer in ["hold", "reject"] {
        let pair = Pair::start(|o| {
            o.grace = "0s".into();
            o.answer = answer.into();
        })
        .await?;
        let mut client = Wire::login(pair.daemon.port()).await?;
        client.run("INSERT INTO t VALUES (1)", 0).await?;
        client.flush().await?;
        client.until('C').await?;
        one_straggler(&pair).await?;
        client.run("INSERT INTO t VALUES (2)", 0).await?;
        client.sync().await?;
        let answer = client.until_ready().await?;
        ensure!(state(&answer) == "25006", "{answer:?}");
        drained(&pair).await?;
        ensure!(
            pair.rows(&pair.a).await? == "0",
            "refused means not executed, nor any part of it"
        );
        still_of_use(&pair, &mut client).await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_is_left_open_is_undone_by_force() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.run("INSERT INTO t VALUES (1)", 0).await?;
    client.flush().await?;
    client.until('C').await?;
    one_straggler(&pair).await?;
    forced(&pair).await?;
    client.run("INSERT INTO t VALUES (2)", 0).await?;
    client.sync().await?;
    let answer = client.until_ready().await?;
    ensure!(
        state(&answer) == "57014" && status(&answer) == Some('I'),
        "{answer:?}"
    );
    ensure!(pair.rows(&pair.a).await? == "0");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_transaction_that_is_left_open_is_rolled_back_by_force() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO t VALUES (1)").await?;
    let s = one_straggler(&pair).await?;
    ensure!(s["state"] == "in_transaction", "{s}");
    forced(&pair).await?;
    // The transaction has failed for its client, which is told why.
    let answer = client.ask("INSERT INTO t VALUES (2)").await?;
    ensure!(
        state(&answer) == "25P02" && status(&answer) == Some('E'),
        "{answer:?}"
    );
    ensure!(answer.iter().any(|f| f.tag == 'N'), "{answer:?}");
    let answer = client.ask("COMMIT").await?;
    ensure!(status(&answer) == Some('I'), "{answer:?}");
    ensure!(pair.rows(&pair.a).await? == "0");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_running_statement_of_a_transaction_is_cancelled_and_rolled_back_by_force() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO t VALUES (1)").await?;
    client.query("SELECT pg_sleep(60)").await?;
    runs(&pair, "SELECT pg_sleep(60)").await?;
    one_straggler(&pair).await?;
    forced(&pair).await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer) == "57014", "{answer:?}");
    let answer = client.ask("ROLLBACK").await?;
    ensure!(status(&answer) == Some('I'), "{answer:?}");
    ensure!(pair.rows(&pair.a).await? == "0");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_failed_transaction_counts_until_its_end() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let answer = client
        .ask("BEGIN; SAVEPOINT s; INSERT INTO t VALUES (1); SELECT 1/0")
        .await?;
    ensure!(status(&answer) == Some('E'), "{answer:?}");
    // It can still go back to its savepoint and commit what came before.
    one_straggler(&pair).await?;
    let answer = client.ask("ROLLBACK").await?;
    ensure!(status(&answer) == Some('I'), "{answer:?}");
    drained(&pair).await?;
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn groups_in_a_pipeline_count_until_the_last_is_answered() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    let gate = Gate::shut(&pair.a).await?;
    let waits = format!("SELECT {}", Gate::WAIT);
    client.gather();
    client.query(&waits).await?;
    for n in 0..3 {
        client
            .run(&format!("INSERT INTO t VALUES ({n})"), 0)
            .await?;
    }
    client.sync().await?;
    client.query("INSERT INTO t VALUES (3)").await?;
    client.send_gathered().await?;
    runs(&pair, &waits).await?;
    one_straggler(&pair).await?;
    gate.open().await?;
    for _ in 0..3 {
        let answer = client.until_ready().await?;
        ensure!(state(&answer).is_empty(), "{answer:?}");
    }
    drained(&pair).await?;
    ensure!(pair.rows(&pair.a).await? == "4");
    still_of_use(&pair, &mut client).await
}

#[tokio::test]
async fn a_commit_in_flight_at_the_fence_is_waited_for() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|o| o.grace = "0s".into()).await?;
    let gate = gated_commits(&pair).await?;
    let mut client = Wire::login(pair.daemon.port()).await?;
    client.ask("BEGIN; INSERT INTO d VALUES (1)").await?;
    client.query("COMMIT").await?;
    runs(&pair, "COMMIT").await?;
    one_straggler(&pair).await?;
    gate.open().await?;
    let answer = client.until_ready().await?;
    ensure!(state(&answer).is_empty(), "{answer:?}");
    drained(&pair).await?;
    ensure!(pair.a.value("SELECT count(*) FROM d").await? == "1");
    still_of_use(&pair, &mut client).await
}
