//! A conversation in raw messages, and its transcript: what drivers put together or hide.

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::startup;

/// A client that sends what a test says, byte by byte.
pub(crate) struct Talk {
    stream: TcpStream,
    got: Vec<u8>,
}

impl Talk {
    /// Logs in, through the daemon or to a server.
    pub(crate) async fn login(port: u16) -> Result<Self> {
        let mut stream = TcpStream::connect(("127.0.0.1", port)).await?;
        stream.set_nodelay(true)?;
        stream.write_all(&startup()).await?;
        let mut talk = Self {
            stream,
            got: Vec::new(),
        };
        talk.answers(1).await?;
        Ok(talk)
    }

    /// Sends messages and does not wait.
    pub(crate) async fn send(&mut self, messages: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(messages).await?)
    }

    /// Sends messages that are answered with one ReadyForQuery, and returns the answers.
    pub(crate) async fn say(&mut self, messages: &[u8]) -> Result<Vec<String>> {
        self.send(messages).await?;
        self.answers(1).await
    }

    /// Sends a simple query.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<Vec<String>> {
        self.say(&query(sql)).await
    }

    /// Answers up to the n-th ReadyForQuery, one word each: the message's tag, and of some what
    /// matters of their content.
    pub(crate) async fn answers(&mut self, mut readies: usize) -> Result<Vec<String>> {
        let mut answers = Vec::new();
        while readies > 0 {
            let (tag, body) = self.message().await?;
            let text = |bytes: &[u8]| {
                String::from_utf8_lossy(bytes.split(|b| *b == 0).next().unwrap_or_default())
                    .into_owned()
            };
            answers.push(match tag {
                b'S' | b'N' | b'R' | b'K' => continue,
                b'Z' => {
                    readies -= 1;
                    format!("Z {}", char::from(body[0]))
                }
                b'C' => format!("C {}", text(&body)),
                b'E' => {
                    let at = body
                        .windows(2)
                        .position(|w| w == b"\0C")
                        .context("no SQLSTATE")?;
                    format!("E {}", text(&body[at + 2..]))
                }
                // The first column, where it is short.
                b'D' => format!("D {}", text(&[&body[6..], b"\0"].concat())),
                b'T' => format!("T {}", text(&body[2..])),
                tag => char::from(tag).to_string(),
            });
        }
        Ok(answers)
    }

    async fn message(&mut self) -> Result<(u8, Vec<u8>)> {
        loop {
            if let Some((&[tag, a, b, c, d], rest)) = self.got.split_first_chunk::<5>() {
                let len = usize::try_from(u32::from_be_bytes([a, b, c, d]))? - 4;
                if rest.len() >= len {
                    let body = rest[..len].to_vec();
                    self.got.drain(..5 + len);
                    return Ok((tag, body));
                }
            }
            let more = self.stream.read_buf(&mut self.got);
            let n = tokio::time::timeout(std::time::Duration::from_secs(30), more)
                .await
                .context("no answer")??;
            ensure!(n > 0, "the connection was closed");
        }
    }
}

fn put(out: &mut Vec<u8>, tag: u8, body: &[&[u8]]) {
    let body = body.concat();
    out.push(tag);
    let len = u32::try_from(body.len() + 4).unwrap_or(0);
    out.extend_from_slice(&len.to_be_bytes());
    out.extend_from_slice(&body);
}

/// A Query message.
pub(crate) fn query(sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'Q', &[sql.as_bytes(), b"\0"]);
    out
}

/// A Parse message.
pub(crate) fn parse(name: &str, sql: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(
        &mut out,
        b'P',
        &[name.as_bytes(), b"\0", sql.as_bytes(), b"\0\0\0"],
    );
    out
}

/// Bind of the unnamed portal, Describe and Execute.
pub(crate) fn run(name: &str) -> Vec<u8> {
    let mut out = Vec::new();
    put(&mut out, b'B', &[b"\0", name.as_bytes(), b"\0\0\0\0\0\0\0"]);
    put(&mut out, b'D', &[b"P\0"]);
    put(&mut out, b'E', &[b"\0\0\0\0\0"]);
    out
}

/// A Sync message.
pub(crate) fn sync() -> Vec<u8> {
    vec![b'S', 0, 0, 0, 4]
}

/// Statements in the extended protocol, with one Sync at the end.
pub(crate) fn pipeline(statements: &[&str]) -> Vec<u8> {
    let mut out = Vec::new();
    for sql in statements {
        out.extend_from_slice(&parse("", sql));
        out.extend_from_slice(&run(""));
    }
    out.extend_from_slice(&sync());
    out
}

/// Both ways to send statements that have no semicolon inside.
pub(crate) fn both_ways(statements: &str) -> [Vec<u8>; 2] {
    let pieces: Vec<&str> = statements.split("; ").collect();
    [query(statements), pipeline(&pieces)]
}
