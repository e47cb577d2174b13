//! A PostgreSQL client in a hundred lines, for what a driver won't do: several Executes per Sync
//! with several Syncs under way, and COPY by the simple protocol.
//!
//! Only `trust` logins. It keeps no state apart from the socket; a caller reads message by
//! message. Message layout: PostgreSQL manual, "Message Formats".

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::op::{Failure, Sent, is_fatal, says_not_executed};

/// Protocol 3.0.
const VERSION: i32 = 196_608;

/// No answer here is longer; more means that the stream is out of step.
const LONGEST: usize = 1 << 20;

/// One connection.
#[derive(Debug)]
pub(super) struct Wire {
    socket: TcpStream,
    input: BytesMut,
    /// What `send` will write: one system call for all that was put.
    pub(super) output: BytesMut,
}

impl Wire {
    /// Logs in and waits for the first ReadyForQuery.
    pub(super) async fn connect(port: u16, params: &[(&str, &str)]) -> Result<Self, Failure> {
        let socket = TcpStream::connect(("127.0.0.1", port))
            .await
            .map_err(|_| silence())?;
        socket.set_nodelay(true).map_err(|_| silence())?;
        let mut wire = Self {
            socket,
            input: BytesMut::new(),
            output: BytesMut::new(),
        };
        let mut body = BytesMut::new();
        body.put_i32(VERSION);
        for (key, value) in params {
            put_text(&mut body, key);
            put_text(&mut body, value);
        }
        body.put_u8(0);
        wire.output.put_i32(length(&body));
        wire.output.put(body);
        wire.send().await.map_err(|_| silence())?;
        wire.until_ready().await?;
        Ok(wire)
    }

    /// Adds a message to what will be sent.
    pub(super) fn put(&mut self, tag: u8, fill: impl FnOnce(&mut BytesMut)) {
        let mut body = BytesMut::new();
        fill(&mut body);
        self.output.put_u8(tag);
        self.output.put_i32(length(&body));
        self.output.put(body);
    }

    /// Sends what was put.
    pub(super) async fn send(&mut self) -> io::Result<()> {
        let bytes = self.output.split();
        self.socket.write_all(&bytes).await
    }

    /// The next message: its tag and body.
    pub(super) async fn message(&mut self) -> io::Result<(u8, Bytes)> {
        loop {
            if let Some(message) = self.parsed()? {
                return Ok(message);
            }
            if self.socket.read_buf(&mut self.input).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    fn parsed(&mut self) -> io::Result<Option<(u8, Bytes)>> {
        let Some(mut head) = self.input.get(..5) else {
            return Ok(None);
        };
        let tag = head.get_u8();
        let len = usize::try_from(head.get_i32())
            .ok()
            .filter(|len| (4..LONGEST).contains(len));
        let len = len.ok_or(io::ErrorKind::InvalidData)?;
        if self.input.len() < len + 1 {
            return Ok(None);
        }
        let mut message = self.input.split_to(len + 1);
        message.advance(5);
        Ok(Some((tag, message.freeze())))
    }

    /// Reads up to ReadyForQuery; the first error on the way is the answer.
    pub(super) async fn until_ready(&mut self) -> Result<(), Failure> {
        let mut failure: Option<Failure> = None;
        loop {
            match self.message().await {
                Ok((b'Z', _)) => return failure.map_or(Ok(()), Err),
                Ok((b'E', body)) => {
                    failure.get_or_insert(error(&body));
                }
                Ok(_) => {}
                Err(_) => {
                    let sqlstate = failure.and_then(|failure| failure.sqlstate);
                    return Err(Failure::lost(sqlstate, Sent::Maybe));
                }
            }
        }
    }
}

pub(super) fn put_text(body: &mut BytesMut, text: &str) {
    body.put_slice(text.as_bytes());
    body.put_u8(0);
}

/// The length field counts itself.
fn length(body: &BytesMut) -> i32 {
    i32::try_from(body.len() + 4).expect("the messages of this client are short")
}

fn silence() -> Failure {
    Failure::lost(None, Sent::No)
}

/// An ErrorResponse: fields of a tag byte and a string each.
pub(super) fn error(body: &[u8]) -> Failure {
    let mut failure = Failure {
        sqlstate: None,
        lost: false,
        sent: Sent::Maybe,
        not_executed: false,
    };
    for field in body
        .split(|byte| *byte == 0)
        .filter(|field| !field.is_empty())
    {
        let text = String::from_utf8_lossy(&field[1..]).into_owned();
        match field[0] {
            // Translated, and not: some proxies leave out the second.
            b'S' | b'V' => failure.lost |= is_fatal(&text),
            b'C' => failure.sqlstate = Some(text),
            b'M' | b'D' => failure.not_executed |= says_not_executed(&text),
            _ => {}
        }
    }
    failure
}
