//! A write outlives its client: it counts until its server has answered, however the client left.

use anyhow::{Result, ensure};
use writefence_tests::eventually::until;
use writefence_tests::http::Raw;

use crate::http_support::{Api, SOON};

const SLOW: &str = "POST /orders?gate=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";

/// After the client has left: one orphan, a drain that waits for it, and nothing lost.
async fn proves_the_orphan(api: &Api) -> Result<()> {
    api.until_count("orphaned", 1).await?;
    api.fence("reject").await?;
    let drain = async |within| {
        let drain = ["watch-drain", "--max-wait", within];
        api.daemon.ctl(&drain).await
    };
    let waits = drain("300ms").await?;
    ensure!(waits.code == 4, "{}", waits.text);
    api.server.release();
    let drain = drain("10s").await?;
    ensure!(drain.code == 0, "{}", drain.text);
    assert_eq!(drain.json["outcome"], "drained");
    assert_eq!(api.server.done(), 1);
    let seen = api.server.seen_at("/orders");
    assert_eq!(seen.len(), 1);
    assert_eq!(seen[0].body, Some(2));
    let counts = api.in_flight().await?;
    assert_eq!(counts["orphaned"], 0);
    assert_eq!(counts["unknown"], 0);
    Ok(())
}

/// A fence that does not wait long for requests before it fences their SQL.
async fn start() -> Result<Api> {
    Api::start(|options| "100ms".clone_into(&mut options.http_deadline)).await
}

#[tokio::test]
async fn a_client_that_leaves_with_fin_leaves_its_write_counted() -> Result<()> {
    let api = start().await?;
    let mut client = Raw::connect(api.port()).await?;
    client.send(SLOW).await?;
    api.until_count("executing", 1).await?;
    client.fin();
    proves_the_orphan(&api).await
}

#[tokio::test]
async fn a_client_that_leaves_with_rst_leaves_its_write_counted() -> Result<()> {
    let api = start().await?;
    let mut client = Raw::connect(api.port()).await?;
    client.send(SLOW).await?;
    api.until_count("executing", 1).await?;
    client.rst()?;
    proves_the_orphan(&api).await
}

#[tokio::test]
async fn an_http2_client_that_resets_its_stream_leaves_its_write_counted() -> Result<()> {
    let api = start().await?;
    let mut client = h2_client(api.port()).await?;
    let request = http::Request::post("http://a/orders?gate=1").body(())?;
    let (answer, mut body) = client.send_request(request, false)?;
    body.send_data("hi".into(), true)?;
    api.until_count("executing", 1).await?;
    body.send_reset(h2::Reason::CANCEL);
    drop(answer);
    proves_the_orphan(&api).await
}

#[tokio::test]
async fn a_write_whose_server_closes_early_is_unknown_and_sent_once() -> Result<()> {
    let api = Api::start(|_| ()).await?;
    // With a body and without: what has none is what clients, and proxies, send again unasked.
    for (method, body) in [("POST", "x"), ("PUT", ""), ("DELETE", "")] {
        // Twice, so that the second finds a connection that was used.
        let first = api.send(method, "/fine", body).await?;
        assert_eq!(first.status, 200);
        let mut client = Raw::connect(api.port()).await?;
        let key = format!("Idempotency-Key: k-{method}\r\nX-Request-Id: r-{method}");
        let length = body.len();
        client
            .send(format!(
                "{method} /{method}?die=1 HTTP/1.1\r\nHost: a\r\n{key}\r\n\
                 Content-Length: {length}\r\n\r\n{body}"
            ))
            .await?;
        let reply = client.reply().await?;
        assert_eq!(reply.status, 504);
        assert_eq!(reply.header("writefence-outcome"), "unknown");
        assert_eq!(reply.json()["executed"], serde_json::Value::Null);
        assert_eq!(api.server.seen_at(&format!("/{method}")).len(), 1);
    }
    let list = api.daemon.ctl(&["unknown", "list"]).await?.ok()?.json;
    let writes = list["writes"].as_array().cloned().unwrap_or_default();
    assert_eq!(writes.len(), 3, "{list}");
    assert_eq!(writes[0]["kind"], "http");
    assert_eq!(writes[0]["digest"], "POST /POST");
    assert_eq!(writes[0]["request"], "r-POST");
    assert_eq!(writes[0]["idempotency_key"], "k-POST");
    assert_eq!(writes[0]["state"], "unresolved");
    // It goes on blocking a drain: no backend's absence proves anything about it.
    api.fence("reject").await?;
    let drain = api.daemon.ctl(&["watch-drain", "--max-wait", "1s"]).await?;
    ensure!(drain.code == 4, "{}", drain.text);
    assert_eq!(api.in_flight().await?["unknown"], 3);
    Ok(())
}

#[tokio::test]
async fn a_write_beyond_its_deadline_is_unknown() -> Result<()> {
    let api = Api::start(|options| {
        let http = options.front.as_mut().expect("there is a listener");
        http.keys = "write_deadline = \"300ms\"".to_owned();
    })
    .await?;
    let reply = api.send("POST", "/late?gate=1", "x").await?;
    assert_eq!(reply.status, 504);
    assert_eq!(reply.header("writefence-outcome"), "unknown");
    api.until_count("unknown", 1).await?;
    api.server.release();
    until("the server to be done", SOON, async || {
        Ok(api.server.done() == 1)
    })
    .await?;
    Ok(())
}

#[tokio::test]
async fn a_drain_names_the_request_that_keeps_it_waiting_and_force_gives_it_up() -> Result<()> {
    let api = start().await?;
    let mut client = Raw::connect(api.port()).await?;
    let head = "POST /slow?ms=30000 HTTP/1.1\r\nHost: a\r\nX-Request-Id: r-7\r\n";
    client
        .send(format!("{head}Content-Length: 0\r\n\r\n"))
        .await?;
    api.until_count("executing", 1).await?;
    api.fence("reject").await?;
    let drain = api
        .daemon
        .ctl(&["watch-drain", "--max-wait", "500ms"])
        .await?;
    ensure!(drain.code == 4, "{}", drain.text);
    let straggler = &drain.json["stragglers"][0];
    assert_eq!(straggler["kind"], "http");
    assert_eq!(straggler["id"], "r-7");
    assert_eq!(straggler["digest"], "POST /slow");
    assert_eq!(straggler["state"], "executing");
    let args = ["watch-drain", "--max-wait", "1s", "--force"];
    let forced = api.daemon.ctl(&args).await?;
    ensure!(forced.code == 4, "{}", forced.text);
    let reply = client.reply().await?;
    assert_eq!(reply.status, 504);
    api.until_count("executing", 0).await?;
    api.until_count("unknown", 1).await
}

/// HTTP/2 with prior knowledge.
pub(crate) async fn h2_client(port: u16) -> Result<h2::client::SendRequest<bytes::Bytes>> {
    let stream = tokio::net::TcpStream::connect(("127.0.0.1", port)).await?;
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let ready = tokio::time::timeout(SOON, client.ready()).await??;
    Ok(ready)
}
