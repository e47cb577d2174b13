//! Listeners come and go with a reload, and nobody who is connected notices.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio_postgres::Client;
use writefence_tests::eventually::until;
use writefence_tests::http::{Raw, Upstream};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::{self, skipped};
use writefence_tests::process::Signal;

use crate::http_support::SOON;
use crate::support::Pair;

const GET: &str = "GET /x HTTP/1.1\r\nHost: a\r\n\r\n";

/// The pair with an HTTP origin and an opaque server that nothing leads to yet.
async fn pair(origin: u16, echo: u16) -> Result<Pair> {
    Pair::start(|options| {
        options.region =
            format!("http = \"http://127.0.0.1:{origin}\"\ntcp.echo = \"127.0.0.1:{echo}\"\n");
    })
    .await
}

/// A server that gives back what it gets.
async fn echo() -> Result<u16> {
    let listener = TcpListener::bind(("127.0.0.1", 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let (mut from, mut to) = stream.split();
                tokio::io::copy(&mut from, &mut to).await
            });
        }
    });
    Ok(port)
}

fn listen(kind: &str, port: u16, more: &str) -> String {
    format!("[[group.main.listen]]\nkind = \"{kind}\"\naddress = \"127.0.0.1:{port}\"\n{more}\n")
}

async fn echoes(stream: &mut TcpStream) -> Result<()> {
    stream.write_all(b"still").await?;
    let mut got = [0; 5];
    stream.read_exact(&mut got).await?;
    ensure!(&got == b"still", "{got:?}");
    Ok(())
}

async fn refused(port: u16) -> bool {
    TcpStream::connect(("127.0.0.1", port)).await.is_err()
}

async fn session(port: u16) -> Result<Client> {
    Ok(postgres::connect(port, "postgres", "postgres").await?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listeners_come_with_a_reload_and_leave_their_connections_when_they_go() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let origin = Upstream::start("a").await?;
    let mut pair = pair(origin.port(), echo().await?).await?;
    let before = pair.client().await?;
    let (sql, http, tcp) = (free_port()?, free_port()?, free_port()?);
    ensure!(refused(sql).await && refused(http).await && refused(tcp).await);
    pair.daemon.options.extra = [
        listen("postgres", sql, "auth = \"trust\""),
        listen("http", http, ""),
        listen("tcp", tcp, "service = \"echo\""),
    ]
    .concat();
    pair.daemon.write_config()?;
    let report = pair.ctl(0, &["reload"]).await?;
    let key = |port| Value::from(format!("group.main.listen[127.0.0.1:{port}]"));
    ensure!(
        report["applied"] == Value::from(vec![key(sql), key(http), key(tcp)]),
        "{report}"
    );
    ensure!(report["needs_restart"] == serde_json::json!([]), "{report}");

    let session = session(sql).await?;
    session.batch_execute("INSERT INTO t VALUES (1)").await?;
    let mut client = Raw::connect(http).await?;
    client.send(GET).await?;
    ensure!(client.reply().await?.status == 200);
    let mut opaque = TcpStream::connect(("127.0.0.1", tcp)).await?;
    echoes(&mut opaque).await?;
    let judged = pair.ctl(0, &["explain-http", "POST", "http://a/x"]).await?;
    ensure!(judged.to_string().contains(&http.to_string()), "{judged}");

    pair.daemon.options.extra.clear();
    pair.daemon.write_config()?;
    pair.daemon.signal(Signal::HUP)?;
    until("the listeners to be gone", SOON, async || {
        Ok(refused(sql).await && refused(http).await && refused(tcp).await)
    })
    .await?;
    session
        .batch_execute("INSERT INTO t VALUES (2)")
        .await
        .context("a session goes on")?;
    client.send(GET).await?;
    ensure!(client.reply().await?.status == 200, "a connection goes on");
    echoes(&mut opaque).await.context("a connection goes on")?;
    before.batch_execute("INSERT INTO t VALUES (3)").await?;
    pair.client().await.context("what stayed still listens")?;
    // Fenced, moved and ended like any other.
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "t"])
        .await?;
    session.batch_execute("INSERT INTO t VALUES (4)").await?;
    pair.daemon.stop().await?;
    ensure!(session.batch_execute("SELECT 1").await.is_err());
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_cannot_be_bound_leaves_everything_as_it_was() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let origin = Upstream::start("a").await?;
    let mut pair = pair(origin.port(), echo().await?).await?;
    let (fine, taken) = (free_port()?, free_port()?);
    let other = TcpListener::bind(("127.0.0.1", taken)).await?;
    let own = pair.daemon.options.answer.clone();
    pair.daemon.options.answer = "reject".to_owned();
    pair.daemon.options.extra = [
        listen("http", fine, ""),
        listen("postgres", taken, "auth = \"trust\""),
    ]
    .concat();
    pair.daemon.write_config()?;
    let error = pair.ctl(1, &["reload"]).await?["error"].clone();
    let text = error.to_string();
    ensure!(text.contains(&format!("127.0.0.1:{taken}")), "{text}");
    ensure!(text.contains("nothing was applied"), "{text}");
    ensure!(refused(fine).await, "a part of it was applied");
    pair.client()
        .await
        .context("what was there still listens")?;
    let run = pair
        .ctl(0, &["prepare", "--primary", "a", "--reason", "t"])
        .await?;
    ensure!(pair.group().await?["answer"] == own.as_str(), "{run}");
    pair.ctl(0, &["abort"]).await?;

    // What it would lead to is not running: said, not half done.
    pair.daemon.options.extra = listen("tcp", fine, "service = \"new\"");
    pair.daemon.options.region += "tcp.new = \"127.0.0.1:1\"\n";
    pair.daemon.write_config()?;
    let error = pair.ctl(1, &["reload"]).await?.to_string();
    ensure!(
        error.contains("region.a.tcp.new, which takes a restart"),
        "{error}"
    );

    drop(other);
    pair.daemon.options.region = pair
        .daemon
        .options
        .region
        .replace("tcp.new = \"127.0.0.1:1\"\n", "");
    pair.daemon.options.extra = listen("postgres", taken, "auth = \"trust\"");
    pair.daemon.write_config()?;
    pair.ctl(0, &["reload"]).await?;
    session(taken).await?;
    Ok(())
}
