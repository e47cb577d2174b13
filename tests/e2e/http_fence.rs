//! What HTTP clients see of a fence: refusals that say "not executed", waits that are safe.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use writefence_tests::eventually::until;
use writefence_tests::http::{Raw, send};

use crate::http_orphans::h2_client;
use crate::http_support::{Api, SOON};

#[tokio::test]
async fn a_refused_write_says_that_it_was_not_executed_and_reads_flow() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    for method in ["POST", "PUT", "PATCH", "DELETE", "LOCK", "get"] {
        let reply = api.send(method, "/x", "body").await?;
        assert_eq!(reply.status, 503, "{method}");
        assert_eq!(reply.header("content-type"), "application/problem+json");
        assert_eq!(reply.header("cache-control"), "no-store");
        let after: u64 = reply.header("retry-after").parse()?;
        assert!((1..=30).contains(&after), "{after}");
        let problem = reply.json();
        assert_eq!(problem["executed"], json!(false));
        assert_eq!(problem["status"], json!(503));
        assert_eq!(problem["retry_after"], json!(after));
        assert_eq!(problem["epoch"], api.daemon.status().await?["epoch"]);
    }
    for method in ["GET", "HEAD", "OPTIONS"] {
        let mut raw = Raw::connect(api.port()).await?;
        raw.send(format!("{method} /read HTTP/1.0\r\n\r\n")).await?;
        let head = raw.reply_head().await?;
        assert_eq!(head.split(' ').nth(1), Some("200"), "{method}");
    }
    assert_eq!(api.server.seen_at("/x").len(), 0);
    assert_eq!(api.server.seen_at("/read").len(), 3);
    api.open().await?;
    assert_eq!(api.send("POST", "/x", "body").await?.status, 200);
    Ok(())
}

#[tokio::test]
async fn health_is_answered_here_whatever_the_phase() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    let reply = api.send("GET", "/-/healthy", "").await?;
    assert_eq!((reply.status, reply.body.as_slice()), (200, &b"ok\n"[..]));
    assert!(api.server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn a_refused_client_hears_no_100_and_one_that_sends_on_can_read_the_503() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    let mut waiting = Raw::connect(api.port()).await?;
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 3000000\r\n";
    waiting
        .send(format!("{head}Expect: 100-continue\r\n\r\n"))
        .await?;
    // The first line that comes is the final one.
    assert_eq!(waiting.reply().await?.status, 503);
    waiting.closed().await?;
    // Larger than what is drained: the client goes on sending and still reads the answer.
    let mut sending = Raw::connect(api.port()).await?;
    sending.send(format!("{head}\r\n")).await?;
    let _ = sending.send(vec![b'x'; 1_500_000]).await;
    let reply = sending.reply().await?;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.header("connection"), "close");
    // Small enough: the connection goes on.
    let mut small = Raw::connect(api.port()).await?;
    let body = "x".repeat(100_000);
    let head = "POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\n";
    small.send(format!("{head}{body}")).await?;
    assert_eq!(small.reply().await?.status, 503);
    small.send("GET /again HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    assert_eq!(small.reply().await?.status, 200);
    assert_eq!(api.server.seen().len(), 1);
    Ok(())
}

#[tokio::test]
async fn scripts_people_and_grpc_clients_are_refused_in_their_own_words() -> Result<()> {
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.keys = "cors = \"reflect\"".to_owned();
    })
    .await?;
    api.fence("reject").await?;
    let headers = "Origin: https://app.test\r\nAccept: text/html\r\n";
    let reply = send(api.port(), "POST", "/x", headers, "").await?;
    assert_eq!(
        reply.header("access-control-allow-origin"),
        "https://app.test"
    );
    assert_eq!(reply.header("vary"), "Origin");
    assert_eq!(reply.header("content-type"), "text/html; charset=utf-8");
    let mut client = h2_client(api.port()).await?;
    let request = http::Request::post("http://a/pkg.Svc/Put")
        .header("content-type", "application/grpc")
        .body(())?;
    let (answer, _body) = client.send_request(request, false)?;
    let answer = answer.await?;
    assert_eq!(answer.status(), 200);
    assert_eq!(answer.headers()["grpc-status"], "14");
    assert!(answer.body().is_end_stream(), "trailers only");
    Ok(())
}

#[tokio::test]
async fn a_held_write_sends_nothing_and_runs_once_when_the_gate_opens() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("hold").await?;
    let mut client = Raw::connect(api.port()).await?;
    let head = "POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n";
    client
        .send(format!("{head}Expect: 100-continue\r\n\r\n"))
        .await?;
    api.until_count("held", 1).await?;
    let mut nothing = [0; 1];
    let quiet = client.0.try_read(&mut nothing).err().map(|e| e.kind());
    assert_eq!(quiet, Some(std::io::ErrorKind::WouldBlock), "a 100 came");
    api.open().await?;
    let go_on = client.reply_head().await?;
    ensure!(go_on.starts_with("HTTP/1.1 100"), "{go_on:?}");
    client.send("body").await?;
    let reply = client.reply().await?;
    assert_eq!((reply.status, &reply.json()["body"]), (200, &json!(4)));
    assert_eq!(api.server.seen_at("/held").len(), 1);
    Ok(())
}

#[tokio::test]
async fn a_held_client_that_leaves_is_dropped_counted_and_never_run() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("hold").await?;
    let post = "POST /held HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nhalf";
    let mut fin = Raw::connect(api.port()).await?;
    fin.send(post).await?;
    let mut rst = Raw::connect(api.port()).await?;
    rst.send(post).await?;
    let mut client = h2_client(api.port()).await?;
    let request = http::Request::post("http://a/held").body(())?;
    let (_answer, mut stream) = client.send_request(request, false)?;
    api.until_count("held", 3).await?;
    fin.fin();
    rst.rst()?;
    stream.send_reset(h2::Reason::CANCEL);
    api.until_count("held", 0).await?;
    api.open().await?;
    assert_eq!(api.send("POST", "/after", "").await?.status, 200);
    assert!(api.server.seen_at("/held").is_empty());
    Ok(())
}

#[tokio::test]
async fn a_hold_that_expires_is_a_503_and_not_a_504() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let args = [
        "prepare",
        "--primary",
        "a",
        "--reason",
        "t",
        "--hold",
        "200ms",
    ];
    api.daemon.ctl(&args).await?.ok()?;
    let reply = api.send("POST", "/x", "").await?;
    assert_eq!(reply.status, 503);
    assert_eq!(reply.json()["executed"], json!(false));
    assert_eq!(reply.json()["type"], "urn:writefence:held-too-long");
    assert!(api.server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn held_writes_leave_streams_for_reads_of_their_connection() -> Result<()> {
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.keys = "streams = 8".to_owned();
    })
    .await?;
    api.fence("hold").await?;
    let mut client = h2_client(api.port()).await?;
    let mut held = Vec::new();
    for _ in 0..4 {
        let post = http::Request::post("http://a/held").body(())?;
        held.push(client.send_request(post, true)?.0);
    }
    api.until_count("held", 4).await?;
    let post = http::Request::post("http://a/held").body(())?;
    let over = client.send_request(post, true)?.0.await?;
    assert_eq!(over.status(), 503);
    let get = http::Request::get("http://a/read").body(())?;
    let read = tokio::time::timeout(SOON, client.send_request(get, true)?.0).await??;
    assert_eq!(read.status(), 200);
    api.open().await?;
    for answer in held {
        assert_eq!(answer.await?.status(), 200);
    }
    assert_eq!(api.server.seen_at("/held").len(), 4);
    Ok(())
}

#[tokio::test]
async fn held_writes_leave_once_each_when_the_gate_opens() -> Result<()> {
    let api =
        Api::start(|options| options.extra = "[limits]\nrelease_burst = 1".to_owned()).await?;
    api.fence("hold").await?;
    let mut clients = Vec::new();
    for n in 0..10 {
        let mut client = Raw::connect(api.port()).await?;
        let head = format!("POST /n{n} HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        client.send(head).await?;
        api.until_count("held", n + 1).await?;
        clients.push(client);
    }
    api.open().await?;
    for client in &mut clients {
        assert_eq!(client.reply().await?.status, 200);
    }
    // The gate lets them go in order, one per millisecond; each then makes its own way to the server,
    // so neighbours may change places there.
    let mut ran: Vec<String> = api.server.seen().into_iter().map(|one| one.path).collect();
    ran.sort();
    let sent: Vec<String> = (0..10).map(|n| format!("/n{n}")).collect();
    assert_eq!(ran, sent);
    Ok(())
}

#[tokio::test]
async fn a_slow_upload_is_no_write_in_flight_before_it_is_whole() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    let mut slow = Raw::connect(api.port()).await?;
    slow.send("POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf")
        .await?;
    // A drain does not wait for a client that may never send the rest.
    api.fence("hold").await?;
    let drain = api.daemon.ctl(&["watch-drain", "--max-wait", "3s"]).await?;
    ensure!(drain.code == 0, "{}", drain.text);
    slow.send(" done.").await?;
    api.until_count("held", 1).await?;
    api.open().await?;
    assert_eq!(slow.reply().await?.status, 200);
    until("one request", SOON, async || {
        Ok(api.server.seen_at("/slow").len() == 1)
    })
    .await
}

#[tokio::test]
async fn a_graphql_query_passes_the_fence_and_a_mutation_does_not() -> Result<()> {
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.keys =
            "[[group.main.listen.route]]\npath = \"/graphql\"\nverdict = \"graphql\"".to_owned();
    })
    .await?;
    api.fence("reject").await?;
    let json = "Content-Type: application/json\r\n";
    let ask = async |body: &str| send(api.port(), "POST", "/graphql", json, body).await;
    let query = ask(r#"{"query":"query { a }"}"#).await?;
    assert_eq!(query.status, 200);
    let mutation = ask(r#"{"query":"mutation { a }"}"#).await?;
    assert_eq!(mutation.status, 503);
    // One whose body is not there to be judged is not asked for it, only to be refused then.
    let mut waiting = Raw::connect(api.port()).await?;
    let head = "POST /graphql HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\n";
    waiting
        .send(format!("{head}{json}Content-Length: 28\r\n\r\n"))
        .await?;
    assert_eq!(waiting.reply().await?.status, 503);
    let seen = api.server.seen_at("/graphql");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, Some(23));
    Ok(())
}

#[tokio::test]
async fn a_request_meets_the_fence_again_after_a_crash() -> Result<()> {
    let mut api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    api.daemon.kill()?;
    api.daemon.launch(&[]).await?;
    assert_eq!(api.send("POST", "/x", "").await?.status, 503);
    assert_eq!(api.send("GET", "/x", "").await?.status, 200);
    assert_eq!(api.server.seen_at("/x").len(), 1);
    Ok(())
}

#[tokio::test]
async fn an_abort_does_not_wait_for_the_requests_that_the_fence_waits_for() -> Result<()> {
    // Who waits for it waits for longer than a command does.
    let api = Api::start(|options| "100s".clone_into(&mut options.http_deadline)).await?;
    let mut slow = Raw::connect(api.port()).await?;
    slow.send("POST /slow?gate=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n")
        .await?;
    api.until_count("executing", 1).await?;
    let prepare = api.fence("reject");
    let abort = async {
        until("the first lane to be fenced", SOON, async || {
            let lanes = api.daemon.status().await?["lanes"].clone();
            Ok(lanes["http"]["phase"] == "fenced" && lanes["sql"]["phase"] == "open")
        })
        .await?;
        api.daemon.ctl(&["abort"]).await
    };
    let (prepared, abort) = tokio::join!(prepare, abort);
    abort?.ok()?;
    ensure!(prepared.is_err(), "what was aborted is not prepared");
    assert_eq!(api.server.done(), 0, "the request is still there");
    assert_eq!(api.send("POST", "/x", "").await?.status, 200);
    assert_eq!(api.server.seen_at("/slow").len(), 1);
    Ok(())
}

/// How long the daemon waits for it.
const LAST_FRAME: Duration = Duration::from_millis(100);

#[tokio::test]
async fn a_refusal_over_http2_waits_a_moment_for_the_last_frame_and_no_longer() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    let mut client = h2_client(api.port()).await?;
    let post = || http::Request::post("http://a/x").header("content-length", "0");
    let (answer, mut body) = client.send_request(post().body(())?, false)?;
    body.send_data(bytes::Bytes::new(), true)?;
    assert_eq!(answer.await?.status(), 503);
    // One that never comes is no reason to keep a refusal for longer than that.
    let begin = Instant::now();
    let (answer, _body) = client.send_request(post().body(())?, false)?;
    let answer = tokio::time::timeout(SOON, answer).await??;
    assert_eq!(answer.status(), 503);
    let took = begin.elapsed();
    ensure!(
        took >= LAST_FRAME,
        "answered before its last frame: {took:?}"
    );
    assert!(api.server.seen().is_empty());
    Ok(())
}
