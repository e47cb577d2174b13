//! What the end-to-end tests share: a pair of servers with the daemon in front.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio_postgres::Client;
use writefence_tests::eventually::until;
use writefence_tests::postgres::{self, Options};
use writefence_tests::{Cluster, Daemon, DaemonOptions, process};

/// A primary `a`, its standby `b`, and the daemon.
pub(crate) struct Pair {
    // Dropped in this order: the daemon before what it watches.
    pub(crate) daemon: Daemon,
    pub(crate) a: Cluster,
    pub(crate) b: Cluster,
}

impl Pair {
    pub(crate) async fn start(tune: impl FnOnce(&mut DaemonOptions)) -> Result<Self> {
        let a = Cluster::create("a", &Options::default()).await?;
        a.query("CREATE TABLE t (a int)").await?;
        let b = a.standby("b").await?;
        let mut options = DaemonOptions::new(&[&a, &b]);
        tune(&mut options);
        let daemon = Daemon::start(options).await?;
        daemon
            .wait_open()
            .await
            .with_context(|| process::tail(&daemon.log()))?;
        Ok(Self { daemon, a, b })
    }

    /// A client of the daemon.
    pub(crate) async fn client(&self) -> Result<Client> {
        Ok(postgres::connect(self.daemon.port(), "postgres", "postgres").await?)
    }

    /// A command that must end with this exit code.
    pub(crate) async fn ctl(&self, code: i32, args: &[&str]) -> Result<Value> {
        let answer = self.daemon.ctl(args).await?;
        let log = process::tail(&self.daemon.log());
        ensure!(
            answer.code == code,
            "{args:?}: exit {} instead of {code}\n{}\nlog:\n{log}",
            answer.code,
            answer.text
        );
        Ok(answer.json)
    }

    /// The only group in `status`.
    pub(crate) async fn group(&self) -> Result<Value> {
        self.daemon.status().await
    }

    /// Waits until this many writes are held.
    pub(crate) async fn until_held(&self, n: u64) -> Result<()> {
        until(
            "the write to be held",
            Duration::from_secs(15),
            async || Ok(self.group().await?["in_flight"]["held"].as_u64() == Some(n)),
        )
        .await
    }

    /// The value of a metric, of the only group.
    pub(crate) async fn metric(&self, name: &str) -> Result<String> {
        let page = page(&self.daemon, "/metrics").await?;
        let line = page.lines().find(|line| line.starts_with(name));
        let value = line.and_then(|line| line.split_whitespace().last());
        Ok(value
            .with_context(|| format!("{name} is not in\n{page}"))?
            .to_owned())
    }

    /// How many rows `t` has, asked at the server itself.
    pub(crate) async fn rows(&self, at: &Cluster) -> Result<String> {
        at.value("SELECT count(*) FROM t").await
    }
}

/// Keeps statements waiting that ask for it, for as long as a test needs them to be under way.
pub(crate) struct Gate(Client);

impl Gate {
    /// What a statement asks for: a function of no value, in the place of a `pg_sleep`.
    pub(crate) const WAIT: &str = "pg_advisory_xact_lock_shared(4711)";

    /// Who asks from now on waits.
    pub(crate) async fn shut(server: &Cluster) -> Result<Self> {
        let client = server.connect("postgres", "postgres").await?;
        client
            .batch_execute("SELECT pg_advisory_lock(4711)")
            .await?;
        Ok(Self(client))
    }

    /// Whoever waits goes on.
    pub(crate) async fn open(self) -> Result<()> {
        let unlocked = value(&self.0, "SELECT pg_advisory_unlock(4711)").await?;
        ensure!(unlocked == "t", "it was not shut");
        Ok(())
    }
}

/// The body of a page of metrics and health.
pub(crate) async fn page(daemon: &Daemon, path: &str) -> Result<String> {
    let mut stream = TcpStream::connect(("127.0.0.1", daemon.admin_port())).await?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;
    let mut page = String::new();
    stream.read_to_string(&mut page).await?;
    let body = page.split_once("\r\n\r\n").map(|(_, body)| body.to_owned());
    body.context("an answer with a body")
}

/// The first value of the first row; empty when there is none.
pub(crate) async fn value(client: &Client, sql: &str) -> Result<String> {
    let rows = client.simple_query(sql).await?;
    let found = rows.iter().find_map(|m| match m {
        tokio_postgres::SimpleQueryMessage::Row(row) => row.get(0).map(str::to_owned),
        _ => None,
    });
    Ok(found.unwrap_or_default())
}

/// SQLSTATE of an error; empty when the server said none.
pub(crate) fn sqlstate(error: &tokio_postgres::Error) -> String {
    error
        .code()
        .map(|c| c.code().to_owned())
        .unwrap_or_default()
}

/// A client that can leave at any moment, which a driver does not.
pub(crate) struct Raw(pub(crate) TcpStream);

impl Raw {
    /// Logs in.
    pub(crate) async fn login(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&startup()).await?;
        let mut got = Vec::new();
        while !got.ends_with(b"Z\0\0\0\x05I") {
            ensure!(
                stream.read_buf(&mut got).await? > 0,
                "the login was refused"
            );
        }
        Ok(Self(stream))
    }

    /// Sends a simple query and does not wait.
    pub(crate) async fn send(&mut self, sql: &str) -> Result<()> {
        let mut message = vec![b'Q'];
        message.extend_from_slice(&u32::try_from(sql.len() + 5)?.to_be_bytes());
        message.extend_from_slice(sql.as_bytes());
        message.push(0);
        Ok(self.0.write_all(&message).await?)
    }
}

/// A startup packet.
pub(crate) fn startup() -> Vec<u8> {
    startup_of("postgres", "postgres")
}

/// A startup packet of this user for this database.
pub(crate) fn startup_of(user: &str, database: &str) -> Vec<u8> {
    let body = format!("\0\x03\0\0user\0{user}\0database\0{database}\0\0");
    let mut out = u32::try_from(body.len() + 4)
        .unwrap_or(0)
        .to_be_bytes()
        .to_vec();
    out.extend_from_slice(body.as_bytes());
    out
}
