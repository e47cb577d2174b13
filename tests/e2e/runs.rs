//! Runs of the extended protocol that a fence falls into: begun before it, and without their Sync.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::frames::{Frame, Wire, state};
use crate::support::{Gate, Pair};

const SOON: Duration = Duration::from_secs(30);

/// Writes in a text that nobody can read beforehand, once the gate is open.
const WRITER: &str = "CREATE FUNCTION w() RETURNS int LANGUAGE plpgsql AS \
    $$ BEGIN PERFORM pg_advisory_xact_lock_shared(4711); EXECUTE 'INS' || 'ERT INTO t VALUES (1)'; RETURN 1; END $$";

fn tags(frames: &[Frame]) -> String {
    frames.iter().map(|frame| frame.tag).collect()
}

async fn parse(wire: &mut Wire, name: &str, sql: &str) -> Result<()> {
    let body = [name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"].concat();
    wire.say(b'P', &body).await
}

/// Bind of the unnamed portal.
async fn bind(wire: &mut Wire, name: &str) -> Result<()> {
    let body = [b"\0", name.as_bytes(), &[0; 7]].concat();
    wire.say(b'B', &body).await
}

async fn fence(pair: &Pair) -> Result<()> {
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    Ok(())
}

async fn executing(pair: &Pair, n: u64) -> Result<()> {
    until("the statements in flight to be counted", SOON, async || {
        Ok(pair.group().await?["in_flight"]["executing"] == n)
    })
    .await
}

#[tokio::test]
async fn nothing_new_of_a_run_that_was_let_go_as_a_read_runs_without_a_wall() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query(WRITER).await?;
    // The run ends with the fence; it is continued in one piece, and behind what was bound before.
    for behind in [false, true] {
        let mut wire = Wire::login(pair.daemon.port()).await?;
        wire.run("SELECT generate_series(1, 2)", 1).await?;
        wire.flush().await?;
        ensure!(tags(&wire.until('s').await?) == "12Ds");
        fence(&pair).await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
        wire.gather();
        if behind {
            wire.execute(0).await?;
        }
        wire.run("SELECT w()", 0).await?;
        wire.sync().await?;
        wire.send_gathered().await?;
        if behind {
            // Bound before the fence, it is not lost by it.
            ensure!(tags(&wire.until('C').await?) == "DC");
        }
        pair.until_held(1).await?;
        ensure!(pair.rows(&pair.a).await? == "0", "written behind the drain");
        pair.ctl(0, &["abort"]).await?;
        let answer = tags(&wire.until_ready().await?);
        ensure!(answer == "12DCZ", "{answer}");
        ensure!(pair.rows(&pair.a).await? == "1");
        pair.a.query("TRUNCATE t").await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_run_that_comes_in_two_pieces_goes_on_across_a_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let port = pair.daemon.port();
    let mut wires = Vec::new();
    // PostgreSQL keeps the answers to these back until it is asked for them.
    for (sql, bound) in [
        ("SELECT 1", true),
        ("SELECT 2", false),
        ("INSERT INTO t VALUES (1)", true),
    ] {
        let mut wire = Wire::login(port).await?;
        parse(&mut wire, "", sql).await?;
        if bound {
            bind(&mut wire, "").await?;
        }
        wires.push((wire, sql, bound));
    }
    executing(&pair, 3).await?;
    fence(&pair).await?;
    for (wire, sql, bound) in &mut wires {
        wire.gather();
        if !*bound {
            bind(wire, "").await?;
        }
        wire.execute(0).await?;
        wire.sync().await?;
        wire.send_gathered().await?;
        let answer = tags(&wire.until_ready().await?);
        let expected = if sql.starts_with('S') {
            "12DCZ"
        } else {
            "12CZ"
        };
        ensure!(answer == expected, "{sql}: {answer}");
    }
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(pair.rows(&pair.a).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_statement_whose_new_parse_failed_is_not_taken_for_the_new_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a.query(WRITER).await?;
    for name in ["", "s"] {
        let mut wire = Wire::login(pair.daemon.port()).await?;
        let gate = Gate::shut(&pair.a).await?;
        parse(&mut wire, name, "SELECT w()").await?;
        wire.sync().await?;
        wire.until_ready().await?;
        wire.gather();
        // There is no such portal, so the Parse behind it is skipped and the old statement stays.
        wire.say(b'E', b"none\0\0\0\0\0").await?;
        parse(&mut wire, name, "SELECT 1").await?;
        wire.sync().await?;
        bind(&mut wire, name).await?;
        wire.execute(0).await?;
        wire.sync().await?;
        wire.send_gathered().await?;
        ensure!(state(&wire.until_ready().await?) == "34000");
        fence(&pair).await?;
        executing(&pair, 1).await?;
        pair.ctl(4, &["watch-drain", "--max-wait", "1s"]).await?;
        gate.open().await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
        let there = pair.rows(&pair.a).await?;
        let answer = tags(&wire.until_ready().await?);
        ensure!(
            there == "1" && answer == "2DCZ",
            "{name}: {there}, {answer}"
        );
        pair.ctl(0, &["abort"]).await?;
        pair.a.query("TRUNCATE t").await?;
    }
    Ok(())
}
