//! Clients and servers that are slow: none holds up a drain longer than it must, and what is known of a
//! write is known whatever its client does.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use h2::client::SendRequest;
use http::{Request, Response};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::time::timeout;
use writefence_tests::eventually::pause;
use writefence_tests::http::{Raw, send};

use crate::http_orphans::h2_client;
use crate::http_support::{Alone, Api, SOON, before, fence, open, until_count};

const SLOW: &str = "body_timeout = \"300ms\"";

async fn drained(alone: &Alone) -> Result<()> {
    let drain = ["watch-drain", "--max-wait", "3s"];
    let drain = alone.daemon.ctl(&drain).await?;
    ensure!(drain.code == 0, "{}", drain.text);
    Ok(())
}

#[tokio::test]
async fn a_body_that_is_too_slow_hears_408_and_what_became_of_it() -> Result<()> {
    let alone = Alone::start(SLOW).await?;
    let mut small = Raw::connect(alone.port).await?;
    let head = "POST /small HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf";
    small.send(head).await?;
    let reply = small.reply().await?;
    assert_eq!(
        (reply.status, &reply.json()["executed"]),
        (408, &json!(false))
    );
    assert_eq!(reply.header("connection"), "close");
    small.closed().await?;
    // Of this one a part was sent on, so nobody knows.
    let mut large = Raw::connect(alone.port).await?;
    let head = "POST /large HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    // In one piece, so that only what is missing is late.
    large
        .send([head.as_bytes(), &[b'x'; 200_000]].concat())
        .await?;
    let reply = large.reply().await?;
    assert_eq!(
        (reply.status, &reply.json()["executed"]),
        (408, &Value::Null)
    );
    assert_eq!(reply.header("writefence-outcome"), "unknown");
    large.closed().await?;
    until_count(&alone.daemon, "unknown", 1).await?;
    let list = alone.daemon.ctl(&["unknown", "list"]).await?.ok()?.json;
    assert_eq!(list["writes"][0]["request"], reply.json()["request"]);
    let mut client = h2_client(alone.port).await?;
    let post = Request::post("http://a/h2").header("content-length", "10");
    let (answer, mut body) = client.send_request(post.body(())?, false)?;
    body.send_data("half".into(), false)?;
    let answer = timeout(SOON, answer).await??;
    assert_eq!(answer.status(), 408);
    let problem = answer.into_body().data().await.context("a problem")??;
    let problem: Value = serde_json::from_slice(&problem)?;
    assert_eq!(problem["executed"], json!(false));
    // The connection goes on.
    let get = Request::get("http://a/read").body(())?;
    assert_eq!(client.send_request(get, true)?.0.await?.status(), 200);
    let seen = alone.server.seen();
    assert!(
        seen.iter()
            .all(|one| one.method == "GET" || one.body.is_none())
    );
    Ok(())
}

#[tokio::test]
async fn a_held_write_whose_body_does_not_come_holds_up_no_later_drain() -> Result<()> {
    let alone = Alone::start("").await?;
    fence(&alone.daemon, "hold").await?;
    let mut slow = Raw::connect(alone.port).await?;
    let head = "POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\n";
    slow.send(head).await?;
    until_count(&alone.daemon, "held", 1).await?;
    open(&alone.daemon).await?;
    until_count(&alone.daemon, "executing", 1).await?;
    // Nothing was sent, so the fence takes it back and does not wait.
    fence(&alone.daemon, "hold").await?;
    drained(&alone).await?;
    slow.send("0123456789").await?;
    until_count(&alone.daemon, "held", 1).await?;
    assert!(alone.server.seen_at("/slow").is_empty());
    open(&alone.daemon).await?;
    assert_eq!(slow.reply().await?.status, 200);
    assert_eq!(alone.server.seen_at("/slow").len(), 1);
    Ok(())
}

/// Asks and reads nothing of the answer.
async fn unread(client: &mut SendRequest<Bytes>, bytes: usize) -> Result<h2::RecvStream> {
    let post = Request::post(format!("http://a/big?bytes={bytes}")).body(())?;
    let answer = client.send_request(post, true)?.0.await?;
    Ok(answer.into_body())
}

#[tokio::test]
async fn the_answer_to_a_write_is_heard_out_though_its_client_does_not_read() -> Result<()> {
    let alone = Alone::start_with("http_version = \"2\"", "").await?;
    let mut client = h2_client(alone.port).await?;
    // More than lies on the way between, and less than is kept.
    let short = 350_000;
    let mut answer = unread(&mut client, short).await?;
    pause(Duration::from_millis(300)).await;
    until_count(&alone.daemon, "executing", 1).await?;
    fence(&alone.daemon, "reject").await?;
    drained(&alone).await?;
    open(&alone.daemon).await?;
    let mut got = 0;
    while let Some(data) = timeout(SOON, answer.data()).await? {
        let n = data?.len();
        got += n;
        answer.flow_control().release_capacity(n)?;
    }
    assert_eq!(got, short, "it comes whole in the end");
    Ok(())
}

#[tokio::test]
async fn a_longer_answer_is_heard_out_when_its_time_is_over_and_its_client_let_go() -> Result<()> {
    let alone = Alone::start_with("http_version = \"2\"", "write_deadline = \"1500ms\"").await?;
    let mut client = h2_client(alone.port).await?;
    let mut answer = unread(&mut client, 20_000_000).await?;
    until_count(&alone.daemon, "executing", 0).await?;
    until_count(&alone.daemon, "unknown", 0).await?;
    let end = async {
        while let Some(data) = answer.data().await {
            let n = data?.len();
            answer.flow_control().release_capacity(n)?;
        }
        Ok::<_, h2::Error>(())
    };
    ensure!(
        timeout(SOON, end).await?.is_err(),
        "cut off, and seen to be"
    );
    Ok(())
}

#[tokio::test]
async fn a_write_whose_connection_does_not_open_in_time_was_not_executed() -> Result<()> {
    // It takes connections and says nothing: no handshake ends.
    let silent = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = silent.local_addr()?.port();
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.regions[0] = format!("http = \"https://127.0.0.1:{port}\"\n");
        http.keys = "write_deadline = \"300ms\"".to_owned();
    })
    .await?;
    let reply = api.send("POST", "/x", "").await?;
    assert_eq!(
        (reply.status, &reply.json()["executed"]),
        (503, &json!(false))
    );
    assert_eq!(api.in_flight().await?["unknown"], 0);
    Ok(())
}

#[tokio::test]
async fn a_grpc_stream_whose_client_waits_for_answers_is_passed_on_at_once() -> Result<()> {
    let alone = Alone::start("").await?;
    let mut client = h2_client(alone.port).await?;
    let call = |path: &str| {
        let call = Request::post(format!("http://a{path}"));
        call.header("content-type", "application/grpc").body(())
    };
    let (answer, mut body) = client.send_request(call("/t.S/Chat")?, false)?;
    let message = Bytes::from_static(b"\0\0\0\0\x05hello");
    for _ in 0..2 {
        body.send_data(message.clone(), false)?;
    }
    let mut answer = timeout(SOON, answer).await??.into_body();
    let mut got = Vec::new();
    while got.len() < 2 * message.len() {
        let data = timeout(SOON, answer.data()).await?.context("an echo")??;
        got.extend_from_slice(&data);
    }
    // One whose server speaks first.
    let (first, _silent) = client.send_request(call("/t.S/Wait/Chat")?, false)?;
    assert_eq!(timeout(SOON, first).await??.status(), 200);
    // And a stream without a length that is no gRPC.
    let mut raw = Raw::connect(alone.port).await?;
    let head = "POST /log/Chat HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    raw.send(format!("{head}5\r\nhello\r\n")).await?;
    let head = timeout(SOON, raw.reply_head()).await??;
    ensure!(head.starts_with("HTTP/1.1 200"), "{head}");
    Ok(())
}

#[tokio::test]
async fn what_lies_unread_of_held_writes_takes_no_room_from_reads() -> Result<()> {
    let keys = "[[group.main.listen.route]]\npath = \"/search\"\nverdict = \"read\"";
    let alone = Alone::start(keys).await?;
    fence(&alone.daemon, "hold").await?;
    let mut client = h2_client(alone.port).await?;
    let mut held = Vec::new();
    for _ in 0..3 {
        let post = Request::post("http://a/held").body(())?;
        let (answer, mut body) = client.send_request(post, false)?;
        body.send_data(vec![b'x'; 65_535].into(), false)?;
        held.push((answer, body));
    }
    until_count(&alone.daemon, "held", 3).await?;
    let search = Request::post("http://a/search").body(())?;
    let (answer, mut body) = client.send_request(search, false)?;
    body.send_data("what".into(), true)?;
    assert_eq!(timeout(SOON, answer).await??.status(), 200);
    assert_eq!(alone.server.seen_at("/search")[0].body, Some(4));
    open(&alone.daemon).await?;
    for (answer, mut body) in held {
        body.send_data(Bytes::new(), true)?;
        assert_eq!(answer.await?.status(), 200);
    }
    Ok(())
}

#[tokio::test]
async fn what_lies_unread_of_held_writes_counts_in_the_waiting_room() -> Result<()> {
    let api = Api::start(|options| options.extra = "[limits]\nheld_bytes = \"100KiB\"".to_owned());
    let api = api.await?;
    api.fence("hold").await?;
    let mut client = h2_client(api.port()).await?;
    let mut held = Vec::new();
    // One that says that it is short, and one that may be as long as there is room on its stream.
    for length in [Some("1000"), None] {
        let mut post = Request::post("http://a/held");
        if let Some(length) = length {
            post = post.header("content-length", length);
        }
        held.push(client.send_request(post.body(())?, false)?);
    }
    api.until_count("held", 2).await?;
    let post = Request::post("http://a/held").body(())?;
    let (answer, _body) = client.send_request(post, false)?;
    let answer = timeout(SOON, answer).await??;
    assert_eq!(answer.status(), 503);
    let problem = answer.into_body().data().await.context("a problem")??;
    let problem: Value = serde_json::from_slice(&problem)?;
    assert_eq!(problem["type"], "urn:writefence:waiting-room-full");
    Ok(())
}

#[tokio::test]
async fn a_held_client_waits_no_longer_than_it_said() -> Result<()> {
    let alone = Alone::start("").await?;
    fence(&alone.daemon, "hold").await?;
    let patience = "Request-Timeout: 1\r\n";
    let reply = timeout(SOON, send(alone.port, "POST", "/x", patience, "")).await??;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["type"], "urn:writefence:held-too-long");
    Ok(())
}

/// A server of HTTP/2 that does nothing about any request.
async fn refusing() -> Result<u16> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut connection = h2::server::handshake(stream).await.ok()?;
                while let Some(Ok((request, mut respond))) = connection.accept().await {
                    match request.uri().path() {
                        "/refuse" => respond.send_reset(h2::Reason::REFUSED_STREAM),
                        "/cancel" => respond.send_reset(h2::Reason::CANCEL),
                        _ => drop(respond.send_response(Response::new(()), true)),
                    }
                }
                Some(())
            });
        }
    });
    Ok(port)
}

#[tokio::test]
async fn a_write_that_an_http2_server_refuses_was_not_executed() -> Result<()> {
    let (daemon, port) = before(refusing().await?, "http_version = \"2\"", "").await?;
    let refused = send(port, "POST", "/refuse", "", "abc").await?;
    assert_eq!(
        (refused.status, &refused.json()["executed"]),
        (503, &json!(false))
    );
    until_count(&daemon, "unknown", 0).await?;
    // Any other end of a stream says nothing.
    assert_eq!(send(port, "POST", "/cancel", "", "abc").await?.status, 504);
    until_count(&daemon, "unknown", 1).await
}

#[tokio::test]
async fn what_is_held_when_the_daemon_stops_hears_that_it_was_not_executed() -> Result<()> {
    let mut alone = Alone::start("").await?;
    fence(&alone.daemon, "hold").await?;
    let mut held = Raw::connect(alone.port).await?;
    held.send("POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await?;
    let mut client = h2_client(alone.port).await?;
    let post = Request::post("http://a/held").body(())?;
    let answer = client.send_request(post, true)?.0;
    until_count(&alone.daemon, "held", 2).await?;
    let answers = async {
        let reply = timeout(SOON, held.reply()).await??;
        let over_http2 = timeout(SOON, answer).await??;
        Ok::<_, anyhow::Error>((reply, over_http2.status()))
    };
    let (stopped, answers) = tokio::join!(alone.daemon.stop(), answers);
    let (reply, over_http2) = answers?;
    assert_eq!(
        (reply.status, &reply.json()["executed"]),
        (503, &json!(false))
    );
    assert_eq!(over_http2, 503);
    stopped?;
    assert!(alone.server.seen_at("/held").is_empty());
    Ok(())
}
