//! A switchover as HTTP clients see it: the same connection, the other region, nothing old reused.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;
use tokio::time::timeout;
use writefence_tests::eventually::{pause, until};
use writefence_tests::http::{Raw, Upstream, send};
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions, process};

use crate::http_support::{Alone, SOON, fence, http_port, open};

const POST: &str = "POST /orders HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
const GET: &str = "GET /orders HTTP/1.1\r\nHost: a\r\n\r\n";

#[tokio::test]
async fn a_held_write_runs_on_the_new_region_over_the_same_connection() -> Result<()> {
    let a = Cluster::create("a", &Options::default()).await?;
    let b = a.standby("b").await?;
    let (old, new) = (Upstream::start("a").await?, Upstream::start("b").await?);
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.front = Some(HttpOptions::new(&[old.port(), new.port()])?);
    let daemon = Daemon::start(options).await?;
    daemon
        .wait_open()
        .await
        .with_context(|| process::tail(&daemon.log()))?;
    let mut client = Raw::connect(http_port(&daemon)).await?;
    for request in [POST, GET] {
        client.send(request).await?;
        assert_eq!(client.reply().await?.json()["server"], "a");
    }
    ensure!(old.open() > 0, "no connection is kept");
    daemon
        .ctl(&[
            "prepare",
            "--primary",
            "a",
            "--reason",
            "t",
            "--hold",
            "60s",
        ])
        .await?
        .ok()?;
    // The epoch is another: what rested is closed, though the address is the same.
    until("old connections to be closed", SOON, async || {
        Ok(old.open() == 0)
    })
    .await?;
    client.send(GET).await?;
    assert_eq!(client.reply().await?.json()["server"], "a");
    let mut events = Raw::connect(http_port(&daemon)).await?;
    events
        .send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        .await?;
    events.reply_head().await?;
    client.send(POST).await?;
    for step in [
        &["watch-drain", "--max-wait", "10s"][..],
        &["promote", "--new-primary", "b", "--confirm"],
        &["open-writes", "--primary", "b"],
    ] {
        daemon.ctl(step).await?.ok()?;
    }
    let reply = timeout(2 * SOON, client.reply()).await??;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["server"], "b");
    let epoch = daemon.status().await?["epoch"].clone();
    assert_eq!(reply.json()["epoch"], json!(format!("main:{epoch}")));
    assert_eq!(old.seen_at("/orders").len(), 3);
    assert_eq!(new.seen_at("/orders").len(), 1);
    client.send(GET).await?;
    assert_eq!(client.reply().await?.json()["server"], "b");
    // Who listens to events asks the new region for them.
    let ended = async {
        let mut rest = Vec::new();
        while !rest.ends_with(b"\r\n0\r\n\r\n") {
            ensure!(events.0.read_buf(&mut rest).await? > 0, "cut off");
        }
        Ok(())
    };
    timeout(SOON, ended).await??;
    until("the old region to be left", SOON, async || {
        Ok(old.open() == 0)
    })
    .await
}

#[tokio::test]
async fn a_write_that_could_not_be_sent_is_refused_and_not_unknown() -> Result<()> {
    let a = Cluster::create("a", &Options::default()).await?;
    let nobody = writefence_tests::ports::free_port()?;
    let mut options = DaemonOptions::new(&[&a]);
    options.front = Some(HttpOptions::new(&[nobody])?);
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let mut client = Raw::connect(http_port(&daemon)).await?;
    client.send(POST).await?;
    let reply = client.reply().await?;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["executed"], json!(false));
    assert_eq!(reply.json()["type"], "urn:writefence:upstream-unreachable");
    assert_eq!(daemon.status().await?["in_flight"]["unknown"], 0);
    Ok(())
}

#[tokio::test]
async fn connections_that_rested_long_or_are_of_another_epoch_carry_no_write() -> Result<()> {
    let alone = Alone::start("").await?;
    let ask = async |method: &str| {
        send(alone.port, method, "/x", "", "").await?;
        let seen = alone.server.seen();
        anyhow::Ok(seen.last().context("it arrived")?.connection)
    };
    // On a busy machine it may have rested too long once.
    let mut first = ask("POST").await?;
    until("one at rest to be used again", SOON, async || {
        let before = std::mem::replace(&mut first, ask("POST").await?);
        Ok(before == first)
    })
    .await?;
    // Servers close theirs after a while, and what is sent at that moment is unknown.
    pause(Duration::from_millis(1200)).await;
    let second = ask("POST").await?;
    assert_ne!(second, first);
    fence(&alone.daemon, "reject").await?;
    assert_ne!(
        ask("GET").await?,
        second,
        "the server is the same, the epoch is not"
    );
    open(&alone.daemon).await?;
    assert_ne!(ask("POST").await?, second);
    until("what is of older epochs to be closed", SOON, async || {
        Ok(alone.server.open() <= 1)
    })
    .await
}

#[tokio::test]
async fn a_read_goes_elsewhere_where_its_server_says_nothing_at_all() -> Result<()> {
    let a = Cluster::create("a", &Options::default()).await?;
    let b = a.standby("b").await?;
    // It takes connections, and no handshake ends.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let at = silent.local_addr()?.port();
    let other = Upstream::start("b").await?;
    let mut options = DaemonOptions::new(&[&a, &b]);
    let mut front = HttpOptions::new(&[at, other.port()])?;
    front.regions[0] = format!("http = \"https://127.0.0.1:{at}\"\n");
    options.front = Some(front);
    options.extra = "[limits]\nlogin_timeout = \"60s\"".to_owned();
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    // Long before a connection would be given up.
    until("a read to go to the other region", 2 * SOON, async || {
        let get = send(http_port(&daemon), "GET", "/orders", "", "");
        Ok(timeout(SOON / 3, get).await??.json()["server"] == "b")
    })
    .await
}

#[tokio::test]
async fn reads_go_elsewhere_while_the_server_is_away_and_only_to_fresh_data() -> Result<()> {
    let a = Cluster::create("a", &Options::default()).await?;
    let b = a.standby("b").await?;
    let (old, new) = (Upstream::start("a").await?, Upstream::start("b").await?);
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.front = Some(HttpOptions::new(&[old.port(), new.port()])?);
    options.extra = "[group.main.reads]\nmax_lag = \"2s\"".to_owned();
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let port = http_port(&daemon);
    let get = async || send(port, "GET", "/orders", "", "").await;
    drop(old);
    until("a read to go to the other region", SOON, async || {
        Ok(get().await?.json()["server"] == "b")
    })
    .await?;
    let write = send(port, "POST", "/orders", "", "").await?;
    assert_eq!(
        (write.status, &write.json()["executed"]),
        (503, &json!(false))
    );
    // What it has becomes too old.
    b.query("SELECT pg_wal_replay_pause()").await?;
    a.query("CREATE TABLE later ()").await?;
    until("reads to be refused", 2 * SOON, async || {
        Ok(get().await?.status == 503)
    })
    .await?;
    assert!(new.seen().iter().all(|one| one.method == "GET"));
    Ok(())
}
