//! Messages that nobody asked for reach the client while writes pass, behind a fence, and while a
//! write of its own is held.

use std::time::Duration;

use anyhow::{Result, ensure};
use writefence_tests::eventually::eventually;
use writefence_tests::postgres::skipped;

use crate::support::Pair;
use crate::wire::{Wire, parameters, words};

const SOON: Duration = Duration::from_secs(30);

/// A notification that comes while the client waits for nothing.
async fn hears(pair: &Pair, wire: &mut Wire, text: &str) -> Result<()> {
    pair.a
        .query(&format!("SELECT pg_notify('news', '{text}')"))
        .await?;
    let (tag, body) = wire.message().await?;
    ensure!(
        tag == b'A' && words(&body).contains(text),
        "{text}: {} {}",
        char::from(tag),
        words(&body)
    );
    Ok(())
}

#[tokio::test]
async fn a_notification_is_heard_in_every_phase_and_after_the_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (mut idle, _) = Wire::login(pair.daemon.port(), &[]).await?;
    let (mut held, _) = Wire::login(pair.daemon.port(), &[]).await?;
    idle.query("LISTEN news").await?;
    held.query("LISTEN news").await?;
    hears(&pair, &mut idle, "open").await?;
    held.message().await?;

    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
        .await?;
    held.send("INSERT INTO t VALUES (1)").await?;
    pair.until_held(1).await?;
    hears(&pair, &mut idle, "fenced").await?;
    let (tag, body) = held.message().await?;
    ensure!(
        tag == b'A' && words(&body).contains("fenced"),
        "while a write is held"
    );
    idle.query("SELECT 1").await?;

    pair.b.wait_caught_up(&pair.a).await?;
    pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    // Moved without being spoken to, it says that it may have missed something.
    let (tag, body) = idle.message().await?;
    ensure!(
        tag == b'N' && words(&body).contains("may be missing"),
        "{}",
        words(&body)
    );
    let told = held.until_ready().await?;
    ensure!(
        told.iter()
            .any(|(tag, body)| *tag == b'N' && words(body).contains("may be missing"))
    );
    pair.b.query("SELECT pg_notify('news', 'moved')").await?;
    for wire in [&mut idle, &mut held] {
        let (tag, body) = wire.message().await?;
        ensure!(tag == b'A' && words(&body).contains("moved"));
    }
    Ok(())
}

#[tokio::test]
async fn a_parameter_changed_on_the_server_is_told_in_every_phase() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let (mut wire, _) = Wire::login(pair.daemon.port(), &[]).await?;
    for (zone, fenced) in [("Asia/Tokyo", false), ("Asia/Seoul", true)] {
        if fenced {
            pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
                .await?;
        }
        pair.a
            .query(&format!("ALTER SYSTEM SET TimeZone = '{zone}'"))
            .await?;
        pair.a.query("SELECT pg_reload_conf()").await?;
        // PostgreSQL tells of it with its next answer, once the reload has arrived there.
        let told = eventually("the change to be told", SOON, async || {
            let told = parameters(&wire.query("SELECT 1").await?);
            Ok((!told.is_empty()).then_some(told))
        })
        .await?;
        ensure!(told == ["TimeZone"], "{zone}: {told:?}");
    }
    Ok(())
}

#[tokio::test]
async fn a_warning_reaches_the_client_behind_a_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    pair.a
        .query("CREATE FUNCTION warn() RETURNS int LANGUAGE plpgsql AS $$ BEGIN RAISE WARNING 'mind the gap'; RETURN 1; END $$")
        .await?;
    let (mut wire, _) = Wire::login(pair.daemon.port(), &[]).await?;
    for fenced in [false, true] {
        if fenced {
            pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"])
                .await?;
        }
        let told = wire.query("SELECT warn()").await?;
        ensure!(
            told.iter()
                .any(|(tag, body)| *tag == b'N' && words(body).contains("mind the gap")),
            "fenced: {fenced}"
        );
    }
    Ok(())
}
