//! Connections to the servers behind, kept per region and epoch.
//!
//! An epoch ends with every phase change, and with it all its connections in rest: none is ever
//! used again, not even if the address is the same. hyper's client is used one connection at a
//! time, because that tells exactly what was sent: a request that comes back unsent may be sent
//! elsewhere, and any other failure of a write is an unknown outcome, never a second attempt.

use std::collections::BTreeMap;
use std::io;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{Instant, timeout};

use super::body::UpBody;
use super::origin::{Origin, Speaks};
use crate::gate::Epoch;
use crate::shutdown::Tasks;

/// Connections in rest per region; the rest is closed.
const IDLE: usize = 64;

/// Streams that share an HTTP/2 connection; the next one gets another. Below what servers allow, so
/// that none waits for its turn behind those that are slow.
const STREAMS: usize = 64;

/// HTTP/2 connections kept per region and kind. Beyond them a connection carries one exchange.
const SHARED: usize = 16;

/// Bytes that a server may send on a stream before its client has taken them. All streams of a
/// connection may be as far behind as that, and the others still flow.
const STREAM_WINDOW: u32 = 256 << 10;

/// What all streams of a connection come to together.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// How long a connection may have rested to carry a read. Servers close theirs after a while.
const IDLE_FOR: Duration = Duration::from_secs(30);

/// How long it may have rested to carry a write. A server may close a connection at the moment we
/// send on it, and for a write that is an unknown outcome; servers that wait for less than this
/// before they close are rare.
const FRESH_FOR: Duration = Duration::from_secs(1);

/// How long a connection gets to come to rest behind an answer.
const REST: Duration = Duration::from_millis(50);

/// Between two questions whether an HTTP/2 connection is alive, and how long its answer may take.
const ALIVE: Duration = Duration::from_secs(10);

/// Bytes of a head that a server may answer with.
const HEAD_BYTES: usize = 256 << 10;

/// Where a request goes: one snapshot, taken under its permit.
#[derive(Clone, Debug)]
pub(super) struct Aim {
    pub(super) origin: Arc<Origin>,
    pub(super) epoch: Epoch,
}

/// What a request needs of its connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Need {
    Any,
    /// HTTP/2, also where nothing says that the server speaks it.
    Grpc,
    /// HTTP/1.1, the only one that can be upgraded here.
    Upgrade,
}

/// What a connection may have done before.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reuse {
    /// Any that is alive.
    Any,
    /// One that has rested for a moment at most.
    Fresh,
    /// None.
    Never,
}

/// What a connection is wanted for. Reads and writes share none over HTTP/2: a write whose client is
/// slow, or whose server is, may use up what its connection has to give.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Wish {
    pub(super) need: Need,
    pub(super) reuse: Reuse,
    pub(super) writes: bool,
}

/// Why a request got no answer.
#[derive(Debug)]
pub(super) enum Unanswered {
    /// Not a byte of it was sent; here it is again.
    Unsent(Box<Request<UpBody>>, String),
    /// What came of it is not known.
    Lost(String),
}

enum Sender {
    Http1(http1::SendRequest<UpBody>),
    Http2(http2::SendRequest<UpBody>),
}

/// A connection in use.
pub(super) struct Lease {
    sender: Sender,
    key: Key,
    reused: bool,
    /// Its share of an HTTP/2 connection, given back when it is dropped.
    _share: Option<Arc<()>>,
}

type Key = (Epoch, String);

#[derive(Default)]
struct Shelf {
    http1: Vec<(Instant, http1::SendRequest<UpBody>)>,
    reads: Vec<Shared>,
    writes: Vec<Shared>,
}

/// An HTTP/2 connection and how many use it.
struct Shared {
    sender: http2::SendRequest<UpBody>,
    shares: Arc<()>,
}

impl Shared {
    fn streams(&self) -> usize {
        Arc::strong_count(&self.shares) - 1
    }
}

impl Shelf {
    const fn shared(&mut self, writes: bool) -> &mut Vec<Shared> {
        match writes {
            true => &mut self.writes,
            false => &mut self.reads,
        }
    }

    /// A connection with room for one stream more. Of those that nobody uses one stays.
    fn share(&mut self, writes: bool) -> Option<(Sender, Arc<()>)> {
        let all = self.shared(writes);
        let mut rests = false;
        all.retain(|one| {
            let idle = one.streams() == 0;
            let kept = !(one.sender.is_closed() || idle && rests);
            rests |= idle && kept;
            kept
        });
        let one = all.iter().find(|one| one.streams() < STREAMS)?;
        Some((Sender::Http2(one.sender.clone()), Arc::clone(&one.shares)))
    }
}

#[derive(Default)]
struct Shelves {
    kept: BTreeMap<Key, Shelf>,
    /// Nothing is kept any more.
    closed: bool,
}

/// See the module.
pub(super) struct Pool {
    shelves: Mutex<Shelves>,
    tasks: Tasks,
    connect_within: Duration,
}

impl Pool {
    pub(super) fn new(tasks: Tasks, connect_within: Duration) -> Self {
        Self {
            shelves: Mutex::default(),
            tasks,
            connect_within,
        }
    }

    /// A connection for a request.
    pub(super) async fn lease(&self, aim: &Aim, wish: Wish) -> io::Result<Lease> {
        let Wish {
            need,
            reuse,
            writes,
        } = wish;
        let speaks = aim.origin.speaks(need);
        let key = (aim.epoch, aim.origin.region.clone());
        if let Some((sender, share)) = self.take(&key, speaks, wish) {
            return Ok(Lease {
                sender,
                key,
                reused: true,
                _share: share,
            });
        }
        let stream = aim.origin.connect(need, self.connect_within).await?;
        // Under TLS the server has said what it speaks.
        let speaks = match stream.alpn() {
            Some(b"h2") => Speaks::Http2,
            Some(_) => Speaks::Http1,
            None => speaks,
        };
        let sender = self.open(stream, speaks).await?;
        let mut share = None;
        if let Sender::Http2(sender) = &sender
            && reuse != Reuse::Never
        {
            let shares = Arc::new(());
            share = Some(Arc::clone(&shares));
            let sender = sender.clone();
            self.shelf(&key, |shelf| {
                let all = shelf.shared(writes);
                if all.len() < SHARED {
                    all.push(Shared { sender, shares });
                }
            });
        }
        Ok(Lease {
            sender,
            key,
            reused: false,
            _share: share,
        })
    }

    async fn open<S>(&self, stream: S, speaks: Speaks) -> io::Result<Sender>
    where
        S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
    {
        let io = TokioIo::new(stream);
        match speaks {
            Speaks::Http1 => {
                let mut builder = http1::Builder::new();
                builder.max_buf_size(HEAD_BYTES);
                let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
                self.tasks.spawn(async move {
                    // How it ended is told to whoever waits for an answer on it.
                    let _ = connection.with_upgrades().await;
                });
                Ok(Sender::Http1(sender))
            }
            Speaks::Http2 => {
                let mut builder = http2::Builder::new(Exec(self.tasks.clone()));
                builder
                    .timer(TokioTimer::new())
                    .keep_alive_interval(ALIVE)
                    .keep_alive_timeout(ALIVE)
                    .initial_stream_window_size(STREAM_WINDOW)
                    .initial_connection_window_size(CONNECTION_WINDOW);
                let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
                self.tasks.spawn(async move {
                    let _ = connection.await;
                });
                Ok(Sender::Http2(sender))
            }
        }
    }

    fn take(&self, key: &Key, speaks: Speaks, wish: Wish) -> Option<(Sender, Option<Arc<()>>)> {
        let most = match wish.reuse {
            Reuse::Any => IDLE_FOR,
            Reuse::Fresh => FRESH_FOR,
            Reuse::Never => return None,
        };
        let mut shelves = self.lock();
        let shelf = shelves.kept.get_mut(key)?;
        // Whichever there is: a server that agreed to HTTP/2 once does so again.
        if wish.need != Need::Upgrade
            && let Some((sender, share)) = shelf.share(wish.writes)
        {
            return Some((sender, Some(share)));
        }
        match speaks {
            Speaks::Http1 => {
                // The one that rested least is at the end.
                while let Some((since, sender)) = shelf.http1.pop() {
                    if since.elapsed() > most {
                        // Those below have rested longer, and may still do for a read.
                        shelf.http1.push((since, sender));
                        return None;
                    }
                    if sender.is_ready() {
                        return Some((Sender::Http1(sender), None));
                    }
                }
                None
            }
            Speaks::Http2 => None,
        }
    }

    /// Takes a connection back whose answer is complete.
    pub(super) async fn put_back(&self, lease: Lease, in_force: Epoch) {
        let Sender::Http1(mut sender) = lease.sender else {
            return; // It was never taken off.
        };
        if lease.key.0 != in_force || !matches!(timeout(REST, sender.ready()).await, Ok(Ok(()))) {
            return;
        }
        self.shelf(&lease.key, |shelf| {
            shelf
                .http1
                .retain(|(since, sender)| since.elapsed() < IDLE_FOR && sender.is_ready());
            if shelf.http1.len() < IDLE {
                shelf.http1.push((Instant::now(), sender));
            }
        });
    }

    /// Closes what rests of epochs before this one. Exchanges under way keep theirs.
    pub(super) fn retire(&self, before: Epoch) {
        let retired: Vec<Shelf> = {
            let mut shelves = self.lock();
            let kept = shelves.kept.split_off(&(before, String::new()));
            let retired = std::mem::replace(&mut shelves.kept, kept);
            retired.into_values().collect()
        };
        drop(retired);
    }

    /// Closes everything that rests, and from now on whatever comes to rest.
    pub(super) fn close(&self) {
        let mut shelves = self.lock();
        shelves.closed = true;
        let all = std::mem::take(&mut shelves.kept);
        drop(shelves);
        drop(all);
    }

    fn shelf(&self, key: &Key, put: impl FnOnce(&mut Shelf)) {
        let mut shelves = self.lock();
        if !shelves.closed {
            put(shelves.kept.entry(key.clone()).or_default());
        }
    }

    fn lock(&self) -> MutexGuard<'_, Shelves> {
        self.shelves.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Lease {
    /// Whether it carried something before.
    pub(super) const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    pub(super) async fn send(
        &mut self,
        request: Request<UpBody>,
    ) -> Result<Response<Incoming>, Unanswered> {
        let sent = match &mut self.sender {
            Sender::Http1(sender) => sender.try_send_request(for_http1(request)).await,
            Sender::Http2(sender) => sender.try_send_request(for_http2(request)).await,
        };
        sent.map_err(|mut error| {
            let request = error.take_message();
            let why = crate::error::chain(error.error());
            match request {
                Some(request) => Unanswered::Unsent(Box::new(request), why),
                None => Unanswered::Lost(why),
            }
        })
    }
}

/// The path alone in the first line, the host in its header.
fn for_http1(mut request: Request<UpBody>) -> Request<UpBody> {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str());
        if let (false, Ok(host)) = (request.headers().contains_key(HOST), host) {
            request.headers_mut().insert(HOST, host);
        }
    }
    // hyper would leave out a body of unknown length where the method seldom has one.
    let unknown = hyper::body::Body::size_hint(request.body())
        .exact()
        .is_none();
    if unknown && !request.headers().contains_key(CONTENT_LENGTH) {
        let chunked = HeaderValue::from_static("chunked");
        request.headers_mut().insert(TRANSFER_ENCODING, chunked);
    }
    let path = request.uri().path_and_query().cloned();
    if let Some(Ok(uri)) = path.map(|path| Uri::builder().path_and_query(path).build()) {
        *request.uri_mut() = uri;
    }
    request
}

/// The host in the target, where HTTP/2 has it.
fn for_http2(mut request: Request<UpBody>) -> Request<UpBody> {
    if request.uri().authority().is_some() {
        request.headers_mut().remove(HOST);
    }
    *request.version_mut() = Version::HTTP_2;
    request
}

/// Has hyper's tasks counted like ours.
#[derive(Clone)]
struct Exec(Tasks);

impl<F> hyper::rt::Executor<F> for Exec
where
    F: Future<Output = ()> + Send + 'static,
{
    fn execute(&self, task: F) {
        self.0.spawn(task);
    }
}
