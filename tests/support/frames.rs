//! An HTTP/2 client of raw frames, which may send what no library would.

use std::net::Ipv4Addr;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Kinds of frames.
pub mod kind {
    /// A part of a body.
    pub const DATA: u8 = 0;
    /// The head of a request or an answer.
    pub const HEADERS: u8 = 1;
    /// Order among streams.
    pub const PRIORITY: u8 = 2;
    /// The end of one stream.
    pub const RST_STREAM: u8 = 3;
    /// Settings of a connection.
    pub const SETTINGS: u8 = 4;
    /// For servers only.
    pub const PUSH_PROMISE: u8 = 5;
    /// Are you there?
    pub const PING: u8 = 6;
    /// The end of a connection.
    pub const GOAWAY: u8 = 7;
    /// Room for more.
    pub const WINDOW_UPDATE: u8 = 8;
    /// More of a head.
    pub const CONTINUATION: u8 = 9;
}

/// Flag: nothing follows on the stream; of SETTINGS and PING: an answer.
pub const END_STREAM: u8 = 1;
/// Flag: the head is whole.
pub const END_HEADERS: u8 = 4;
/// Flag: padding follows.
pub const PADDED: u8 = 8;
/// Flag: a place among the streams comes first.
pub const PRIORITIZED: u8 = 0x20;

/// How long a frame is waited for.
const PATIENCE: Duration = Duration::from_secs(20);

/// A frame as it came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Frame {
    /// What it is.
    pub kind: u8,
    /// Flags.
    pub flags: u8,
    /// Its stream.
    pub stream: u32,
    /// What it says.
    pub payload: Vec<u8>,
}

impl Frame {
    /// The error code of a RST_STREAM or a GOAWAY.
    #[must_use]
    pub fn code(&self) -> Option<u32> {
        let at = match self.kind {
            kind::RST_STREAM => 0,
            kind::GOAWAY => 4,
            _ => return None,
        };
        let code: [u8; 4] = self.payload.get(at..at + 4)?.try_into().ok()?;
        Some(u32::from_be_bytes(code))
    }
}

/// One frame as bytes.
#[must_use]
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).unwrap_or(u32::MAX);
    let mut bytes = length.to_be_bytes()[1..].to_vec();
    bytes.extend([kind, flags]);
    bytes.extend(stream.to_be_bytes());
    bytes.extend(payload);
    bytes
}

/// A header that stands in no table, in HPACK.
#[must_use]
pub fn header(name: &str, value: &str) -> Vec<u8> {
    let mut bytes = vec![0];
    for text in [name, value] {
        // One byte of length is enough for tests.
        bytes.push(u8::try_from(text.len()).unwrap_or(126).min(126));
        bytes.extend(text.bytes().take(126));
    }
    bytes
}

/// The head of a request, in HPACK.
#[must_use]
pub fn head(method: &str, path: &str) -> Vec<u8> {
    [
        header(":method", method),
        header(":scheme", "http"),
        header(":path", path),
        header(":authority", "a"),
    ]
    .concat()
}

/// The connection.
pub struct Frames {
    stream: TcpStream,
    /// What the server said first.
    pub settings: Vec<u8>,
}

impl Frames {
    /// Connects and exchanges settings.
    ///
    /// # Errors
    /// Nobody listens, or speaks HTTP/2.
    pub async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        let mut this = Self {
            stream,
            settings: Vec::new(),
        };
        this.send(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n").await?;
        this.send(&frame(kind::SETTINGS, 0, 0, &[])).await?;
        let first = this.read().await?.context("no settings came")?;
        ensure!(first.kind == kind::SETTINGS, "{first:?}");
        this.settings = first.payload;
        this.send(&frame(kind::SETTINGS, END_STREAM, 0, &[]))
            .await?;
        Ok(this)
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection is over.
    pub async fn send(&mut self, bytes: &[u8]) -> Result<()> {
        Ok(self.stream.write_all(bytes).await?)
    }

    /// The next frame; `None` when the connection is over.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn read(&mut self) -> Result<Option<Frame>> {
        let read = async {
            let mut head = [0_u8; 9];
            self.stream.read_exact(&mut head).await.ok()?;
            let [a, b, c, kind, flags, stream @ ..] = head;
            let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
            self.stream.read_exact(&mut payload).await.ok()?;
            let stream = u32::from_be_bytes(stream);
            Some(Frame {
                kind,
                flags,
                stream,
                payload,
            })
        };
        timeout(PATIENCE, read).await.context("no frame came")
    }

    /// The next frame of a kind on a stream; `None` when the connection is over before.
    ///
    /// # Errors
    /// None comes in time.
    pub async fn find(&mut self, kind: u8, stream: u32) -> Result<Option<Frame>> {
        while let Some(frame) = self.read().await? {
            if frame.kind == kind && frame.stream == stream {
                return Ok(Some(frame));
            }
        }
        Ok(None)
    }

    /// The code with which the server ends a stream or the connection.
    ///
    /// # Errors
    /// It ends neither in time.
    pub async fn end(&mut self) -> Result<Option<(u8, u32)>> {
        while let Some(frame) = self.read().await? {
            if let Some(code) = frame.code() {
                return Ok(Some((frame.kind, code)));
            }
        }
        Ok(None)
    }
}
