//! A Redis server, and as much of its protocol as a test of the TCP front needs.

use std::path::Path;
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::eventually::{eventually, until};
use crate::ports::free_port;
use crate::process::{Process, Signal};

/// A start, or a full synchronisation of an empty server, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// An answer of a server that is there.
const ANSWER: Duration = Duration::from_secs(30);

/// One server without persistence; it goes when dropped.
#[derive(Debug)]
pub struct Redis {
    port: u16,
    process: Process,
    _folder: TempDir,
}

impl Redis {
    /// Starts a primary, or the replica of another.
    ///
    /// # Errors
    /// The program is missing, or it does not answer.
    pub async fn start(primary: Option<&Self>) -> Result<Self> {
        let folder = tempfile::Builder::new()
            .prefix("writefence-redis-")
            .tempdir()?;
        let port = free_port()?;
        let mut command = Command::new("redis-server");
        command.args(["--port", &port.to_string(), "--bind", "127.0.0.1"]);
        command
            .args(["--save", "", "--appendonly", "no", "--dir"])
            .arg(folder.path());
        command.args(["--repl-diskless-sync-delay", "0"]);
        if let Some(primary) = primary {
            command.args(["--replicaof", "127.0.0.1", &primary.port.to_string()]);
        }
        let log = folder.path().join("log");
        let process = Process::spawn("redis-server", command, &log, Signal::TERM)
            .context("apt-get install redis-server, as `.ci/setup test` does")?;
        let server = Self {
            port,
            process,
            _folder: folder,
        };
        eventually("Redis to answer", PATIENCE, async || {
            let mut client = RedisClient::connect(port).await?;
            Ok((client.ask(&["PING"]).await? == "PONG").then_some(()))
        })
        .await
        .with_context(|| crate::process::tail(Path::new(&log)))?;
        Ok(server)
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// A client of its own.
    ///
    /// # Errors
    /// It cannot be reached.
    pub async fn client(&self) -> Result<RedisClient> {
        RedisClient::connect(self.port).await
    }

    /// Waits until it has everything its primary has.
    ///
    /// # Errors
    /// It has not after half a minute.
    pub async fn wait_caught_up(&self, primary: &Self) -> Result<()> {
        until("the replica to have caught up", PATIENCE, async || {
            let (a, b) = (primary.offset().await?, self.offset().await?);
            let linked = self.info("master_link_status").await?;
            Ok(linked == "up" && a == b)
        })
        .await
    }

    /// Makes it a primary.
    ///
    /// # Errors
    /// It does not do so.
    pub async fn promote(&self) -> Result<()> {
        let said = self
            .client()
            .await?
            .ask(&["REPLICAOF", "NO", "ONE"])
            .await?;
        ensure!(said == "OK", "REPLICAOF NO ONE: {said}");
        Ok(())
    }

    /// SIGKILL.
    ///
    /// # Errors
    /// It survived.
    pub fn kill(&mut self) -> Result<()> {
        self.process.kill_all()
    }

    async fn offset(&self) -> Result<String> {
        self.info("master_repl_offset").await
    }

    async fn info(&self, field: &str) -> Result<String> {
        let info = self.client().await?.ask(&["INFO", "replication"]).await?;
        let line = info
            .lines()
            .find_map(|line| line.strip_prefix(field)?.strip_prefix(':'));
        Ok(line.unwrap_or_default().trim().to_owned())
    }
}

/// A connection to a Redis server, directly or through a proxy.
#[derive(Debug)]
pub struct RedisClient {
    stream: TcpStream,
    inbox: Vec<u8>,
}

impl RedisClient {
    /// Connects to a port on loopback.
    ///
    /// # Errors
    /// Nobody is there.
    pub async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self {
            stream,
            inbox: Vec::new(),
        })
    }

    /// Sends a command and waits for its answer as text; an error of the server's is an error.
    ///
    /// # Errors
    /// The connection ended, or the server refused.
    pub async fn ask(&mut self, words: &[&str]) -> Result<String> {
        self.send(words).await?;
        self.answer().await
    }

    /// Sends a command.
    ///
    /// # Errors
    /// The connection ended.
    pub async fn send(&mut self, words: &[&str]) -> Result<()> {
        let mut out = format!("*{}\r\n", words.len());
        for word in words {
            out.push_str(&format!("${}\r\n{word}\r\n", word.len()));
        }
        Ok(self.stream.write_all(out.as_bytes()).await?)
    }

    /// The next answer.
    ///
    /// # Errors
    /// As [`RedisClient::ask`].
    pub async fn answer(&mut self) -> Result<String> {
        tokio::time::timeout(ANSWER, self.read_answer())
            .await
            .context("no answer")?
    }

    async fn read_answer(&mut self) -> Result<String> {
        let line = self.line().await?;
        let (kind, rest) = line.split_at(line.len().min(1));
        match kind {
            "+" | ":" => Ok(rest.to_owned()),
            "-" => bail!("refused: {rest}"),
            "$" => {
                let length: i64 = rest.parse()?;
                let Ok(length) = usize::try_from(length) else {
                    return Ok(String::new());
                };
                while self.inbox.len() < length + 2 {
                    self.more().await?;
                }
                let text = self.inbox.drain(..length + 2).take(length).collect();
                Ok(String::from_utf8(text)?)
            }
            _ => bail!("an answer that this client does not know: {line:?}"),
        }
    }

    /// Waits for the server, or the proxy, to close.
    ///
    /// # Errors
    /// It says something instead, or nothing for half a minute.
    pub async fn closed(&mut self) -> Result<()> {
        let read = tokio::time::timeout(ANSWER, self.stream.read_buf(&mut self.inbox));
        match read.await.context("the connection stays open")? {
            Ok(0) | Err(_) => Ok(()),
            Ok(_) => bail!(
                "something was said: {:?}",
                String::from_utf8_lossy(&self.inbox)
            ),
        }
    }

    async fn line(&mut self) -> Result<String> {
        loop {
            if let Some(end) = self.inbox.windows(2).position(|two| two == b"\r\n") {
                let line = self.inbox.drain(..end + 2).take(end).collect();
                return Ok(String::from_utf8(line)?);
            }
            self.more().await?;
        }
    }

    async fn more(&mut self) -> Result<()> {
        let n = self.stream.read_buf(&mut self.inbox).await?;
        ensure!(n > 0, "the connection was closed");
        Ok(())
    }
}
