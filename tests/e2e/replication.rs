//! Replication through the daemon: passed on, counted apart, never a write, ended with the reason.

use std::process::Stdio;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{Options, Programs, connect, skipped};
use writefence_tests::script::{Cut, Talk, message};
use writefence_tests::{Cluster, Daemon, DaemonOptions};

use crate::outcomes::cabled;
use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

fn packet(replication: &str) -> Result<Vec<u8>> {
    let text =
        format!("\0\x03\0\0user\0postgres\0database\0postgres\0replication\0{replication}\0\0");
    let mut packet = u32::try_from(text.len() + 4)?.to_be_bytes().to_vec();
    packet.extend(text.as_bytes());
    Ok(packet)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn physical_replication_streams_through_and_ends_with_the_reason_when_the_primary_moves()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let mut stream = Talk::start(pair.daemon.port(), &packet("true")?).await?;
    let system = stream.query("IDENTIFY_SYSTEM").await?;
    ensure!(
        system.iter().any(|line| line.starts_with("D ")),
        "{system:?}"
    );
    let at = pair.a.value("SELECT pg_current_wal_flush_lsn()").await?;
    let start = format!("Q START_REPLICATION PHYSICAL {at} TIMELINE 1");
    stream.send(&message(&start)?, Cut::Whole).await;
    let mut told = Vec::new();
    stream.read_until(b"W", &mut told).await?;
    let client = pair.client().await?;
    client.batch_execute("INSERT INTO t VALUES (1)").await?;
    // CopyData with the log, whatever keep-alives come before it.
    stream.read_until(b"d", &mut told).await?;
    let status = pair.group().await?;
    ensure!(
        status["replication"] == 1 && status["in_flight"]["executing"] == 0,
        "{status}"
    );
    let sessions = pair.ctl(0, &["sessions"]).await?;
    ensure!(
        sessions["replication"][0]["kind"] == "physical",
        "{sessions}"
    );
    ensure!(
        sessions["sessions"]
            .as_array()
            .is_some_and(|all| all.len() == 1),
        "{sessions}"
    );
    // It keeps no drain waiting and goes on behind the fence.
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(pair.group().await?["replication"] == 1);
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    let mut told = Vec::new();
    stream.read_until(b"E.", &mut told).await?;
    let error = told
        .iter()
        .find(|line| line.starts_with("E "))
        .context("an error")?;
    ensure!(
        error.contains("C57P01") && error.contains("moved to region"),
        "{error}"
    );
    ensure!(
        told.last().is_some_and(|last| last == "(closed)"),
        "{told:?}"
    );
    until("it to be gone", SOON, async || {
        Ok(pair.group().await?["replication"] == 0)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_logical_replication_connection_reads_and_streams_and_never_writes() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let options = Options {
        settings: vec![("wal_level".into(), "logical".into())],
        ..Options::default()
    };
    let a = Cluster::create("a", &options).await?;
    a.query("CREATE TABLE t (a int)").await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&a])).await?;
    daemon.wait_open().await?;
    let mut stream = Talk::start(daemon.port(), &packet("database")?).await?;
    let refused = |told: &[String]| told.iter().any(|line| line.contains("C25006"));
    for sql in [
        "INSERT INTO t VALUES (1)",
        "SELECT set_config('default_transaction_read_only', 'off', false)",
        "SET default_transaction_read_only = off",
        "BEGIN READ WRITE",
        "SELECT pg_create_logical_replication_slot('x', 'pgoutput')",
    ] {
        let told = stream.query(sql).await?;
        ensure!(refused(&told), "{sql}: {told:?}");
    }
    // A client finds its own row in pg_stat_replication by the process id it was told.
    let told = stream.query("SELECT pg_backend_pid()").await?;
    let pid = stream.key.0.to_string();
    ensure!(
        told.iter().any(|line| line.ends_with(&pid)),
        "{pid}: {told:?}"
    );
    // Behind whatever is misjudged stands PostgreSQL itself.
    let told = stream.query("SHOW default_transaction_read_only").await?;
    ensure!(told.iter().any(|line| line.ends_with("on")), "{told:?}");
    for sql in ["SELECT count(*) FROM t", "IDENTIFY_SYSTEM"] {
        let told = stream.query(sql).await?;
        ensure!(
            told.iter().any(|line| line.starts_with("D ")),
            "{sql}: {told:?}"
        );
    }
    let slot = "CREATE_REPLICATION_SLOT s LOGICAL test_decoding";
    let told = stream.query(slot).await?;
    ensure!(told.iter().any(|line| line.starts_with("C ")), "{told:?}");
    daemon
        .ctl(&["prepare", "--primary", "a", "--reason", "test"])
        .await?
        .ok()?;
    let told = stream.query("DROP_REPLICATION_SLOT s").await?;
    ensure!(refused(&told), "{told:?}");
    let start = "Q START_REPLICATION SLOT s LOGICAL 0/0";
    stream.send(&message(start)?, Cut::Whole).await;
    let mut told = Vec::new();
    stream.read_until(b"W", &mut told).await?;
    ensure!(a.value("SELECT count(*) FROM t").await? == "0");

    // Code that lowers the wall for what comes behind it is not served any further.
    a.query(
        "CREATE FUNCTION low() RETURNS text LANGUAGE plpgsql AS $$ DECLARE set text; BEGIN \
         EXECUTE 'SEL' || 'ECT set_con' || 'fig(''default_transaction_re' || 'ad_only'', ''off'', false)' \
         INTO set; RETURN set; END $$",
    )
    .await?;
    // Nor does the startup packet keep it from standing.
    let packet = packet("database\0default_transaction_read_only\0off")?;
    let mut sly = Talk::start(daemon.port(), &packet).await?;
    let told = sly.query("SHOW default_transaction_read_only").await?;
    ensure!(told.iter().any(|line| line.ends_with("on")), "{told:?}");
    sly.send(&message("Q SELECT low()")?, Cut::Whole).await;
    let mut told = Vec::new();
    sly.read_until(b"E.", &mut told).await?;
    let why = |line: &String| line.contains("C57P01") && line.contains("was lowered");
    ensure!(told.iter().any(why), "{told:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_server_takes_for_an_ordinary_session_is_one() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    for value in ["of", "F", "n", "0", "false\0replication\0fals"] {
        let mut client = Talk::start(pair.daemon.port(), &packet(value)?).await?;
        let insert = "P - INSERT INTO t VALUES (1)\nB - -\nE -\nS";
        let bytes: Vec<_> = insert.lines().map(message).collect::<Result<_>>()?;
        client.send(&bytes.concat(), Cut::Whole).await;
        pair.until_held(1).await?;
        drop(client);
        pair.until_held(0).await?;
    }
    // Of two values the last counts, here as there.
    let twice = packet("off\0replication\0database")?;
    let mut stream = Talk::start(pair.daemon.port(), &twice).await?;
    let told = stream.query("INSERT INTO t VALUES (1)").await?;
    ensure!(told.iter().any(|line| line.contains("C25006")), "{told:?}");
    stream.send(&message("P - SELECT 1")?, Cut::Whole).await;
    let mut told = Vec::new();
    stream.read_until(b"E.", &mut told).await?;
    ensure!(told.iter().any(|line| line.contains("C08P01")), "{told:?}");
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}

/// PostgreSQL's own receivers.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pg_receivewal_and_pg_recvlogical_work_through_the_daemon() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let options = Options {
        settings: vec![("wal_level".into(), "logical".into())],
        ..Options::default()
    };
    let a = Cluster::create("a", &options).await?;
    a.query("CREATE TABLE t (a int)").await?;
    let daemon = Daemon::start(DaemonOptions::new(&[&a])).await?;
    daemon.wait_open().await?;
    let folder = tempfile::tempdir()?;
    let programs = Programs::find()?;
    programs.own(folder.path())?;
    let port = daemon.port().to_string();
    let run = |program: &str, args: &[&str]| -> Result<tokio::process::Command> {
        let mut command = programs.client(program, folder.path())?;
        command.args(["-h", "127.0.0.1", "-p", &port, "-U", "postgres"]);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        Ok(tokio::process::Command::from(command))
    };
    let logical = |args: &[&str]| {
        let all: Vec<&str> = ["-d", "postgres", "-S", "s"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        run("pg_recvlogical", &all)
    };
    ensure!(
        logical(&["--create-slot", "-P", "test_decoding"])?
            .status()
            .await?
            .success()
    );
    let wal = folder.path().join("wal");
    std::fs::create_dir(&wal)?;
    programs.own(&wal)?;
    let wal_folder = wal.display().to_string();
    let out = folder.path().join("changes").display().to_string();
    let mut receive = run("pg_receivewal", &["-D", &wal_folder])?
        .kill_on_drop(true)
        .spawn()?;
    let mut changes = logical(&["--start", "-f", &out, "-F", "0"])?
        .kill_on_drop(true)
        .spawn()?;
    until("both to stream", SOON, async || {
        Ok(daemon.status().await?["replication"] == 2)
    })
    .await?;
    a.query("INSERT INTO t VALUES (42)").await?;
    until("the change to arrive", SOON, async || {
        let text = std::fs::read_to_string(&out).unwrap_or_default();
        Ok(text.contains("INSERT: a[integer]:42"))
    })
    .await?;
    until("the log to arrive", SOON, async || {
        Ok(std::fs::read_dir(&wal)?.count() > 0)
    })
    .await?;
    receive.kill().await?;
    changes.kill().await?;
    Ok(())
}

/// Its number in SHOW CLIENTS.
async fn number(console: &tokio_postgres::Client) -> Result<String> {
    let mut found = None;
    until("it to be shown", SOON, async || {
        let messages = console.simple_query("SHOW CLIENTS").await?;
        found = messages.into_iter().find_map(|message| match message {
            tokio_postgres::SimpleQueryMessage::Row(row) => {
                let id = row.get("id").map(str::to_owned);
                id.filter(|_| row.get("replication") == Some("physical"))
            }
            _ => None,
        });
        Ok(found.is_some())
    })
    .await?;
    found.context("an id")
}

const OPS: &str = "[console]\nadmin_users = [\"ops\"]\n";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_on_the_console_ends_replication_with_the_reason_on_both_sides() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| OPS.clone_into(&mut options.extra)).await?;
    let ops = connect(pair.daemon.port(), "ops", "pgbouncer").await?;
    // The standby's own is one of them.
    let senders = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'walsender'";
    let own = pair.a.value(senders).await?;
    for kill in ["KILL_CLIENT", "KILL"] {
        let mut stream = Talk::start(pair.daemon.port(), &packet("true")?).await?;
        let at = pair.a.value("SELECT pg_current_wal_flush_lsn()").await?;
        let start = format!("Q START_REPLICATION PHYSICAL {at} TIMELINE 1");
        stream.send(&message(&start)?, Cut::Whole).await;
        let mut told = Vec::new();
        stream.read_until(b"W", &mut told).await?;
        let id = number(&ops).await?;
        let command = match kill {
            "KILL" => kill.to_owned(),
            _ => format!("{kill} {id}"),
        };
        ops.simple_query(&command).await?;
        let mut told = Vec::new();
        stream.read_until(b"E.", &mut told).await?;
        let why = format!("the replication connection ends: {kill} on the console");
        ensure!(
            told.iter()
                .any(|line| line.contains("C57P01") && line.contains(&why)),
            "{told:?}"
        );
        ensure!(
            told.last().is_some_and(|last| last == "(closed)"),
            "{told:?}"
        );
        until("the server to be rid of it", SOON, async || {
            Ok(pair.a.value(senders).await? == own)
        })
        .await?;
        until("it to be gone", SOON, async || {
            Ok(pair.group().await?["replication"] == 0)
        })
        .await?;
    }
    ops.simple_query("RESUME").await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kill_reaches_a_replication_connection_whose_server_does_not_answer_its_login() -> Result<()>
{
    if skipped() {
        return Ok(());
    }
    let (pair, relay) = cabled(OPS).await?;
    let ops = connect(pair.daemon.port(), "ops", "pgbouncer").await?;
    relay.black_hole();
    let mut client = TcpStream::connect(("127.0.0.1", pair.daemon.port())).await?;
    client.write_all(&packet("true")?).await?;
    let id = number(&ops).await?;
    ops.simple_query(&format!("KILL_CLIENT {id}")).await?;
    let mut said = Vec::new();
    // Far below the time that a login has.
    timeout(Duration::from_secs(10), client.read_to_end(&mut said))
        .await
        .context("it goes on logging in")??;
    let said = said.escape_ascii().to_string();
    ensure!(
        said.contains("C57P01") && said.contains("KILL_CLIENT on the console"),
        "{said}"
    );
    Ok(())
}
