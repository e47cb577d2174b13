//! A switchover as HTTP clients see it: the same connection, the other region, nothing old reused.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use writefence_tests::eventually::until;
use writefence_tests::http::{Raw, Upstream};
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions, process};

use crate::http_support::{SOON, http_port};

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
    client.send(POST).await?;
    for step in [
        &["watch-drain", "--max-wait", "10s"][..],
        &["promote", "--new-primary", "b", "--confirm"],
        &["open-writes", "--primary", "b"],
    ] {
        daemon.ctl(step).await?.ok()?;
    }
    let reply = tokio::time::timeout(Duration::from_secs(10), client.reply()).await??;
    assert_eq!(reply.status, 200);
    assert_eq!(reply.json()["server"], "b");
    let epoch = daemon.status().await?["epoch"].clone();
    assert_eq!(reply.json()["epoch"], json!(format!("main:{epoch}")));
    assert_eq!(old.seen_at("/orders").len(), 3);
    assert_eq!(new.seen_at("/orders").len(), 1);
    client.send(GET).await?;
    assert_eq!(client.reply().await?.json()["server"], "b");
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
