//! The TCP front before a pair of Redis servers: connections are fenced, counted and moved.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use writefence_tests::eventually::until;
use writefence_tests::ports::free_port;
use writefence_tests::postgres::skipped;
use writefence_tests::redis::{Redis, RedisClient};

use crate::support::Pair;

const SOON: Duration = Duration::from_secs(15);

/// The pair with a TCP listener that leads to these ports.
async fn fronted(a: u16, b: u16, more: &str, answer: &str) -> Result<(Pair, u16)> {
    let port = free_port()?;
    let pair = Pair::start(|options| {
        answer.clone_into(&mut options.answer);
        options.extra = format!(
            "[group.main.region.a.tcp]\nredis = \"127.0.0.1:{a}\"\n\
             [group.main.region.b.tcp]\nredis = \"127.0.0.1:{b}\"\n\
             [[group.main.listen]]\nkind = \"tcp\"\naddress = \"127.0.0.1:{port}\"\n\
             service = \"redis\"\n{more}\n"
        );
    })
    .await?;
    Ok((pair, port))
}

async fn in_flight(pair: &Pair, lane: &str) -> Result<Value> {
    Ok(pair.group().await?["lanes"][lane]["in_flight"].clone())
}

async fn until_in_flight(pair: &Pair, n: u64) -> Result<()> {
    until("the connections to be counted", SOON, async || {
        Ok(in_flight(pair, "sql").await? == n)
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_move_takes_a_redis_pair_along_and_loses_no_acknowledged_key() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Redis::start(None).await?;
    let b = Redis::start(Some(&a)).await?;
    b.wait_caught_up(&a).await?;
    let (pair, port) = fronted(a.port(), b.port(), "", "hold").await?;
    let writer = tokio::spawn(writer(port));
    let mut idle = RedisClient::connect(port).await?;
    ensure!(idle.ask(&["SET", "idle", "1"]).await? == "OK");
    until_in_flight(&pair, 2).await?;
    until("some keys to be acknowledged", SOON, async || {
        Ok(writer_acked() > 10)
    })
    .await?;

    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    idle.closed()
        .await
        .context("the fence closes what is open")?;
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "10s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    pair.until_held(1)
        .await
        .context("the writer has come again and waits")?;
    b.wait_caught_up(&a).await?;
    b.promote().await?;
    pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
        .await?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    let mut direct = b.client().await?;
    until("keys to be written to the new primary", SOON, async || {
        mark(port).await?;
        Ok(direct.ask(&["GET", "after"]).await? == "1")
    })
    .await?;
    writer.abort();

    let acked = writer_acked();
    for n in 0..acked {
        let found = direct.ask(&["GET", &format!("k{n}")]).await?;
        ensure!(
            found == n.to_string(),
            "k{n} was acknowledged and is {found:?}"
        );
    }
    Ok(())
}

static ACKED: std::sync::atomic::AtomicU64 = std::sync::atomic::AtomicU64::new(0);

fn writer_acked() -> u64 {
    ACKED.load(std::sync::atomic::Ordering::SeqCst)
}

/// Writes one key after the other, each until it is acknowledged, over a new connection if need be.
async fn writer(port: u16) -> Result<()> {
    let mut client = RedisClient::connect(port).await?;
    loop {
        let n = writer_acked();
        match client.ask(&["SET", &format!("k{n}"), &n.to_string()]).await {
            Ok(_) => ACKED.store(n + 1, std::sync::atomic::Ordering::SeqCst),
            Err(_) => client = RedisClient::connect(port).await?,
        }
    }
}

async fn mark(port: u16) -> Result<String> {
    RedisClient::connect(port)
        .await?
        .ask(&["SET", "after", "1"])
        .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_stays_is_named_and_no_drain_is_drained_before_it_ends() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let redis = Redis::start(None).await?;
    let (pair, port) = fronted(redis.port(), redis.port(), "old = \"keep\"", "hold").await?;
    let mut client = RedisClient::connect(port).await?;
    client.ask(&["SET", "k", "1"]).await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    ensure!(client.ask(&["SET", "k", "2"]).await? == "OK", "it stays");
    let late = pair.ctl(4, &["watch-drain", "--max-wait", "500ms"]).await?;
    let text = late.to_string();
    ensure!(text.contains("redis"), "the connection is named: {text}");
    drop(client);
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_new_connection_is_refused_where_it_is_to_be_refused() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let redis = Redis::start(None).await?;
    let (pair, port) = fronted(redis.port(), redis.port(), "new = \"refuse\"", "hold").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    // At once, and not when a hold would be over.
    let mut refused = RedisClient::connect(port).await?;
    tokio::time::timeout(SOON, refused.closed()).await??;
    pair.ctl(0, &["abort"]).await?;
    let mut client = RedisClient::connect(port).await?;
    ensure!(client.ask(&["PING"]).await? == "PONG");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_held_connection_whose_client_left_never_reaches_the_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let redis = Redis::start(None).await?;
    let (pair, port) = fronted(redis.port(), redis.port(), "", "hold").await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    let mut gone = RedisClient::connect(port).await?;
    gone.send(&["SET", "gone", "1"]).await?;
    let mut there = RedisClient::connect(port).await?;
    there.send(&["SET", "there", "1"]).await?;
    pair.until_held(2).await?;
    drop(gone);
    pair.until_held(1)
        .await
        .context("the one that left is dropped")?;
    pair.ctl(0, &["abort"]).await?;
    ensure!(there.answer().await? == "OK", "the other one runs");
    let mut direct = redis.client().await?;
    ensure!(direct.ask(&["GET", "there"]).await? == "1");
    ensure!(
        direct.ask(&["GET", "gone"]).await?.is_empty(),
        "it was run for nobody"
    );
    Ok(())
}

/// A client has written a line, and its server has read it.
async fn written() -> Result<(Pair, TcpStream, TcpStream)> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let to = listener.local_addr()?.port();
    let (pair, port) = fronted(to, to, "", "hold").await?;
    let mut client = TcpStream::connect(("127.0.0.1", port)).await?;
    client.write_all(b"write\n").await?;
    let (mut server, _) = listener.accept().await?;
    let mut got = [0; 6];
    server.read_exact(&mut got).await?;
    Ok((pair, client, server))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_was_sent_before_the_fence_is_answered_and_counts_until_then() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, mut client, mut server) = written().await?;
    let mut got = [0; 6];
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    let shut = tokio::time::timeout(SOON, server.read(&mut got));
    ensure!(shut.await?? == 0, "the fence shuts the client's direction");
    pair.ctl(4, &["watch-drain", "--max-wait", "300ms"]).await?;
    server.write_all(b"done\n").await?;
    drop(server);
    let mut answer = String::new();
    client.read_to_string(&mut answer).await?;
    ensure!(answer == "done\n", "the client reads {answer:?}");
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_lost_with_something_unanswered_is_unknown_until_acknowledged() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, _client, server) = written().await?;
    drop(server);
    until("the outcome to be unknown", SOON, async || {
        Ok(pair.group().await?["in_flight"]["unknown"] == 1)
    })
    .await?;
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    pair.ctl(4, &["watch-drain", "--max-wait", "600ms"])
        .await
        .context("no backend's absence ends it")?;
    let list = pair.ctl(0, &["unknown", "list"]).await?;
    ensure!(list["writes"][0]["digest"] == "tcp:redis", "{list}");
    pair.ctl(0, &["unknown", "ack", "--all", "--reason", "looked at"])
        .await?;
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_leaves_with_rst_leaves_what_it_sent_counted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, client, mut server) = written().await?;
    let mut got = [0; 6];
    client.set_zero_linger()?;
    drop(client);
    let shut = tokio::time::timeout(SOON, server.read(&mut got));
    ensure!(shut.await?? == 0, "nothing more comes of that client");
    until("it to be counted without its client", SOON, async || {
        let in_flight = pair.group().await?["in_flight"].clone();
        Ok(in_flight["orphaned"] == 1 && in_flight["unknown"] == 0)
    })
    .await?;
    until_in_flight(&pair, 1).await?;
    server.write_all(b"done\n").await?;
    drop(server);
    until_in_flight(&pair, 0).await?;
    ensure!(pair.group().await?["in_flight"]["unknown"] == 0, "it ended");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_takes_nothing_keeps_no_drain_waiting() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let (pair, _client, mut server) = written().await?;
    // More than lies on the way, so it is not through before somebody takes it.
    let answer = tokio::spawn(async move { server.write_all(&vec![b'x'; 32 << 20]).await });
    pair.ctl(0, &["prepare", "--primary", "a", "--reason", "test"])
        .await?;
    let drain = pair.ctl(0, &["watch-drain", "--max-wait", "30s"]).await?;
    ensure!(drain["outcome"] == "drained", "{drain}");
    answer.await?.context("the server was heard out")?;
    ensure!(
        pair.group().await?["in_flight"]["unknown"] == 0,
        "it is known"
    );
    pair.ctl(0, &["abort"]).await?;
    Ok(())
}
