//! A client's connection as pingora takes it, and what pingora does not offer of one.
//!
//! Nothing is buffered here, so a connection in rest owns no buffer. Bytes that were read ahead (to
//! wait for a request, or behind the end of the last one) are served first. The head of a request
//! is counted while it is read, so that a limit ends it before it is in memory. Whether the client
//! has closed its side is known without reading, which tells of a client that leaves while its body
//! is still unread. Closing waits a moment for what the client is still sending: a socket that is
//! closed with unread bytes takes the last answer away from its reader.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::FutureExt;
use pingora::protocols::raw_connect::ProxyDigest;
use pingora::protocols::{
    GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl,
    TimingDigest, UniqueID, UniqueIDType,
};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, Interest, ReadBuf};
use tokio::time::timeout;

use crate::tls::Stream;

/// How long a closed connection goes on reading what its client still sends.
const LINGER: Duration = Duration::from_secs(2);

/// And how much of it: more is a client that does not listen.
const LINGER_BYTES: usize = 1 << 20;

/// Read ahead while waiting for a request.
const AHEAD: usize = 16;

/// See the module.
#[derive(Debug)]
pub(super) struct Socket {
    stream: Stream,
    ahead: Vec<u8>,
    /// Bytes of a request's head that may still be read.
    head_left: AtomicUsize,
}

impl Socket {
    pub(super) fn new(stream: Stream) -> Self {
        Self {
            stream,
            ahead: Vec::new(),
            head_left: AtomicUsize::new(usize::MAX),
        }
    }

    /// Whether it is encrypted.
    pub(super) fn is_tls(&self) -> bool {
        self.stream.is_tls()
    }

    /// From now on a head is read, of at most this many bytes.
    pub(super) fn begin_head(&self, most: usize) {
        self.head_left.store(most, Ordering::Relaxed);
    }

    /// The head is over; true if it was cut off for its size.
    pub(super) fn end_head(&self) -> bool {
        self.head_left.swap(usize::MAX, Ordering::Relaxed) == 0
    }

    /// Whether the client has closed its side or the connection is broken. Answers from what the
    /// system told already: no call, no waiting.
    pub(super) fn is_closed(&self) -> bool {
        // Unconstrained: a task that has used up its turn would be told "not ready".
        let ready = tokio::task::unconstrained(self.stream.socket().ready(Interest::READABLE));
        match ready.now_or_never() {
            Some(Ok(ready)) => ready.is_read_closed(),
            Some(Err(_)) => true,
            None => false,
        }
    }

    /// Waits for the first byte of the next request; false when the client closes instead.
    pub(super) async fn wait(&mut self) -> bool {
        if !self.ahead.is_empty() {
            return true;
        }
        let mut first = [0; AHEAD];
        match self.read(&mut first).await {
            Ok(n) if n > 0 => {
                self.ahead
                    .extend_from_slice(first.get(..n).unwrap_or_default());
                true
            }
            Ok(_) | Err(_) => false,
        }
    }

    /// Bytes that belong to the next request.
    pub(super) fn put_ahead(&mut self, bytes: &[u8]) {
        self.ahead.extend_from_slice(bytes);
    }

    /// Ends our side, then reads for a moment what the client is still sending.
    pub(super) async fn close(&mut self) {
        let _ = timeout(LINGER, async {
            if self.stream.shutdown().await.is_err() {
                return;
            }
            let mut left = LINGER_BYTES;
            let mut sink = [0; 4096];
            while left > 0 {
                match self.stream.read(&mut sink).await {
                    Ok(0) | Err(_) => return,
                    Ok(n) => left = left.saturating_sub(n),
                }
            }
        })
        .await;
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let left = self.head_left.load(Ordering::Relaxed);
        if left == 0 {
            let what = "the head of a request is over its limit";
            return Poll::Ready(Err(io::Error::new(io::ErrorKind::InvalidData, what)));
        }
        let before = buf.filled().len();
        if self.ahead.is_empty() {
            std::task::ready!(Pin::new(&mut self.stream).poll_read(cx, buf))?;
        } else {
            let n = self.ahead.len().min(buf.remaining());
            buf.put_slice(self.ahead.get(..n).unwrap_or_default());
            self.ahead.drain(..n);
            if self.ahead.is_empty() {
                self.ahead = Vec::new();
            }
        }
        if left != usize::MAX {
            let n = buf.filled().len() - before;
            self.head_left
                .store(left.saturating_sub(n), Ordering::Relaxed);
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Socket {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}

#[async_trait]
impl Shutdown for Socket {
    async fn shutdown(&mut self) {
        self.close().await;
    }
}

impl UniqueID for Socket {
    fn id(&self) -> UniqueIDType {
        use std::os::fd::AsRawFd;
        self.stream.socket().as_raw_fd()
    }
}

// pingora is not asked about the encryption: what was agreed on is known before it is called.
impl Ssl for Socket {}
impl Peek for Socket {}

impl GetTimingDigest for Socket {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        Vec::new()
    }
}

impl GetProxyDigest for Socket {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        None
    }
}

impl GetSocketDigest for Socket {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        None
    }
}
