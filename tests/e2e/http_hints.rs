//! What stands before an answer and behind a request: early hints, and trailers.

use std::net::Ipv4Addr;

use anyhow::{Context, Result, ensure};
use http::{HeaderMap, HeaderValue};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use writefence_tests::http::{Raw, Upstream};

use crate::http_orphans::h2_client;
use crate::http_support::{SOON, before};

fn checksums() -> HeaderMap {
    let one = HeaderValue::from_static("1");
    let mut trailers = HeaderMap::new();
    for name in ["x-checksum", "x-http-method-override", "content-length"] {
        trailers.insert(name, one.clone());
    }
    trailers
}

/// Sends a body with trailers and waits for the answer.
async fn upload(port: u16, bytes: usize) -> Result<()> {
    let mut client = h2_client(port).await?;
    let post = http::Request::post("http://a/up").header("trailer", "x-checksum");
    let (answer, mut body) = client.send_request(post.body(())?, false)?;
    body.send_data(vec![b'x'; bytes].into(), false)?;
    body.send_trailers(checksums())?;
    let answer = tokio::time::timeout(SOON, answer).await??;
    ensure!(answer.status() == 200, "{}", answer.status());
    Ok(())
}

#[tokio::test]
async fn trailers_of_a_request_are_passed_on_without_what_belongs_into_its_head() -> Result<()> {
    for (version, keys) in [("HTTP/1.1", ""), ("HTTP/2", "http_version = \"2\"")] {
        let origin = Upstream::start("a").await?;
        let (_daemon, port) = before(origin.port(), keys, "").await?;
        // One that is read before it is admitted, and one that is longer than that.
        for bytes in [5, 300_000] {
            upload(port, bytes).await.context(version)?;
        }
        let seen = origin.seen_at("/up");
        let bodies: Vec<_> = seen.iter().map(|one| one.body).collect();
        assert_eq!(bodies, [Some(5), Some(300_000)], "{version}");
        for one in seen {
            assert_eq!(one.is_http2, version == "HTTP/2");
            let names: Vec<_> = one.trailers.keys().map(|name| name.as_str()).collect();
            assert_eq!(names, ["x-checksum"], "{version}");
        }
    }
    Ok(())
}

/// An origin that says something before each answer.
async fn hinting() -> Result<(u16, JoinHandle<()>)> {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
    let port = listener.local_addr()?.port();
    let accepting = tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                        return;
                    }
                }
                let words = "HTTP/1.1 100 Continue\r\n\r\n\
                    HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nKeep-Alive: 5\r\n\r\n";
                let _ = stream.write_all(words.as_bytes()).await;
                tokio::task::yield_now().await;
                let answer = match request.starts_with(b"DELETE") {
                    true => "HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n",
                    false => "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok",
                };
                let _ = stream.write_all(answer.as_bytes()).await;
            });
        }
    });
    Ok((port, accepting))
}

#[tokio::test]
async fn hints_are_passed_on_to_those_who_know_them_and_100_stays_ours() -> Result<()> {
    let (origin, accepting) = hinting().await?;
    let (_daemon, port) = before(origin, "", "").await?;
    for method in ["GET", "POST"] {
        let request = format!("{method} /x HTTP/1.1\r\nHost: a\r\n");
        let mut client = Raw::connect(port).await?;
        client
            .send(format!("{request}Content-Length: 0\r\n\r\n"))
            .await?;
        let hint = client.reply_head().await?.to_lowercase();
        ensure!(hint.starts_with("http/1.1 103"), "{method}: {hint}");
        ensure!(hint.contains("link: </a.css>; rel=preload"), "{hint}");
        ensure!(!hint.contains("keep-alive"), "{hint}");
        let answer = client.reply().await?;
        assert_eq!((answer.status, &answer.body[..]), (200, &b"ok"[..]));
        let mut old = Raw::connect(port).await?;
        let request = format!("{method} /x HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
        old.send(request).await?;
        assert_eq!(old.reply().await?.status, 200, "{method} of HTTP/1.0");
    }
    // A length of nothing is not passed on either: some clients would wait for it.
    let mut client = Raw::connect(port).await?;
    client.send("DELETE /x HTTP/1.1\r\nHost: a\r\n\r\n").await?;
    client.reply_head().await?;
    let answer = client.reply().await?;
    assert_eq!((answer.status, answer.header("content-length")), (204, ""));
    let mut client = h2_client(port).await?;
    let get = http::Request::get("http://a/x").body(())?;
    let mut answer = client.send_request(get, true)?.0;
    let hint = std::future::poll_fn(|cx| answer.poll_informational(cx));
    let hint = tokio::time::timeout(SOON, hint).await?;
    let hint = hint.context("no hint came")??;
    assert_eq!(hint.status(), 103);
    assert_eq!(hint.headers()["link"], "</a.css>; rel=preload");
    assert_eq!(answer.await?.status(), 200);
    accepting.abort();
    Ok(())
}
