//! Candidates that never catch up, and a probe whose answer comes late.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use writefence_tests::eventually::{pause, until};
use writefence_tests::postgres::{Options, skipped};
use writefence_tests::{Cluster, Daemon, DaemonOptions, Relay};

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

#[tokio::test]
async fn a_candidate_that_replays_nothing_is_refused_before_anything_is_fenced() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let epoch = pair.group().await?["epoch"].clone();
    for (not_replaying, why) in [
        ("SELECT pg_wal_replay_pause()", "replay is paused on b"),
        (
            "ALTER SYSTEM SET recovery_min_apply_delay = '1h'",
            "replays 3600000 ms late on purpose",
        ),
    ] {
        pair.b.query(not_replaying).await?;
        pair.b.query("SELECT pg_reload_conf()").await?;
        until("the setting to be in force", SOON, async || {
            let found = pair.daemon.ctl(&["preflight", "--to", "b"]).await?;
            Ok(found.code == 3 && found.text.contains(why))
        })
        .await?;
        let refused = pair
            .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
            .await?;
        ensure!(refused["error"]["code"] == "preflight_blocked", "{refused}");
        pair.b.query("SELECT pg_wal_replay_resume()").await?;
    }
    let group = pair.group().await?;
    ensure!(
        group["phase"] == "open" && group["epoch"] == epoch,
        "{group}"
    );
    Ok(())
}

#[tokio::test]
async fn a_candidate_that_never_catches_up_is_left_within_the_budget() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let pair = Pair::start(|_| ()).await?;
    let stream = Relay::start(pair.a.port()).await?;
    pair.b.stream_through(&pair.a, stream.port()).await?;
    // It streams for all that anybody can see, and nothing arrives any more.
    stream.black_hole();
    let begin = Instant::now();
    let move_it = pair
        .daemon
        .ctl(&["switchover", "--to", "b", "--reason", "x", "--budget", "6s"]);
    let write = async {
        until("the fence", SOON, async || {
            Ok(pair.group().await?["phase"] == "fenced")
        })
        .await?;
        let client = pair.client().await?;
        client.batch_execute("INSERT INTO t VALUES (1)").await?;
        anyhow::Ok(())
    };
    let (moved, held) = tokio::join!(move_it, write);
    let (moved, took) = (moved?, begin.elapsed());
    ensure!(moved.code == 5, "{}", moved.text);
    let error = &moved.json["error"];
    ensure!(
        moved.json["state"] == "rolled_back" && error["code"] == "budget_exceeded",
        "{:#}",
        moved.json
    );
    let said = error["message"].as_str().unwrap_or_default();
    ensure!(
        said.contains("the budget of 6000 ms was over at step caught_up")
            && said.contains("region b: the candidate has replayed"),
        "{said}"
    );
    ensure!(
        took < Duration::from_secs(20),
        "longer than a hold: {took:?}"
    );
    held.context("a write that waited at the fence goes on where it was")?;
    ensure!(pair.rows(&pair.a).await? == "1");
    let on = pair.a.value("SHOW default_transaction_read_only").await?;
    ensure!(on == "off", "the barrier was left behind");
    ensure!(pair.b.in_recovery().await?);
    let group = pair.group().await?;
    ensure!(
        group["phase"] == "open" && group["primary"] == "a",
        "{group}"
    );
    Ok(())
}

/// What only probes ask.
const PROBED: &[u8] = b"pg_stat_wal_receiver";

/// A relay that can hold back the answer to one probe.
struct Late {
    port: u16,
    armed: Arc<AtomicBool>,
    caught: Arc<Notify>,
    release: Arc<Notify>,
}

impl Late {
    async fn start(target: u16) -> Result<Self> {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
        let late = Self {
            port: listener.local_addr()?.port(),
            armed: Arc::default(),
            caught: Arc::default(),
            release: Arc::default(),
        };
        let shared = (
            Arc::clone(&late.armed),
            Arc::clone(&late.caught),
            Arc::clone(&late.release),
        );
        tokio::spawn(async move {
            while let Ok((near, _)) = listener.accept().await {
                tokio::spawn(relay(near, target, shared.clone()));
            }
        });
        Ok(late)
    }
}

async fn relay(
    mut near: TcpStream,
    target: u16,
    (armed, caught, release): (Arc<AtomicBool>, Arc<Notify>, Arc<Notify>),
) -> Result<()> {
    let mut far = TcpStream::connect(("127.0.0.1", target)).await?;
    let (mut out, mut back) = (vec![0; 64 * 1024], vec![0; 64 * 1024]);
    let mut holds = false;
    loop {
        tokio::select! {
            n = near.read(&mut out) => {
                let n = n?;
                ensure!(n > 0, "closed");
                let asks = out[..n].windows(PROBED.len()).any(|part| part == PROBED);
                if asks && armed.swap(false, Ordering::SeqCst) {
                    holds = true;
                }
                far.write_all(&out[..n]).await?;
            }
            n = far.read(&mut back) => {
                let n = n?;
                ensure!(n > 0, "closed");
                if std::mem::take(&mut holds) {
                    // The server has answered by now, and nobody has heard it.
                    caught.notify_one();
                    release.notified().await;
                }
                near.write_all(&back[..n]).await?;
            }
        }
    }
}

#[tokio::test]
async fn a_probe_that_was_asked_before_the_move_and_answered_after_it_is_no_split_brain()
-> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    a.query("CREATE TABLE t (a int)").await?;
    let b = a.standby("b").await?;
    let late = Late::start(a.port()).await?;
    let mut options = DaemonOptions::new(&[&a, &b]);
    options.regions[0].1 = late.port;
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    let pair = Pair { daemon, a, b };
    late.armed.store(true, Ordering::SeqCst);
    tokio::time::timeout(SOON, late.caught.notified()).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    // It says that a takes writes, which was true when it was asked.
    late.release.notify_one();
    until("a further probe of a", SOON, async || {
        let region = pair.group().await?["regions"][0].clone();
        Ok(region["role"] == "primary" && region["writable"] == false)
    })
    .await?;
    pause(Duration::from_millis(500)).await;
    let log = std::fs::read_to_string(pair.daemon.log())?;
    ensure!(!log.contains("SPLIT BRAIN"), "{log}");
    ensure!(pair.metric("writefence_split_brain{").await? == "0");
    Ok(())
}
