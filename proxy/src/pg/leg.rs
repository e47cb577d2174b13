//! One socket of a session with what is waiting on either side of it.
//!
//! In a steady conversation both buffers are empty: bytes are read into a scratch area that belongs
//! to the thread, scanned there and written on at once. Only what the peer would not take, or what
//! is not a whole message yet, is kept by the session.

use std::cell::RefCell;
use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::frame::{FrameError, head};
use crate::tls::Stream;

/// One read takes at most this much. Larger reads save system calls on large results; beyond
/// 64 KiB the socket buffer seldom holds more.
pub(crate) const SCRATCH: usize = 64 * 1024;

/// Buffers of a session are given back when they are empty and larger than this.
const KEEP: usize = 1024;

thread_local! {
    static SCRATCH_AREA: RefCell<Vec<u8>> = RefCell::new(vec![0; SCRATCH]);
}

/// A socket and its two buffers.
pub(crate) struct Leg {
    stream: Stream,
    /// Received and not consumed.
    pub(crate) inbox: Vec<u8>,
    outbox: Vec<u8>,
    written: usize,
    said_goodbye: bool,
}

impl Leg {
    pub(crate) fn new(stream: Stream) -> Self {
        Self {
            stream,
            inbox: Vec::new(),
            outbox: Vec::new(),
            written: 0,
            said_goodbye: false,
        }
    }

    /// Bytes wait to be written, here or encrypted already.
    pub(crate) fn backed_up(&self) -> bool {
        !self.outbox.is_empty() || self.stream.owes()
    }

    /// Queues bytes behind what waits already.
    pub(crate) fn queue(&mut self) -> &mut Vec<u8> {
        &mut self.outbox
    }

    /// Writes now what can be written, and keeps the rest. `Pending` of the socket is no error.
    pub(crate) fn send(&mut self, cx: &mut Context<'_>, mut data: &[u8]) -> io::Result<()> {
        while self.outbox.is_empty() && !data.is_empty() {
            match Pin::new(&mut self.stream).poll_write(cx, data) {
                Poll::Ready(Ok(0)) => return Err(io::ErrorKind::WriteZero.into()),
                Poll::Ready(Ok(n)) => data = data.get(n..).unwrap_or_default(),
                Poll::Ready(Err(e)) => return Err(e),
                Poll::Pending => break,
            }
        }
        self.outbox.extend_from_slice(data);
        Ok(())
    }

    /// Writes what waits; `Ready` when nothing does any more.
    pub(crate) fn poll_flush(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while self.written < self.outbox.len() {
            let rest = self.outbox.get(self.written..).unwrap_or_default();
            match Pin::new(&mut self.stream).poll_write(cx, rest) {
                Poll::Ready(Ok(0)) => return Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
                Poll::Ready(Ok(n)) => self.written += n,
                Poll::Ready(Err(e)) => return Poll::Ready(Err(e)),
                Poll::Pending => return Poll::Pending,
            }
        }
        self.written = 0;
        self.outbox.clear();
        empty(&mut self.outbox);
        match &self.stream {
            Stream::Plain(_) => Poll::Ready(Ok(())),
            Stream::Tls(_) => Pin::new(&mut self.stream).poll_flush(cx),
        }
    }

    /// Writes everything that waits.
    pub(crate) async fn flush(&mut self) -> io::Result<()> {
        poll_fn(|cx| self.poll_flush(cx)).await
    }

    /// Reads once and appends to the inbox. `Ready(0)`: the peer has finished.
    pub(crate) fn poll_fill(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<usize>> {
        with_scratch(|scratch| {
            let n = std::task::ready!(poll_into(&mut self.stream, cx, scratch))?;
            self.inbox
                .extend_from_slice(scratch.get(..n).unwrap_or_default());
            Poll::Ready(Ok(n))
        })
    }

    /// Reads once into `scratch`. `Ready(0)`: the peer has finished.
    pub(crate) fn poll_read(
        &mut self,
        cx: &mut Context<'_>,
        scratch: &mut [u8],
    ) -> Poll<io::Result<usize>> {
        poll_into(&mut self.stream, cx, scratch)
    }

    /// The next whole message, waiting for it; at most `limit` bytes.
    pub(crate) async fn next_frame(&mut self, limit: usize) -> io::Result<Vec<u8>> {
        loop {
            if let Some(head) = head(&self.inbox).map_err(offence)? {
                if head.total > limit {
                    return Err(offence(FrameError::Length {
                        tag: head.tag,
                        length: u32::try_from(head.total).unwrap_or(u32::MAX),
                    }));
                }
                if self.inbox.len() >= head.total {
                    let rest = self.inbox.split_off(head.total);
                    return Ok(std::mem::replace(&mut self.inbox, rest));
                }
            }
            if poll_fn(|cx| self.poll_fill(cx)).await? == 0 {
                return Err(io::ErrorKind::UnexpectedEof.into());
            }
        }
    }

    /// Notices an end of the peer that came while nobody was reading.
    ///
    /// # Errors
    /// The peer has closed, or the connection has broken.
    pub(crate) async fn check_alive(&mut self) -> io::Result<()> {
        match poll_fn(|cx| Poll::Ready(self.poll_fill(cx))).await {
            Poll::Ready(Ok(0)) => Err(io::ErrorKind::UnexpectedEof.into()),
            Poll::Ready(Err(e)) => Err(e),
            Poll::Ready(Ok(_)) | Poll::Pending => Ok(()),
        }
    }

    /// Sends a goodbye without waiting for anything.
    pub(crate) fn farewell(&mut self) {
        self.said_goodbye = true;
        self.stream.try_write(&[b'X', 0, 0, 0, 4]);
    }

    /// Closes our direction, with a goodbye unless a message would be torn by it.
    pub(crate) fn poll_hang_up(
        &mut self,
        cx: &mut Context<'_>,
        torn: bool,
    ) -> Poll<io::Result<()>> {
        // An encrypted end may take several polls.
        if !torn && !self.said_goodbye {
            self.farewell();
        }
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    /// Drops `n` bytes from the front of the inbox.
    pub(crate) fn consume(&mut self, n: usize) {
        let n = n.min(self.inbox.len());
        self.inbox.drain(..n);
        empty(&mut self.inbox);
    }
}

/// Lends the thread's scratch area. Never held across an await.
pub(crate) fn with_scratch<T>(f: impl FnOnce(&mut [u8]) -> T) -> T {
    SCRATCH_AREA.with(|area| f(&mut area.borrow_mut()))
}

// `poll_read` and not `try_read`: a short read tells tokio that the socket is empty, which saves
// the second read that would only see EAGAIN.
fn poll_into(
    stream: &mut Stream,
    cx: &mut Context<'_>,
    scratch: &mut [u8],
) -> Poll<io::Result<usize>> {
    let mut buf = ReadBuf::new(scratch);
    std::task::ready!(Pin::new(stream).poll_read(cx, &mut buf))?;
    Poll::Ready(Ok(buf.filled().len()))
}

fn empty(buf: &mut Vec<u8>) {
    if buf.capacity() > KEEP && buf.is_empty() {
        *buf = Vec::new();
    }
}

/// A framing offence as an IO error, with its words kept.
pub(crate) fn offence(e: FrameError) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, e)
}
