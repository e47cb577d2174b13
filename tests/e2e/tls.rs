//! TLS on both legs, as libpq's programs and as bytes.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use writefence_tests::eventually::until;
use writefence_tests::pki::{Pki, Valid};
use writefence_tests::postgres::skipped;

use crate::secure::Secure;
use crate::support::startup;

const ENCRYPTED: &str = "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()";

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_sslmode_meets_what_the_listener_and_the_certificate_say() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let allow = |pki: &Pki, verifier: &str, options: &mut writefence_tests::DaemonOptions| {
        Secure::scram(pki, verifier, options)?;
        options.listen += "tls.mode = \"allow\"\n";
        Ok(())
    };
    let world = Secure::start(allow).await?;
    for (mode, encrypted) in [
        ("disable", false),
        ("allow", false),
        ("prefer", true),
        ("require", true),
        ("verify-ca", true),
        ("verify-full", true),
    ] {
        let said = world
            .answer(&format!("sslmode={mode}"), "\\conninfo")
            .await?;
        ensure!(said.contains("SSL") == encrypted, "{mode}: {said}");
        // The other leg has a configuration of its own.
        let upstream = world.answer(&format!("sslmode={mode}"), ENCRYPTED).await?;
        ensure!(upstream == "t", "{mode}: upstream is plain");
    }
    let other = Pki::new()?;
    let wrong = format!(
        "sslmode=verify-ca sslrootcert={}",
        other.path("ca.pem").display()
    );
    let said = world.refusal(&wrong).await?;
    ensure!(said.contains("certificate verify failed"), "{said}");
    let said = world
        .refusal("sslmode=verify-full host=elsewhere.test")
        .await?;
    ensure!(said.contains("does not match host name"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_listener_that_requires_tls_refuses_plain_sessions_in_words() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(Secure::scram).await?;
    let said = world.refusal("sslmode=disable").await?;
    ensure!(said.contains("encrypted connections only"), "{said}");
    ensure!(world.answer("sslmode=require", "SELECT 1").await? == "1");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_renewed_certificate_is_shown_to_newcomers_and_old_sessions_run_on() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(Secure::scram).await?;
    let full = "sslmode=verify-full";
    let (long, renewed) =
        tokio::join!(world.answer(full, "SELECT pg_sleep(6), 'through'"), async {
            ensure!(world.answer(full, "SELECT 1").await? == "1");
            let sleeps = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'PgSleep'";
            until("the old session", Duration::from_secs(30), async || {
                Ok(world.a.value(sleeps).await? == "1")
            })
            .await?;
            world
                .pki
                .issue("front", "localhost", &["localhost"], Valid::Expired)?;
            until("the new certificate", Duration::from_secs(30), async || {
                let output = world.psql(full, "SELECT 1").await?;
                let said = String::from_utf8_lossy(&output.stderr);
                Ok(said.contains("certificate verify failed"))
            })
            .await?;
            world
                .pki
                .issue("front", "localhost", &["localhost"], Valid::Long)?;
            until(
                "the next certificate",
                Duration::from_secs(30),
                async || Ok(world.psql(full, "SELECT 1").await?.status.success()),
            )
            .await
        });
    renewed?;
    ensure!(long?.ends_with("through"));
    Ok(())
}

/// Reads what comes up to the end of a login, or of the connection.
async fn heard(stream: &mut (impl tokio::io::AsyncRead + Unpin)) -> Vec<u8> {
    let mut got = Vec::new();
    let read = async {
        while !got.ends_with(b"Z\0\0\0\x05I") {
            if stream.read_buf(&mut got).await.unwrap_or(0) == 0 {
                break;
            }
        }
    };
    let _ends_or_not = tokio::time::timeout(Duration::from_secs(20), read).await;
    got
}

const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

fn connector(world: &Secure, alpn: &[&[u8]]) -> Result<TlsConnector> {
    let mut roots = rustls::RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(world.pki.path("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let mut config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.to_vec()).collect();
    Ok(TlsConnector::from(Arc::new(config)))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn direct_tls_names_its_protocol_and_nothing_plain_passes_for_encrypted() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let trusting = |pki: &Pki, _: &str, options: &mut writefence_tests::DaemonOptions| {
        options.listen = format!("auth = \"trust\"\n{}", Secure::front(pki));
        Ok(())
    };
    let world = Secure::start(trusting).await?;
    let connect = || TcpStream::connect(("127.0.0.1", world.daemon.port()));
    let name = || ServerName::try_from("localhost").context("a name");
    let named = connector(&world, &[b"postgresql"])?;
    let unnamed = connector(&world, &[])?;
    // As libpq 17 does it with sslnegotiation=direct.
    let mut direct = named.connect(name()?, connect().await?).await?;
    ensure!(direct.get_ref().1.alpn_protocol() == Some(&b"postgresql"[..]));
    direct.write_all(&startup()).await?;
    let said = heard(&mut direct).await;
    ensure!(said.ends_with(b"Z\0\0\0\x05I"), "{}", said.escape_ascii());
    // Asked for first, with or without a name.
    for connector in [&named, &unnamed] {
        let mut socket = connect().await?;
        socket.write_all(&SSL_REQUEST).await?;
        ensure!(socket.read_u8().await? == b'S');
        let mut stream = connector.connect(name()?, socket).await?;
        stream.write_all(&startup()).await?;
        let said = heard(&mut stream).await;
        ensure!(said.ends_with(b"Z\0\0\0\x05I"), "{}", said.escape_ascii());
    }
    let mut nameless = unnamed.connect(name()?, connect().await?).await?;
    nameless.write_all(&startup()).await?;
    let said = heard(&mut nameless).await;
    ensure!(
        said.starts_with(b"E") && String::from_utf8_lossy(&said).contains("ALPN"),
        "{}",
        said.escape_ascii()
    );
    let foreign = connector(&world, &[b"http/1.1"])?;
    ensure!(foreign.connect(name()?, connect().await?).await.is_err());
    // A startup packet behind the request, sent before its answer.
    let mut early = connect().await?;
    early
        .write_all(&[&SSL_REQUEST[..], &startup()].concat())
        .await?;
    let said = heard(&mut early).await;
    let text = String::from_utf8_lossy(&said).into_owned();
    ensure!(
        !said.starts_with(b"S") && text.contains("plain bytes"),
        "{text}"
    );
    // Twice.
    let mut socket = connect().await?;
    socket.write_all(&SSL_REQUEST).await?;
    ensure!(socket.read_u8().await? == b'S');
    let mut stream = named.connect(name()?, socket).await?;
    stream.write_all(&SSL_REQUEST).await?;
    let said = heard(&mut stream).await;
    ensure!(
        String::from_utf8_lossy(&said).contains("SSL was asked for twice"),
        "{}",
        said.escape_ascii()
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_cancel_reaches_its_statement_through_encrypted_legs() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let world = Secure::start(Secure::scram).await?;
    let mut command = world.a.program("psql");
    let base = format!(
        "host=127.0.0.1 port={} dbname=postgres user=app password=pencil sslmode=require",
        world.daemon.port()
    );
    command.args(["-X", "-d", &base, "-c", "SELECT pg_sleep(30)"]);
    command.stderr(std::process::Stdio::piped());
    command.stdout(std::process::Stdio::piped());
    let child = tokio::process::Command::from(command).spawn()?;
    let pid = child.id().context("psql runs")?;
    until("the statement", Duration::from_secs(30), async || {
        let busy = "SELECT count(*) FROM pg_stat_activity WHERE query = 'SELECT pg_sleep(30)'";
        Ok(world.a.value(busy).await? == "1")
    })
    .await?;
    let pid = i32::try_from(pid)?;
    let pid = rustix::process::Pid::from_raw(pid).context("a pid")?;
    rustix::process::kill_process(pid, rustix::process::Signal::INT)?;
    let output = tokio::time::timeout(Duration::from_secs(30), child.wait_with_output()).await??;
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        said.contains("canceling statement due to user request"),
        "{said}"
    );
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_whose_certificate_does_not_fit_is_not_logged_in_to() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let other = Pki::new()?;
    let mistaken = |pki: &Pki, verifier: &str, options: &mut writefence_tests::DaemonOptions| {
        Secure::scram(pki, verifier, options)
    };
    let mut world = Secure::start(mistaken).await?;
    ensure!(world.answer("sslmode=require", "SELECT 1").await? == "1");
    // The servers' certificate is renewed by a CA that the daemon does not know.
    other.issue("server", "localhost", &["127.0.0.1"], Valid::Long)?;
    for end in ["key", "pem"] {
        let name = format!("server.{end}");
        let text = std::fs::read_to_string(other.path(&name))?;
        world.pki.secret(&name, &text)?;
    }
    world.a.stop().await?;
    world.a.start().await?;
    let said = world.refusal("sslmode=require").await?;
    ensure!(said.contains("UnknownIssuer"), "{said}");
    Ok(())
}
