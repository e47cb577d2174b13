//! HTTPS on both sides, HTTP/2 by ALPN, and a client that leaves without saying so.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result};
use rcgen::{CertifiedKey, generate_simple_self_signed};
use rustls::pki_types::{PrivateKeyDer, ServerName};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use writefence_tests::http::Upstream;
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions};

use crate::http_support::http_port;

struct Tls {
    folder: tempfile::TempDir,
    client: ClientConfig,
    server: ServerConfig,
}

impl Tls {
    fn new() -> Result<Self> {
        let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
        let CertifiedKey { cert, signing_key } = generate_simple_self_signed(names)?;
        let folder = tempfile::tempdir()?;
        fs::write(folder.path().join("cert.pem"), cert.pem())?;
        fs::write(folder.path().join("key.pem"), signing_key.serialize_pem())?;
        let ring = Arc::new(rustls::crypto::ring::default_provider());
        let mut roots = RootCertStore::empty();
        roots.add(cert.der().clone())?;
        let client = ClientConfig::builder_with_provider(Arc::clone(&ring))
            .with_safe_default_protocol_versions()?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let key =
            PrivateKeyDer::try_from(signing_key.serialize_der()).map_err(anyhow::Error::msg)?;
        let mut server = ServerConfig::builder_with_provider(ring)
            .with_safe_default_protocol_versions()?
            .with_no_client_auth()
            .with_single_cert(vec![cert.der().clone()], key)?;
        server.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        Ok(Self {
            folder,
            client,
            server,
        })
    }

    fn path(&self, name: &str) -> String {
        self.folder.path().join(name).display().to_string()
    }

    async fn connect(&self, port: u16, alpn: &[u8]) -> Result<TlsStream<TcpStream>> {
        let mut config = self.client.clone();
        config.alpn_protocols = vec![alpn.to_vec()];
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        let name = ServerName::try_from("localhost")?;
        let connector = TlsConnector::from(Arc::new(config));
        Ok(connector.connect(name, stream).await?)
    }
}

/// Everything over TLS.
async fn start(tls: &Tls) -> Result<(Daemon, Upstream, Cluster)> {
    let cluster = Cluster::create("a", &Options::default()).await?;
    let server = Upstream::start_tls("a", Arc::new(tls.server.clone())).await?;
    let mut options = DaemonOptions::new(&[&cluster]);
    let mut http = HttpOptions::new(&[])?;
    let (cert, key) = (tls.path("cert.pem"), tls.path("key.pem"));
    let origin = format!("https://127.0.0.1:{}", server.port());
    http.regions = vec![format!("http = \"{origin}\"\nhttp_ca = \"{cert}\"\n")];
    http.keys = format!("tls.cert = \"{cert}\"\ntls.key = \"{key}\"");
    options.front = Some(http);
    // A fence does not wait long for requests before it fences their SQL.
    "100ms".clone_into(&mut options.http_deadline);
    let daemon = Daemon::start(options).await?;
    daemon.wait_open().await?;
    Ok((daemon, server, cluster))
}

#[tokio::test]
async fn http2_is_agreed_on_with_clients_and_with_servers() -> Result<()> {
    let tls = Tls::new()?;
    let (daemon, server, _cluster) = start(&tls).await?;
    let stream = tls.connect(http_port(&daemon), b"h2").await?;
    assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
    let (client, connection) = h2::client::handshake(stream).await?;
    tokio::spawn(async move {
        let _ = connection.await;
    });
    let mut client = client.ready().await?;
    for path in ["https://localhost/one", "https://localhost/two"] {
        let request = http::Request::post(path).body(())?;
        let answer = client.send_request(request, true)?.0.await?;
        assert_eq!(answer.status(), 200);
    }
    let seen = server.seen();
    assert!(seen.iter().all(|one| one.is_http2), "{seen:?}");
    assert_eq!(seen[0].headers["x-forwarded-proto"], "https");
    assert_eq!(seen.len(), 2);
    Ok(())
}

#[tokio::test]
async fn a_tls_client_that_leaves_without_a_word_leaves_its_write_counted() -> Result<()> {
    let tls = Tls::new()?;
    let (daemon, server, _cluster) = start(&tls).await?;
    let mut client = tls.connect(http_port(&daemon), b"http/1.1").await?;
    let post = "POST /orders?gate=1 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi";
    client.write_all(post.as_bytes()).await?;
    client.flush().await?;
    until_count(&daemon, "executing").await?;
    // The socket below is closed; TLS has no chance to say so.
    drop(client.into_inner().0);
    until_count(&daemon, "orphaned").await?;
    let fence = ["prepare", "--primary", "a", "--reason", "t", "--reject"];
    daemon.ctl(&fence).await?.ok()?;
    let waits = daemon.ctl(&["watch-drain", "--max-wait", "300ms"]).await?;
    assert_eq!(waits.code, 4, "{}", waits.text);
    server.release();
    daemon
        .ctl(&["watch-drain", "--max-wait", "10s"])
        .await?
        .ok()?;
    assert_eq!(server.done(), 1);
    Ok(())
}

async fn until_count(daemon: &Daemon, what: &str) -> Result<()> {
    writefence_tests::eventually::until(what, crate::http_support::SOON, async || {
        let status = daemon.status().await?;
        let n = status["in_flight"][what].as_u64().context("a count")?;
        Ok(n == 1)
    })
    .await
}
