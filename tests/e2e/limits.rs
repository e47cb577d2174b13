//! Every limit ends in the error that PostgreSQL's own limit has, and a reload changes it.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio_postgres::Client;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, skipped};
use writefence_tests::process::Signal;
use writefence_tests::script::{Cut, Talk, message};

use crate::support::{Pair, sqlstate, startup};

const SOON: Duration = Duration::from_secs(30);

async fn refused(pair: &Pair, user: &str, database: &str) -> Result<String> {
    let login = postgres::connect(pair.daemon.port(), user, database).await;
    let error = login.err().context("the login was let in")?;
    Ok(sqlstate(&error))
}

async fn other(pair: &Pair) -> Result<Client> {
    Ok(postgres::connect(pair.daemon.port(), "other", "postgres").await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_session_too_many_is_refused_and_a_reload_makes_room() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|options| {
        options.extra =
            "[limits]\nsessions = 3\nsessions_per_user = 1\nsessions_per_database = 2\n".to_owned();
    })
    .await?;
    pair.a.query("CREATE ROLE other LOGIN SUPERUSER").await?;
    let _one = pair.client().await?;
    ensure!(refused(&pair, "postgres", "template1").await? == "53300");
    let _two = other(&pair).await?;
    ensure!(refused(&pair, "third", "postgres").await? == "53300");
    pair.daemon.options.extra = "[limits]\nsessions = 3\n".to_owned();
    pair.daemon.write_config()?;
    let report = pair.ctl(0, &["reload"]).await?;
    ensure!(report["needs_restart"] == serde_json::json!([]), "{report}");
    let third = pair.client().await?;
    ensure!(refused(&pair, "postgres", "postgres").await? == "53300");
    drop(third);
    until("a place to be free", SOON, async || {
        Ok(pair.client().await.is_ok())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn connections_that_never_log_in_are_bounded() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| options.extra = "[limits]\nsessions = 1\n".to_owned()).await?;
    let connect = async || TcpStream::connect(("127.0.0.1", pair.daemon.port())).await;
    let mut silent = Vec::new();
    for _ in 0..100 {
        silent.push(connect().await?);
    }
    let mut turned_away = connect().await?;
    ensure!(turned_away.read(&mut [0]).await.unwrap_or(0) == 0);
    drop(silent);
    until("a place to be free", SOON, async || {
        Ok(pair.client().await.is_ok())
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn silence_ends_a_session_and_undoes_its_transaction() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.extra =
            "[limits]\nidle_timeout = \"2500ms\"\nidle_in_transaction_timeout = \"500ms\"\n"
                .to_owned();
    })
    .await?;
    let port = pair.daemon.port();
    let (mut idle, mut inside) = (
        Talk::start(port, &startup()).await?,
        Talk::start(port, &startup()).await?,
    );
    // Each in one piece, so that no silence of ours is in it.
    let piece = |statements: &[&str]| -> Result<Vec<u8>> {
        let all = statements.iter().map(|sql| message(&format!("Q {sql}")));
        Ok(all.collect::<Result<Vec<_>>>()?.concat())
    };
    let begun = piece(&["BEGIN", "INSERT INTO t VALUES (1)"])?;
    inside.send(&begun, Cut::Whole).await;
    inside.read_until(b"ZZ", &mut Vec::new()).await?;
    // A long statement is no silence, wherever it stands.
    let mut busy = Talk::start(port, &startup()).await?;
    let long = piece(&["BEGIN", "SELECT pg_sleep(1)", "COMMIT"])?;
    busy.send(&long, Cut::Whole).await;
    let mut told = Vec::new();
    busy.read_until(b"ZZZ", &mut told).await?;
    let ready: Vec<_> = told.iter().filter(|line| line.starts_with("Z ")).collect();
    ensure!(ready == ["Z T", "Z T", "Z I"], "{told:?}");
    for (talk, expected) in [(&mut inside, "C25P03"), (&mut idle, "C57P05")] {
        let mut told = Vec::new();
        talk.read_until(b"E", &mut told).await?;
        ensure!(
            told.last().is_some_and(|last| last.contains(expected)),
            "{told:?}"
        );
        talk.read_until(b".", &mut told).await?;
        ensure!(
            told.last().is_some_and(|last| last == "(closed)"),
            "{told:?}"
        );
    }
    until("the transaction to be undone", SOON, async || {
        Ok(pair.group().await?["in_flight"]["open_transactions"] == 0)
    })
    .await?;
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_message_too_large_ends_its_session_and_runs_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|options| {
        options.extra = "[limits]\nmessage = \"1MiB\"\n".to_owned();
    })
    .await?;
    let mut talk = Talk::start(pair.daemon.port(), &startup()).await?;
    let just = format!("Q SELECT length('{}')", "x".repeat(1 << 19));
    talk.send(&message(&just)?, Cut::Whole).await;
    let mut told = Vec::new();
    talk.read_until(b"Z", &mut told).await?;
    ensure!(
        told.iter().any(|line| line.contains("524288")),
        "{:?}",
        told.len()
    );
    let over = format!("Q INSERT INTO t VALUES (length('{}'))", "x".repeat(1 << 20));
    talk.send(&message(&over)?, Cut::Whole).await;
    let mut told = Vec::new();
    talk.read_until(b"E.", &mut told).await?;
    ensure!(told.iter().any(|line| line.contains("C54000")), "{told:?}");
    ensure!(
        told.last().is_some_and(|last| last == "(closed)"),
        "{told:?}"
    );
    ensure!(pair.rows(&pair.a).await? == "0");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sighup_applies_what_can_change_live_and_names_what_cannot() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut pair = Pair::start(|_| ()).await?;
    let _one = pair.client().await?;
    pair.daemon.options.extra =
        "[limits]\nsessions = 1\n[tcp]\nkeepalive_idle = \"20s\"\n".to_owned();
    pair.daemon.write_config()?;
    pair.daemon.signal(Signal::HUP)?;
    until("the limit to be in force", SOON, async || {
        Ok(refused(&pair, "postgres", "postgres")
            .await
            .is_ok_and(|code| code == "53300"))
    })
    .await?;
    let report = pair.ctl(0, &["reload"]).await?;
    ensure!(
        report["needs_restart"] == serde_json::json!(["tcp.keepalive_idle"]),
        "{report}"
    );
    Ok(())
}
