//! WebSockets and streams of events at a fence, and what pretends to become one.

use std::net::Ipv4Addr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::time::timeout;
use writefence_tests::eventually::{pause, until};
use writefence_tests::http::{Raw, send};

use crate::http_support::{Alone, SOON, before, fence, open, until_count};

const ASK: &str = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                   Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";

/// A server of WebSockets, and the bytes that came over the last one.
struct Sockets {
    port: u16,
    got: Arc<Mutex<Vec<u8>>>,
}

impl Sockets {
    /// With `reads` it takes what comes, else it leaves it all with its system.
    async fn start(reads: bool) -> Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let port = listener.local_addr()?.port();
        let got: Arc<Mutex<Vec<u8>>> = Arc::default();
        let all = Arc::clone(&got);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(socket(stream, reads, Arc::clone(&all)));
            }
        });
        Ok(Self { port, got })
    }

    fn got(&self) -> Vec<u8> {
        let got = self.got.lock();
        got.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn socket(mut stream: TcpStream, reads: bool, got: Arc<Mutex<Vec<u8>>>) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        if stream.read_buf(&mut head).await.unwrap_or_default() == 0 {
            return;
        }
    }
    let agreed = b"HTTP/1.1 101 S\r\nConnection: upgrade\r\nUpgrade: websocket\r\n\r\n";
    if !head.starts_with(b"GET /ws") || stream.write_all(agreed).await.is_err() {
        return;
    }
    if !reads {
        std::future::pending::<()>().await;
    }
    loop {
        let mut piece = Vec::new();
        let n = stream.read_buf(&mut piece).await.unwrap_or_default();
        let mut got = got.lock().unwrap_or_else(PoisonError::into_inner);
        got.extend_from_slice(&piece);
        // A frame that closes, or the end: it closes too.
        if n == 0 || piece.contains(&0x88) {
            return;
        }
    }
}

async fn connected(port: u16) -> Result<Raw> {
    let mut client = Raw::connect(port).await?;
    client
        .send(format!("GET /ws HTTP/1.1\r\n{ASK}\r\n"))
        .await?;
    let head = timeout(SOON, client.reply_head()).await??;
    ensure!(head.starts_with("HTTP/1.1 101"), "{head}");
    Ok(client)
}

/// The first bytes of a masked frame of ten.
const BEGUN: &[u8] = b"\x82\x8a\0\0\0\0abcde";

#[tokio::test]
async fn a_fence_closes_a_websocket_between_two_frames_of_its_client_too() -> Result<()> {
    let sockets = Sockets::start(true).await?;
    let (daemon, port) = before(sockets.port, "", "").await?;
    let mut client = connected(port).await?;
    client.send(BEGUN).await?;
    until("the beginning to arrive", SOON, async || {
        Ok(sockets.got() == BEGUN)
    })
    .await?;
    let closed = async {
        let mut close = [0; 4];
        timeout(SOON, client.0.read_exact(&mut close)).await??;
        assert_eq!(close, [0x88, 0x02, 0x03, 0xf4]);
        assert_eq!(sockets.got(), BEGUN, "nothing comes between");
        // The rest of it, and one that comes behind the fence.
        client.send(b"fghij\x82\x81\0\0\0\0x").await?;
        until("the frame to end, and a close frame", SOON, async || {
            let got = sockets.got();
            let whole = [BEGUN, b"fghij\x88\x82"].concat();
            Ok(got.starts_with(&whole) && got.len() == whole.len() + 6)
        })
        .await
    };
    // The word is answered once the lane is drained.
    let (fenced, closed) = tokio::join!(fence(&daemon, "reject"), closed);
    closed?;
    fenced?;
    let drain = daemon.ctl(&["watch-drain", "--max-wait", "3s"]).await?;
    ensure!(drain.code == 0, "{}", drain.text);
    Ok(())
}

#[tokio::test]
async fn a_websocket_server_that_takes_nothing_keeps_no_fence_waiting() -> Result<()> {
    let sockets = Sockets::start(false).await?;
    let (daemon, port) = before(sockets.port, "", "").await?;
    let mut client = connected(port).await?;
    let frame = [&b"\x82\xfe\x40\0\0\0\0\0"[..], &[b'x'; 0x4000]].concat();
    // Until nobody on the way takes any more.
    while let Ok(sent) = timeout(Duration::from_millis(200), client.send(&frame)).await {
        sent?;
    }
    until_count(&daemon, "executing", 1).await?;
    fence(&daemon, "reject").await?;
    until("the tunnel to be given up", 2 * SOON, async || {
        let in_flight = daemon.status().await?["in_flight"].clone();
        Ok(in_flight["executing"] == 0 && in_flight["unknown"] == 1)
    })
    .await
}

#[tokio::test]
async fn a_websocket_has_no_deadline() -> Result<()> {
    let sockets = Sockets::start(true).await?;
    let (daemon, port) = before(sockets.port, "", "write_deadline = \"300ms\"").await?;
    let mut client = connected(port).await?;
    // Its deadline, and what an answer gets beyond it.
    pause(Duration::from_millis(1500)).await;
    until_count(&daemon, "executing", 1).await?;
    client.send(BEGUN).await?;
    until("the beginning to arrive", SOON, async || {
        Ok(sockets.got() == BEGUN)
    })
    .await
}

#[tokio::test]
async fn a_websocket_that_begins_with_a_body_smuggles_nothing() -> Result<()> {
    let alone = Alone::start("websocket = \"keep\"").await?;
    let inner = "POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
    let n = inner.len();
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{n:x}\r\n{inner}\r\n0\r\n\r\n");
    for framing in [format!("Content-Length: {n}\r\n\r\n{inner}"), chunked] {
        let mut client = Raw::connect(alone.port).await?;
        let head = format!("GET /x HTTP/1.1\r\n{ASK}{framing}");
        client.send(head).await?;
        assert_eq!(client.reply().await?.status, 400);
        client.closed().await?;
    }
    assert_eq!(send(alone.port, "GET", "/after", "", "").await?.status, 200);
    let paths: Vec<_> = alone
        .server
        .seen()
        .into_iter()
        .map(|one| one.path)
        .collect();
    assert_eq!(paths, ["/after"]);
    Ok(())
}

#[tokio::test]
async fn events_that_may_write_have_no_deadline_and_end_with_the_fence() -> Result<()> {
    let keys = "sse = \"fence\"\nwrite_deadline = \"300ms\"";
    let alone = Alone::start(keys).await?;
    let mut client = Raw::connect(alone.port).await?;
    client
        .send("GET /events HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n")
        .await?;
    client.reply_head().await?;
    // Its deadline, and what an answer gets beyond it.
    pause(Duration::from_millis(1500)).await;
    until_count(&alone.daemon, "executing", 1).await?;
    fence(&alone.daemon, "reject").await?;
    let mut rest = Vec::new();
    let ended = async {
        while !rest.ends_with(b"\r\n0\r\n\r\n") {
            ensure!(client.0.read_buf(&mut rest).await? > 0, "cut off");
        }
        Ok(())
    };
    timeout(SOON, ended).await??;
    open(&alone.daemon).await
}
