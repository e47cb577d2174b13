//! What passes through: bodies of any size, headers, streams, gRPC and WebSockets.

use anyhow::{Result, ensure};
use serde_json::json;
use tokio::io::AsyncReadExt;
use writefence_tests::eventually::until;
use writefence_tests::http::{Raw, send};

use crate::http_orphans::h2_client;
use crate::http_support::{Alone, Api, SOON};

#[tokio::test]
async fn bodies_of_any_size_arrive_whole_both_ways() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    for size in [0, 1, 65_536, 65_537, 5_000_000] {
        let mut plain = Raw::connect(api.port()).await?;
        let head = format!("POST /size HTTP/1.1\r\nHost: a\r\nContent-Length: {size}\r\n\r\n");
        plain.send(head).await?;
        plain.send(vec![b'x'; size]).await?;
        assert_eq!(plain.reply().await?.json()["body"], json!(size));
        let mut chunked = Raw::connect(api.port()).await?;
        let head = "POST /size HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        chunked.send(head).await?;
        for part in vec![b'x'; size].chunks(100_000) {
            chunked.send(format!("{:x}\r\n", part.len())).await?;
            chunked.send(part).await?;
            chunked.send("\r\n").await?;
        }
        chunked.send("0\r\n\r\n").await?;
        assert_eq!(chunked.reply().await?.json()["body"], json!(size));
        let reply = api.send("GET", &format!("/size?bytes={size}"), "").await?;
        assert_eq!(reply.body.len(), size);
    }
    api.until_count("executing", 0).await
}

#[tokio::test]
async fn an_upload_that_is_cut_off_is_never_taken_for_a_whole_one() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    // Small enough to be read before it is admitted: nothing reaches the server.
    let mut small = Raw::connect(api.port()).await?;
    small
        .send("POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await?;
    small.fin();
    let mut large = Raw::connect(api.port()).await?;
    let head = "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    large.send(head).await?;
    large.send(vec![b'x'; 500_000]).await?;
    api.until_count("executing", 1).await?;
    large.fin();
    // A part of it was sent, so nobody can say what the server made of it.
    api.until_count("unknown", 1).await?;
    until("the server to see the cut", SOON, async || {
        Ok(api
            .server
            .seen_at("/large")
            .iter()
            .any(|one| one.body.is_none()))
    })
    .await?;
    assert_eq!(api.server.done(), 0);
    assert!(api.server.seen_at("/small").is_empty());
    Ok(())
}

#[tokio::test]
async fn headers_are_told_on_as_a_proxy_should() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let more = "Writefence-Epoch: main:999\r\nX-Forwarded-For: 10.9.9.9\r\n\
                Connection: keep-alive, X-Hop\r\nX-Hop: 1\r\nX-Own: 2\r\n";
    let reply = send(api.port(), "POST", "/h", more, "").await?;
    let epoch = api.daemon.status().await?["epoch"].clone();
    assert_eq!(reply.json()["epoch"], json!(format!("main:{epoch}")));
    let seen = &api.server.seen_at("/h")[0].headers;
    assert_eq!(seen.get_all("writefence-epoch").iter().count(), 1);
    assert_eq!(seen["x-forwarded-for"], "127.0.0.1");
    assert_eq!(seen["host"], "api.test");
    assert_eq!(seen["x-own"], "2");
    assert!(!seen.contains_key("x-hop"));
    assert!(seen.contains_key("x-request-id"));
    Ok(())
}

#[tokio::test]
async fn grpc_of_browsers_goes_over_what_the_server_speaks() -> Result<()> {
    let alone = Alone::start("").await?;
    let kind = "Content-Type: application/grpc-web+proto\r\n";
    let reply = send(alone.port, "POST", "/t.S/Put", kind, "\0\0\0\0\0").await?;
    assert_eq!(reply.status, 200);
    assert!(!alone.server.seen_at("/t.S/Put")[0].is_http2);
    Ok(())
}

#[tokio::test]
async fn grpc_goes_over_http2_with_its_trailers() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut client = h2_client(api.port()).await?;
    let request = http::Request::post("http://a/pkg.Svc/Get")
        .header("content-type", "application/grpc")
        .header("te", "trailers")
        .body(())?;
    let (answer, mut body) = client.send_request(request, false)?;
    body.send_data(vec![0; 5].into(), true)?;
    let answer = answer.await?;
    assert_eq!(answer.status(), 200);
    let mut body = answer.into_body();
    while let Some(data) = body.data().await {
        let n = data?.len();
        body.flow_control().release_capacity(n)?;
    }
    let trailers = body.trailers().await?.unwrap_or_default();
    assert_eq!(trailers["grpc-status"], "0");
    assert_eq!(
        api.server.seen_at("/pkg.Svc/Get")[0].headers["te"],
        "trailers"
    );
    Ok(())
}

const HANDSHAKE: &str = "GET /ws HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n";

/// A masked text frame; a mask of zeros leaves the text as it is.
fn text(text: &str) -> Vec<u8> {
    let length = 0x80 | u8::try_from(text.len()).unwrap_or_default();
    let mut frame = vec![0x81, length, 0, 0, 0, 0];
    frame.extend_from_slice(text.as_bytes());
    frame
}

#[tokio::test]
async fn a_websocket_counts_as_a_write_and_a_fence_closes_it_with_1012() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut client = Raw::connect(api.port()).await?;
    client.send(HANDSHAKE).await?;
    let reply = client.reply().await?;
    assert_eq!(reply.status, 101);
    client.send(text("hello")).await?;
    let mut echo = [0; 7];
    client.0.read_exact(&mut echo).await?;
    assert_eq!(&echo[2..], b"hello");
    api.until_count("executing", 1).await?;
    api.fence("reject").await?;
    let mut close = [0; 4];
    let read = client.0.read_exact(&mut close);
    tokio::time::timeout(SOON, read).await??;
    assert_eq!(close, [0x88, 0x02, 0x03, 0xf4]);
    let drain = api.daemon.ctl(&["watch-drain", "--max-wait", "5s"]).await?;
    ensure!(drain.code == 0, "{}", drain.text);
    assert_eq!(drain.json["outcome"], "drained");
    // And a new one is refused as a write is.
    let mut again = Raw::connect(api.port()).await?;
    again.send(HANDSHAKE).await?;
    assert_eq!(again.reply().await?.status, 503);
    Ok(())
}

#[tokio::test]
async fn events_flow_through_a_fence_and_nothing_is_buffered() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut client = Raw::connect(api.port()).await?;
    client
        .send("GET /events HTTP/1.1\r\nHost: a\r\n\r\n")
        .await?;
    client.reply_head().await?;
    api.fence("reject").await?;
    let mut got = String::new();
    while !got.contains("data: 20\n") {
        let mut buffer = [0; 1024];
        let read = client.0.read(&mut buffer);
        let n = tokio::time::timeout(SOON, read).await??;
        ensure!(n > 0, "closed after {got:?}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    Ok(())
}

#[tokio::test]
async fn a_server_that_breaks_off_is_seen_by_the_client_and_a_read_is_no_unknown() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut client = Raw::connect(api.port()).await?;
    client
        .send("GET /x?half=1 HTTP/1.1\r\nHost: a\r\n\r\n")
        .await?;
    ensure!(
        client.reply().await.is_err(),
        "half an answer passed for a whole one"
    );
    let reply = api.send("GET", "/x?die=1", "").await?;
    assert_eq!(reply.status, 502);
    assert_eq!(api.in_flight().await?["unknown"], 0);
    Ok(())
}

/// An origin that is spoken to in HTTP/2.
async fn over_http2() -> Result<Api> {
    Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.regions[0] += "http_version = \"2\"\n";
    })
    .await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn clients_that_do_not_read_starve_nobody_on_the_connection_they_share() -> Result<()> {
    let api = over_http2().await?;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        let mut client = h2_client(api.port()).await?;
        let get = http::Request::get("http://a/big?bytes=8000000").body(())?;
        let answer = client.send_request(get, true)?.0.await?;
        assert_eq!(answer.status(), 200);
        stalled.push((client, answer));
    }
    for _ in 0..3 {
        let read = tokio::time::timeout(SOON, api.send("GET", "/small?bytes=100000", "")).await??;
        assert_eq!(read.body.len(), 100_000);
    }
    let seen = api.server.seen();
    ensure!(seen.iter().all(|one| one.is_http2), "not over HTTP/2");
    let shared = seen.iter().all(|one| one.connection == seen[0].connection);
    ensure!(shared, "they did not share a connection");
    Ok(())
}

#[tokio::test]
async fn reads_and_writes_share_no_connection_and_streams_have_a_limit() -> Result<()> {
    let api = over_http2().await?;
    api.send("GET", "/r", "").await?;
    api.send("POST", "/w", "").await?;
    api.send("GET", "/r", "").await?;
    api.send("POST", "/w", "").await?;
    let of = |path: &str| -> Vec<usize> {
        let seen = api.server.seen_at(path);
        seen.iter().map(|one| one.connection).collect()
    };
    let (reads, writes) = (of("/r"), of("/w"));
    ensure!(
        reads[0] == reads[1] && writes[0] == writes[1],
        "they are kept"
    );
    ensure!(reads[0] != writes[0], "a write may keep reads waiting");
    let mut client = h2_client(api.port()).await?;
    let mut answers = Vec::new();
    for _ in 0..70 {
        let get = http::Request::get("http://a/slow?gate=1").body(())?;
        client = client.ready().await?;
        answers.push(client.send_request(get, true)?.0);
    }
    // All at once: one that is over would make room for another.
    until("all to be with the server", SOON, async || {
        Ok(of("/slow").len() == 70)
    })
    .await?;
    api.server.release();
    for answer in answers {
        assert_eq!(answer.await?.status(), 200);
    }
    let mut used = of("/slow");
    used.sort_unstable();
    let most = used.chunk_by(|a, b| a == b).map(<[usize]>::len).max();
    assert_eq!(most, Some(64), "{used:?}");
    Ok(())
}

#[tokio::test]
async fn a_read_may_have_a_body_of_unknown_length() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut client = Raw::connect(api.port()).await?;
    for method in ["GET", "QUERY"] {
        let head = format!("{method} /q HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
        client
            .send(format!("{head}5\r\nhello\r\n0\r\n\r\n"))
            .await?;
        assert_eq!(client.reply().await?.status, 200);
    }
    let mut client = h2_client(api.port()).await?;
    let get = http::Request::get("http://a/q").body(())?;
    let (answer, mut body) = client.send_request(get, false)?;
    body.send_data("hello".into(), true)?;
    assert_eq!(answer.await?.status(), 200);
    let bodies: Vec<_> = api
        .server
        .seen_at("/q")
        .iter()
        .map(|one| one.body)
        .collect();
    assert_eq!(bodies, [Some(5); 3]);
    Ok(())
}
