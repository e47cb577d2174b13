//! A client that says the protocol message by message, and leaves where it likes.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::support::startup;

/// An answer that takes longer does not come.
const PATIENCE: Duration = Duration::from_secs(30);

/// See the module.
pub(crate) struct Wire {
    stream: TcpStream,
    inbox: Vec<u8>,
    /// What is to go out in one piece.
    batch: Option<Vec<u8>>,
}

/// A message of the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Frame {
    pub(crate) tag: char,
    pub(crate) body: Vec<u8>,
}

impl Frame {
    /// A field of an error or a notice.
    pub(crate) fn field(&self, code: u8) -> Option<String> {
        let mut fields = self.body.split(|b| *b == 0);
        let found = fields.find(|f| f.first() == Some(&code))?;
        Some(String::from_utf8_lossy(found.get(1..)?).into_owned())
    }
}

impl Wire {
    /// Logs in.
    pub(crate) async fn login(port: u16) -> Result<Self> {
        let stream = TcpStream::connect(("127.0.0.1", port)).await?;
        // Or a message would wait for the answer to the one before.
        stream.set_nodelay(true)?;
        let mut wire = Self {
            stream,
            inbox: Vec::new(),
            batch: None,
        };
        wire.stream.write_all(&startup()).await?;
        wire.until_ready().await?;
        Ok(wire)
    }

    /// Sends a message.
    pub(crate) async fn say(&mut self, tag: u8, body: &[u8]) -> Result<()> {
        let message = message(tag, body);
        if let Some(batch) = &mut self.batch {
            batch.extend_from_slice(&message);
            return Ok(());
        }
        self.raw(&message).await
    }

    /// Keeps what is said from now on, to go out in one piece.
    pub(crate) fn gather(&mut self) {
        self.batch = Some(Vec::new());
    }

    /// Sends what was gathered. The daemon reads it at once, and so passes all of it or nothing.
    pub(crate) async fn send_gathered(&mut self) -> Result<()> {
        let batch = self.batch.take().unwrap_or_default();
        self.raw(&batch).await
    }

    /// Sends bytes as they are.
    pub(crate) async fn raw(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// Sends a simple query.
    pub(crate) async fn query(&mut self, sql: &str) -> Result<()> {
        self.say(b'Q', &text(sql)).await
    }

    /// Sends a simple query and reads its answer.
    pub(crate) async fn ask(&mut self, sql: &str) -> Result<Vec<Frame>> {
        self.query(sql).await?;
        self.until_ready().await
    }

    /// Parse, Bind and Execute of a statement, in the unnamed ones; 0 rows are all.
    pub(crate) async fn run(&mut self, sql: &str, rows: i32) -> Result<()> {
        let parse = [&b"\0"[..], &text(sql), &[0, 0]].concat();
        self.say(b'P', &parse).await?;
        self.say(b'B', &[0, 0, 0, 0, 0, 0, 0, 0]).await?;
        self.execute(rows).await
    }

    /// Execute of the unnamed portal.
    pub(crate) async fn execute(&mut self, rows: i32) -> Result<()> {
        let execute = [&b"\0"[..], &rows.to_be_bytes()].concat();
        self.say(b'E', &execute).await
    }

    /// Flush.
    pub(crate) async fn flush(&mut self) -> Result<()> {
        self.say(b'H', &[]).await
    }

    /// Sync.
    pub(crate) async fn sync(&mut self) -> Result<()> {
        self.say(b'S', &[]).await
    }

    /// The next message.
    pub(crate) async fn next(&mut self) -> Result<Frame> {
        self.frame().await?.context("the connection was closed")
    }

    /// The next message; `None` when the connection was closed.
    pub(crate) async fn frame(&mut self) -> Result<Option<Frame>> {
        loop {
            if let Some(head) = self.inbox.first_chunk::<5>() {
                let [tag, length @ ..] = *head;
                let total = 1 + usize::try_from(u32::from_be_bytes(length))?;
                if self.inbox.len() >= total {
                    let rest = self.inbox.split_off(total);
                    let whole = std::mem::replace(&mut self.inbox, rest);
                    let (tag, body) = (char::from(tag), whole[5..].to_vec());
                    return Ok(Some(Frame { tag, body }));
                }
            }
            let read = self.stream.read_buf(&mut self.inbox);
            let n = tokio::time::timeout(PATIENCE, read)
                .await
                .with_context(|| format!("no answer; so far {:?}", self.inbox))?;
            if n.unwrap_or(0) == 0 {
                return Ok(None);
            }
        }
    }

    /// Messages up to one with this tag.
    pub(crate) async fn until(&mut self, tag: char) -> Result<Vec<Frame>> {
        let mut all = Vec::new();
        loop {
            let frame = self
                .next()
                .await
                .with_context(|| format!("after {all:?}"))?;
            let is_last = frame.tag == tag;
            all.push(frame);
            if is_last {
                return Ok(all);
            }
        }
    }

    /// Messages up to ReadyForQuery.
    pub(crate) async fn until_ready(&mut self) -> Result<Vec<Frame>> {
        self.until('Z').await
    }

    /// Reads until the server closes.
    pub(crate) async fn closed(&mut self) -> Result<()> {
        while self.frame().await?.is_some() {}
        Ok(())
    }

    /// Reads at least this many bytes and keeps them.
    pub(crate) async fn taste(&mut self, bytes: usize) -> Result<()> {
        while self.inbox.len() < bytes {
            ensure!(self.stream.read_buf(&mut self.inbox).await? > 0, "closed");
        }
        Ok(())
    }
}

/// A framed message.
pub(crate) fn message(tag: u8, body: &[u8]) -> Vec<u8> {
    let length = u32::try_from(body.len() + 4).unwrap_or(u32::MAX);
    [&[tag][..], &length.to_be_bytes(), body].concat()
}

fn text(sql: &str) -> Vec<u8> {
    [sql.as_bytes(), b"\0"].concat()
}

/// SQLSTATE of the first error among these; empty if there is none.
pub(crate) fn state(frames: &[Frame]) -> String {
    let error = frames.iter().find(|frame| frame.tag == 'E');
    error.and_then(|e| e.field(b'C')).unwrap_or_default()
}

/// The transaction status of the last ReadyForQuery.
pub(crate) fn status(frames: &[Frame]) -> Option<char> {
    let ready = frames.iter().rev().find(|frame| frame.tag == 'Z')?;
    ready.body.first().map(|b| char::from(*b))
}
