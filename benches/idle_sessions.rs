//! What a PostgreSQL session in rest costs in memory, with its server side, beside sessions that work.
//!
//! Resident memory of the process before and after thousands of logins, each of which has run a
//! statement; divided by their number. Buffers that only work needs show in the second figure.

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use clap::Parser;
use rustix::process::{Pid, Resource, Rlimit, getrlimit, setrlimit};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, RootCertStore};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Duration, Instant, sleep};
use tokio_rustls::TlsConnector;
use writefence_benches::contender::{Contender, find_pgbouncer, version};
use writefence_benches::{Options, build_daemon, figure, header, table};
use writefence_tests::Cluster;
use writefence_tests::pki::{Pki, Valid};
use writefence_tests::postgres::Options as ServerOptions;

/// Sessions in rest, and those that work beside them.
const IDLE: u32 = 5_000;
const ACTIVE: u32 = 500;

/// Logins before anything counts: what all share is made by the first ones.
const WARM_UP: u32 = 50;

/// What a process that has just worked needs to come to rest.
const REST: Duration = Duration::from_secs(2);

/// What asks a server for TLS.
const SSL_REQUEST: &[u8] = &[0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f];

const READY: &[u8] = b"Z\0\0\0\x05I";

#[tokio::main(flavor = "current_thread")]
async fn main() -> Result<()> {
    let options = Options::parse();
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    setrlimit(Resource::Nofile, raised).context("raise the limit of open files")?;
    build_daemon()?;
    // Dropped half way, the measurement takes its processes and folders along.
    tokio::select! {
        done = compare(&options) => done,
        _ = tokio::signal::ctrl_c() => bail!("interrupted: everything was stopped"),
    }
}

async fn compare(options: &Options) -> Result<()> {
    println!("{}", header(options)?);
    let most = (IDLE + ACTIVE + WARM_UP + 50).to_string();
    let pki = Pki::new()?;
    for name in ["server", "front"] {
        pki.issue(name, name, &["localhost", "127.0.0.1"], Valid::Long)?;
    }
    let mut settings = pki.server("server");
    settings.push(("max_connections".to_owned(), most));
    settings.push(("shared_buffers".to_owned(), "16MB".to_owned()));
    let server = ServerOptions {
        settings,
        ..ServerOptions::default()
    };
    let cluster = Cluster::create("a", &server).await?;
    let mut rows = Vec::new();
    if let Some(program) = find_pgbouncer() {
        println!("{}, session mode.", version(&program));
        let contender = Contender::pgbouncer(&program, &cluster).await?;
        rows.push(measured(&contender, None, options).await?);
    }
    let contender = Contender::writefence(&cluster).await?;
    rows.push(measured(&contender, None, options).await?);
    drop(contender);
    let contender = Contender::writefence_tls(&cluster, &pki).await?;
    let tls = Some(connector(&pki)?);
    rows.push(measured(&contender, tls, options).await?);
    let head = [
        "contender",
        "KiB for each of 5000 in rest",
        "MiB with 500 at work",
        "queries/s of these",
    ];
    println!("\n{}", table(&head, &rows));
    Ok(())
}

async fn measured(contender: &Contender, tls: Tls, options: &Options) -> Result<Vec<String>> {
    let pid = contender.pid.context("it is a process")?;
    let (port, tls) = (contender.port, tls.as_ref());
    let _first = sessions(port, tls, WARM_UP).await?;
    sleep(REST).await;
    let before = resident(pid)?;
    let _idle = sessions(port, tls, IDLE).await?;
    sleep(REST).await;
    let after = resident(pid)?;
    let each = after.saturating_sub(before) as f64 / 1024.0 / f64::from(IDLE);
    let active = sessions(port, tls, ACTIVE).await?;
    let until = Instant::now() + Duration::from_secs(u64::from(options.secs));
    let work = active
        .into_iter()
        .map(|client| tokio::spawn(works(client, until)));
    let work: Vec<_> = work.collect();
    let mut queries = 0;
    for one in work {
        queries += one.await??;
    }
    let total = resident(pid)? as f64 / 1024.0 / 1024.0;
    let rate = f64::from(queries) / f64::from(options.secs);
    Ok(vec![
        contender.name.to_owned(),
        figure(each),
        figure(total),
        figure(rate),
    ])
}

/// How a client speaks TLS, where it does.
type Tls = Option<TlsConnector>;

/// A client's connection.
type Client = Box<dyn Wire>;

trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// Trusts what `pki` has issued.
fn connector(pki: &Pki) -> Result<TlsConnector> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(pki.path("ca.pem"))?)?;
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(TlsConnector::from(Arc::new(config)))
}

async fn works(mut client: Client, until: Instant) -> Result<u32> {
    let mut queries = 0;
    while Instant::now() < until {
        ask(&mut client).await?;
        queries += 1;
    }
    Ok(queries)
}

async fn sessions(port: u16, tls: Option<&TlsConnector>, many: u32) -> Result<Vec<Client>> {
    let mut all = Vec::new();
    for n in 0..many {
        let client = login(port, tls).await;
        all.push(client.with_context(|| format!("session {n}"))?);
    }
    Ok(all)
}

/// Logs in and has one statement answered.
async fn login(port: u16, tls: Option<&TlsConnector>) -> Result<Client> {
    let mut socket = TcpStream::connect(("127.0.0.1", port)).await?;
    let mut client: Client = match tls {
        None => Box::new(socket),
        Some(tls) => {
            socket.write_all(SSL_REQUEST).await?;
            ensure!(socket.read_u8().await? == b'S', "TLS was refused");
            Box::new(
                tls.connect(ServerName::try_from("localhost")?, socket)
                    .await?,
            )
        }
    };
    let body = b"\0\x03\0\0user\0postgres\0database\0postgres\0\0";
    let length = u32::try_from(body.len() + 4)?;
    client.write_all(&length.to_be_bytes()).await?;
    client.write_all(body).await?;
    ready(&mut client).await?;
    ask(&mut client).await?;
    Ok(client)
}

async fn ask(client: &mut Client) -> Result<()> {
    client.write_all(b"Q\0\0\0\x0dSELECT 1\0").await?;
    ready(client).await
}

async fn ready(client: &mut Client) -> Result<()> {
    client.flush().await?;
    let mut got = Vec::new();
    while !got.ends_with(READY) {
        let more = client.read_buf(&mut got).await?;
        ensure!(more > 0, "it closed: {}", got.escape_ascii());
    }
    Ok(())
}

/// Resident bytes of a process.
fn resident(pid: Pid) -> Result<u64> {
    let path = format!("/proc/{}/status", pid.as_raw_nonzero());
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    let kib = line.and_then(|line| line.split_whitespace().nth(1));
    Ok(kib.context("VmRSS")?.parse::<u64>()? * 1024)
}
