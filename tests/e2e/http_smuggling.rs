//! Requests that two programs could read in two ways reach no server, and neither does what follows.

use anyhow::{Result, ensure};
use tokio::io::AsyncReadExt;
use writefence_tests::http::Raw;

use crate::http_support::{Alone, Api, SOON};

/// Behind each stands a second request, which a proxy that read the first otherwise would send on.
const AMBIGUOUS: [&str; 15] = [
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\nContent-Length: 44\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 0, 44\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: \x0bchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nX: y\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\nContent-Length: 44\r\n\r\n",
    "POST / HTTP/1.1\nHost: a\n\n",
    "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "POST http://b/ HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nContent-Length: 0\r\n\r\n",
    "POST / HTTP/1.1\r\nHost: a\r\nHost: b\r\nContent-Length: 0\r\n\r\n",
];

const SECOND: &str = "POST /smuggled HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n";

#[tokio::test]
async fn ambiguous_requests_get_400_and_the_end_of_the_connection() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    for request in AMBIGUOUS {
        let mut client = Raw::connect(api.port()).await?;
        client.send(format!("{request}{SECOND}")).await?;
        let reply = client.reply().await?;
        ensure!(reply.status == 400, "{} to {request:?}", reply.status);
        assert_eq!(reply.header("connection"), "close", "{request:?}");
        client.closed().await?;
    }
    assert!(api.server.seen().is_empty(), "{:?}", api.server.seen());
    Ok(())
}

#[tokio::test]
async fn a_bad_chunk_ends_the_request_and_smuggles_nothing() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    for chunk in [
        "-1\r\n",
        "0x5\r\nhello\r\n",
        "5;\nhello\r\n",
        "5\r\nhelloXX",
        "ffffffffffffffffff\r\n",
    ] {
        let mut client = Raw::connect(api.port()).await?;
        let head = "POST /chunked HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
        client
            .send(format!("{head}{chunk}0\r\n\r\n{SECOND}"))
            .await?;
        let mut answer = Vec::new();
        let read = client.0.read_to_end(&mut answer);
        let _ = tokio::time::timeout(SOON, read).await?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(!answer.contains(" 200 "), "{chunk:?}: {answer}");
    }
    assert!(api.server.seen_at("/smuggled").is_empty());
    assert!(api.server.seen_at("/chunked").is_empty());
    Ok(())
}

#[tokio::test]
async fn requests_sent_behind_each_other_are_each_judged() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    let mut client = Raw::connect(api.port()).await?;
    let get = "GET /read HTTP/1.1\r\nHost: a\r\n\r\n";
    client.send(format!("{get}{SECOND}{get}")).await?;
    // The server's answers are of a known length, so they can be told apart.
    let mut got = String::new();
    while got.matches("HTTP/1.1 ").count() < 3 {
        let mut buffer = [0; 4096];
        let n = client.0.read(&mut buffer).await?;
        ensure!(n > 0, "closed after {got:?}");
        got.push_str(&String::from_utf8_lossy(&buffer[..n]));
    }
    // A body may end without a line's end, so a status line need not begin a line.
    let status: Vec<&str> = got.split("HTTP/1.1 ").skip(1).map(|s| &s[..3]).collect();
    assert_eq!(status, ["200", "503", "200"], "{got}");
    assert_eq!(api.server.seen_at("/read").len(), 2);
    assert!(api.server.seen_at("/smuggled").is_empty());
    Ok(())
}

#[tokio::test]
async fn heads_that_are_too_large_or_too_slow_are_ended() -> Result<()> {
    let alone = Alone::start("header_bytes = \"8KiB\"").await?;
    let mut large = Raw::connect(alone.port).await?;
    let header = "x".repeat(20_000);
    let head = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {header}\r\n\r\n");
    let _ = large.send(head).await;
    assert_eq!(large.reply().await?.status, 431);
    assert!(alone.server.seen().is_empty());
    let alone = Alone::start("header_timeout = \"300ms\"").await?;
    let mut slow = Raw::connect(alone.port).await?;
    slow.send("GET / HTTP/1.1\r\nHost: a\r\n").await?;
    assert_eq!(slow.reply().await?.status, 408);
    slow.closed().await?;
    assert!(alone.server.seen().is_empty());
    Ok(())
}

#[tokio::test]
async fn an_override_makes_a_write_of_a_read() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    api.fence("reject").await?;
    for more in [
        "X-HTTP-Method-Override: DELETE\r\n",
        "X-Method-Override: PUT\r\n",
        // Behind CGI's rules this is the same header.
        "X_HTTP_Method_Override: DELETE\r\n",
    ] {
        let reply = writefence_tests::http::send(api.port(), "GET", "/x", more, "").await?;
        assert_eq!(reply.status, 503, "{more}");
    }
    let more = "X-HTTP-Method-Override: GET\r\n";
    let reply = writefence_tests::http::send(api.port(), "POST", "/x", more, "").await?;
    assert_eq!(reply.status, 503);
    assert!(api.server.seen().is_empty());
    Ok(())
}
