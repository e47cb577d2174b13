//! How exchanges end that end badly: what is not whole is never taken for whole, what was left undone is
//! said to be, and nothing is waited for without a bound.

use std::net::Ipv4Addr;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Result, ensure};
use http::Response;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use writefence_tests::eventually::{pause, until};
use writefence_tests::frames::{END_HEADERS, END_STREAM, frame, kind};
use writefence_tests::http::{Raw, send};

use crate::http_support::{Alone, SOON, before, until_count};

const HTTP2: &str = "http_version = \"2\"";

/// A server of which each connection is served by this.
async fn serving<F, S>(serve: F) -> Result<u16>
where
    F: Fn(TcpStream) -> S + Send + 'static,
    S: Future<Output = Option<()>> + Send + 'static,
{
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(serve(stream));
        }
    });
    Ok(port)
}

/// The head of a request, and what came with it of its body.
async fn request(stream: &mut TcpStream) -> Option<(String, Vec<u8>)> {
    let mut got = Vec::new();
    loop {
        if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
            let body = got.split_off(at + 4);
            return Some((String::from_utf8_lossy(&got).into_owned(), body));
        }
        if stream.read_buf(&mut got).await.ok()? == 0 {
            return None;
        }
    }
}

/// Half an answer, and once it has gone out and `go` is told, a reset that says that nothing is wrong.
async fn halves(stream: TcpStream, go: Arc<Notify>) -> Option<()> {
    let mut connection = h2::server::handshake(stream).await.ok()?;
    while let Some(Ok((request, mut respond))) = connection.accept().await {
        let go = Arc::clone(&go);
        tokio::spawn(async move {
            let answer = Response::new(());
            let mut answer = respond.send_response(answer, false).ok()?;
            if request.uri().path() == "/early" {
                // Whole, and the body of the request is not read: h2 then resets with NO_ERROR too.
                return answer.send_data("whole".into(), true).ok();
            }
            answer.send_data("half".into(), false).ok()?;
            go.notified().await;
            answer.send_reset(h2::Reason::NO_ERROR);
            Some(())
        });
    }
    Some(())
}

#[tokio::test]
async fn an_answer_whose_stream_is_reset_before_its_end_is_not_whole() -> Result<()> {
    let go = Arc::new(Notify::new());
    let told = Arc::clone(&go);
    let origin = serving(move |stream| halves(stream, Arc::clone(&go))).await?;
    let (daemon, port) = before(origin, HTTP2, "").await?;
    for method in ["GET", "POST"] {
        let mut client = Raw::connect(port).await?;
        let head = format!("{method} /half HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        client.send(head).await?;
        let mut got = Vec::new();
        while !got.ends_with(b"half\r\n") {
            let n = timeout(SOON, client.0.read_buf(&mut got)).await??;
            ensure!(n > 0, "{method}: ended before");
        }
        told.notify_one();
        timeout(SOON, client.0.read_to_end(&mut got)).await??;
        let text = String::from_utf8_lossy(&got);
        ensure!(
            text.ends_with("half\r\n"),
            "{method}: it has an end: {text}"
        );
    }
    until_count(&daemon, "unknown", 1).await?;
    // One that is whole is known, also where its server resets the rest of the request.
    let mut client = Raw::connect(port).await?;
    let head = "POST /early HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    client.send(head).await?;
    client.send(vec![b'x'; 100_000]).await?;
    let reply = timeout(SOON, client.reply()).await??;
    assert_eq!((reply.status, &reply.body[..]), (200, &b"whole"[..]));
    until_count(&daemon, "executing", 0).await?;
    until_count(&daemon, "unknown", 1).await
}

/// Says goodbye to as many streams as are `left`, and answers the others. With `names` the goodbye names
/// the stream among those that were looked at, and the connection ends.
async fn goodbyes(mut stream: TcpStream, left: Arc<AtomicUsize>, names: bool) -> Option<()> {
    let mut preface = [0; 24];
    stream.read_exact(&mut preface).await.ok()?;
    let settings = frame(kind::SETTINGS, 0, 0, &[]);
    stream.write_all(&settings).await.ok()?;
    loop {
        let mut head = [0; 9];
        stream.read_exact(&mut head).await.ok()?;
        let [a, b, c, kind, flags, id @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        stream.read_exact(&mut payload).await.ok()?;
        let ack = END_STREAM;
        let answer = match kind {
            kind::SETTINGS | kind::PING if flags & ack == 0 => {
                let payload = if kind == kind::PING { payload } else { vec![] };
                frame(kind, ack, 0, &payload)
            }
            kind::HEADERS => {
                let one_less = |n: usize| n.checked_sub(1);
                let order = Ordering::SeqCst;
                match left.fetch_update(order, order, one_less).is_ok() {
                    true => {
                        let last = if names { id } else { [0; 4] };
                        let goodbye = [last, [0; 4]].concat();
                        frame(kind::GOAWAY, 0, 0, &goodbye)
                    }
                    // 0x88 is ":status: 200".
                    false => {
                        let flags = END_STREAM | END_HEADERS;
                        frame(kind::HEADERS, flags, u32::from_be_bytes(id), &[0x88])
                    }
                }
            }
            _ => continue,
        };
        stream.write_all(&answer).await.ok()?;
        if names && answer[3] == kind::GOAWAY {
            return None;
        }
    }
}

#[tokio::test]
async fn a_request_that_a_goodbye_leaves_out_was_not_executed() -> Result<()> {
    let left = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&left);
    let origin = serving(move |stream| goodbyes(stream, Arc::clone(&count), false)).await?;
    let (daemon, port) = before(origin, HTTP2, "").await?;
    left.store(1, Ordering::SeqCst);
    let refused = send(port, "POST", "/x", "", "abc").await?;
    assert_eq!(
        (refused.status, &refused.json()["executed"]),
        (503, &json!(false))
    );
    // The next goes over another connection, and a read does so unseen.
    assert_eq!(send(port, "POST", "/x", "", "abc").await?.status, 200);
    left.store(1, Ordering::SeqCst);
    assert_eq!(send(port, "GET", "/x", "", "").await?.status, 200);
    assert_eq!(left.load(Ordering::SeqCst), 0, "it was asked twice");
    until_count(&daemon, "unknown", 0).await?;
    // Of what was looked at nobody knows.
    let left = Arc::new(AtomicUsize::new(1));
    let origin = serving(move |stream| goodbyes(stream, Arc::clone(&left), true)).await?;
    let (daemon, port) = before(origin, HTTP2, "").await?;
    assert_eq!(send(port, "POST", "/x", "", "abc").await?.status, 504);
    until_count(&daemon, "unknown", 1).await
}

/// Begins an answer that has no end. Over `/ticks` something comes all the time.
async fn endless(mut stream: TcpStream) -> Option<()> {
    let (head, _) = request(&mut stream).await?;
    let answer = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\n\
                  Transfer-Encoding: chunked\r\n\r\n6\r\ndata\n\n\r\n";
    stream.write_all(answer.as_bytes()).await.ok()?;
    while head.starts_with("GET /ticks") {
        stream.write_all(b"6\r\ndata\n\n\r\n").await.ok()?;
        pause(SOON / 500).await;
    }
    std::future::pending().await
}

#[tokio::test]
async fn events_that_nobody_hears_any_more_end_with_their_deadline() -> Result<()> {
    let keys = "sse = \"fence\"\nwrite_deadline = \"300ms\"";
    let (daemon, port) = before(serving(endless).await?, "", keys).await?;
    for (n, path) in ["/ticks", "/silence"].into_iter().enumerate() {
        let mut client = Raw::connect(port).await?;
        let head = format!("GET {path} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n");
        client.send(head).await?;
        client.reply_head().await?;
        client.fin();
        until(&format!("{path} to be given up"), SOON, async || {
            let in_flight = daemon.status().await?["in_flight"].clone();
            let under_way = [&in_flight["executing"], &in_flight["orphaned"]];
            Ok(under_way == [0, 0] && in_flight["unknown"] == n + 1)
        })
        .await?;
    }
    Ok(())
}

#[tokio::test]
async fn a_handshake_that_is_answered_otherwise_has_a_deadline() -> Result<()> {
    let keys = "write_deadline = \"300ms\"";
    let (daemon, port) = before(serving(endless).await?, "", keys).await?;
    let mut client = Raw::connect(port).await?;
    let ask = "Host: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
               Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n";
    client
        .send(format!("GET /ws HTTP/1.1\r\n{ask}\r\n"))
        .await?;
    let head = timeout(SOON, client.reply_head()).await??;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    until_count(&daemon, "unknown", 1).await?;
    until_count(&daemon, "executing", 0).await
}

#[tokio::test]
async fn a_client_found_gone_by_what_it_is_sent_leaves_an_orphan() -> Result<()> {
    let alone = Alone::start("").await?;
    for n in 1..=5 {
        let mut client = Raw::connect(alone.port).await?;
        let head = "POST /events HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";
        client.send(head).await?;
        client.reply_head().await?;
        client.rst()?;
        until_count(&alone.daemon, "orphaned", n).await?;
    }
    Ok(())
}

/// Answers the first request of a connection and closes over the second.
async fn once(
    mut stream: TcpStream,
    closed: Arc<AtomicUsize>,
    whole: Arc<AtomicUsize>,
) -> Option<()> {
    for first in [true, false] {
        let (head, mut body) = request(&mut stream).await?;
        while head.starts_with("POST") && body.len() < QUERY.len() {
            if stream.read_buf(&mut body).await.ok()? == 0 {
                return None;
            }
        }
        if !first {
            closed.fetch_add(1, Ordering::SeqCst);
            return None;
        }
        if body == QUERY.as_bytes() {
            whole.fetch_add(1, Ordering::SeqCst);
        }
        let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
        stream.write_all(answer).await.ok()?;
    }
    Some(())
}

const QUERY: &str = "{\"query\":\"{ a }\"}";

#[tokio::test]
async fn a_read_that_is_here_whole_is_asked_again_where_its_connection_was_dead() -> Result<()> {
    let (closed, whole) = (Arc::<AtomicUsize>::default(), Arc::<AtomicUsize>::default());
    let (counted, read) = (Arc::clone(&closed), Arc::clone(&whole));
    let origin = serving(move |stream| once(stream, Arc::clone(&counted), Arc::clone(&read)));
    let keys = "[[group.main.listen.route]]\npath = \"/graphql\"\nverdict = \"graphql\"";
    let (_daemon, port) = before(origin.await?, "", keys).await?;
    let kind = "Content-Type: application/json\r\n";
    let mut asked = 0;
    // The first may find no connection at rest yet.
    while closed.load(Ordering::SeqCst) < 2 && asked < 50 {
        let reply = send(port, "POST", "/graphql", kind, QUERY).await?;
        ensure!(reply.status == 200, "a read failed: {}", reply.status);
        asked += 1;
    }
    ensure!(closed.load(Ordering::SeqCst) > 0, "none was found dead");
    assert_eq!(whole.load(Ordering::SeqCst), asked);
    Ok(())
}
