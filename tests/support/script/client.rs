//! The client that talks by script, and what it writes down.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::{Script, Step};
use crate::eventually::pause;

/// No answer of a script takes this long; what is missing by then does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// Long enough that the peer has read the first part of a write before the second is there.
const BETWEEN: Duration = Duration::from_micros(300);

/// How a write is cut.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Cut {
    /// In one piece.
    Whole,
    /// Byte by byte.
    Bytes,
    /// Once, before this byte.
    Before(usize),
}

/// One connection with its unread bytes.
#[derive(Debug)]
pub struct Talk {
    socket: TcpStream,
    unread: Vec<u8>,
    /// Process id and secret of the cancel key.
    pub key: (i32, Vec<u8>),
    /// The server's greeting, written down.
    pub greeting: Vec<String>,
}

impl Talk {
    /// Connects and logs in with these bytes as the startup packet.
    ///
    /// # Errors
    /// Not connected, or the answer never ends.
    pub async fn start(port: u16, startup: &[u8]) -> Result<Self> {
        let socket = TcpStream::connect(("127.0.0.1", port)).await?;
        socket.set_nodelay(true)?;
        let mut talk = Self {
            socket,
            unread: Vec::new(),
            key: (0, Vec::new()),
            greeting: Vec::new(),
        };
        talk.send(startup, Cut::Whole).await;
        let mut greeting = Vec::new();
        talk.read_until(b"Z", &mut greeting).await?;
        talk.greeting = greeting;
        Ok(talk)
    }

    /// Has a whole conversation and gives what was answered, a line for each message.
    ///
    /// # Errors
    /// The other connection failed.
    pub async fn play(&mut self, script: &Script, cut: Cut, other: &Client) -> Result<Vec<String>> {
        let mut told = Vec::new();
        for step in &script.steps {
            match step {
                Step::Elsewhere(sql) => other.batch_execute(sql).await.context("elsewhere")?,
                Step::Send { bytes, until } => {
                    self.send(bytes, cut).await;
                    self.read_until(until, &mut told).await?;
                }
            }
        }
        Ok(told)
    }

    /// Runs one query and gives its answer.
    ///
    /// # Errors
    /// The answer is not one of the protocol.
    pub async fn query(&mut self, sql: &str) -> Result<Vec<String>> {
        let mut told = Vec::new();
        self.send(&super::message(&format!("Q {sql}"))?, Cut::Whole)
            .await;
        self.read_until(b"Z", &mut told).await?;
        Ok(told)
    }

    /// Writes. That the peer has closed meanwhile is seen when its answer is read.
    pub async fn send(&mut self, bytes: &[u8], cut: Cut) {
        match cut {
            Cut::Before(at) if (1..bytes.len()).contains(&at) => {
                let (first, second) = bytes.split_at(at);
                let _ = self.socket.write_all(first).await;
                pause(BETWEEN).await;
                let _ = self.socket.write_all(second).await;
            }
            Cut::Bytes => {
                for byte in bytes {
                    let _ = self.socket.write_all(std::slice::from_ref(byte)).await;
                }
            }
            Cut::Whole | Cut::Before(_) => {
                let _ = self.socket.write_all(bytes).await;
            }
        }
    }

    /// Reads until messages of these tags came in this order, or until nothing comes any more,
    /// which is written down as well. No message has the tag `.`.
    ///
    /// # Errors
    /// What came is no message.
    pub async fn read_until(&mut self, tags: &[u8], told: &mut Vec<String>) -> Result<()> {
        for wanted in tags {
            loop {
                match timeout(PATIENCE, self.message()).await {
                    Ok(Ok(Some((tag, body)))) => {
                        self.write_down(tag, body, told);
                        if tag == *wanted {
                            break;
                        }
                    }
                    Ok(Ok(None)) => {
                        told.push("(closed)".into());
                        return Ok(());
                    }
                    Ok(Err(error)) => return Err(error),
                    Err(_) => {
                        told.push(format!("(no {} came)", char::from(*wanted)));
                        return Ok(());
                    }
                }
            }
        }
        Ok(())
    }

    async fn message(&mut self) -> Result<Option<(u8, Vec<u8>)>> {
        loop {
            if let Some((&[tag, a, b, c, d], rest)) = self.unread.split_first_chunk::<5>() {
                let length = u32::from_be_bytes([a, b, c, d]) as usize;
                let Some(length) = length.checked_sub(4).filter(|l| *l < 1 << 24) else {
                    bail!("tag {tag} with length {length}");
                };
                if rest.len() >= length {
                    let body = rest[..length].to_vec();
                    self.unread.drain(..length + 5);
                    return Ok(Some((tag, body)));
                }
            }
            // A reset is an end too: the peer closed with bytes of ours unread.
            match self.socket.read_buf(&mut self.unread).await {
                Ok(0) | Err(_) => return Ok(None),
                Ok(_) => {}
            }
        }
    }

    /// Process ids and keys are nobody else's; all other bytes are kept.
    fn write_down(&mut self, tag: u8, body: Vec<u8>, told: &mut Vec<String>) {
        let tag_text = char::from(tag);
        match (tag, body.split_first_chunk::<4>()) {
            (b'K', Some((pid, secret))) => {
                self.key = (i32::from_be_bytes(*pid), secret.to_vec());
                told.push("K".into());
            }
            (b'A', Some((_, rest))) => told.push(format!("A {}", rest.escape_ascii())),
            _ => told.push(format!("{tag_text} {}", body.escape_ascii())),
        }
    }
}
