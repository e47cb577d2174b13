//! An HTTP server that remembers what reached it, and clients that can leave in every way.
//!
//! The server speaks HTTP/1.1 and HTTP/2 with prior knowledge. Like an application with workers of
//! its own it goes on with a request whose connection is gone, and counts it when it is done. What a
//! request wants of it stands in its query: `ms` waits, `gate` waits until the test lets it go on, `die` closes the connection in place of an
//! answer, `half` closes it in the middle of one, `bytes` is the size of the answer. A path that ends in
//! `/Chat` gets its body back piece by piece.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::Ipv4Addr;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use bytes::Bytes;
use futures_util::{StreamExt, stream};
use http_body_util::{BodyExt, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper::header::HeaderMap;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{oneshot, watch};
use tokio::task::JoinHandle;

use crate::ports::free_port;

/// One request as it arrived.
#[derive(Debug, Clone)]
pub struct Seen {
    /// Method.
    pub method: String,
    /// Whether it came over HTTP/2.
    pub is_http2: bool,
    /// Path without query.
    pub path: String,
    /// Headers.
    pub headers: HeaderMap,
    /// Bytes of its body; `None` if the body broke off.
    pub body: Option<usize>,
    /// What stood behind it.
    pub trailers: HeaderMap,
    /// Number of the connection it came on.
    pub connection: usize,
}

#[derive(Default)]
struct State {
    name: String,
    seen: Mutex<Vec<Seen>>,
    connections: AtomicUsize,
    open: AtomicUsize,
    done: AtomicU64,
    /// Whether those that wait for it may go on.
    released: watch::Sender<bool>,
}

/// The server; it ends when this is dropped.
pub struct Upstream {
    port: u16,
    state: Arc<State>,
    accepting: JoinHandle<()>,
}

type Body = http_body_util::combinators::UnsyncBoxBody<Bytes, std::io::Error>;

impl Upstream {
    /// Starts it; `name` is in its answers.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start(name: &str) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let state = Arc::new(State {
            name: name.to_owned(),
            ..State::default()
        });
        let accepting = tokio::spawn(accept(listener, Arc::clone(&state)));
        Ok(Self {
            port,
            state,
            accepting,
        })
    }

    /// Starts it with TLS.
    ///
    /// # Errors
    /// No port is free.
    pub async fn start_tls(name: &str, tls: Arc<rustls::ServerConfig>) -> Result<Self> {
        let port = free_port()?;
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, port)).await?;
        let state = Arc::new(State {
            name: name.to_owned(),
            ..State::default()
        });
        let acceptor = tokio_rustls::TlsAcceptor::from(tls);
        let shared = Arc::clone(&state);
        let accepting = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (state, acceptor) = (Arc::clone(&shared), acceptor.clone());
                tokio::spawn(async move {
                    if let Ok(stream) = acceptor.accept(stream).await {
                        let is_http2 = stream.get_ref().1.alpn_protocol() == Some(b"h2");
                        serve(stream, is_http2, &state).await;
                    }
                });
            }
        });
        Ok(Self {
            port,
            state,
            accepting,
        })
    }

    /// Where it listens.
    #[must_use]
    pub const fn port(&self) -> u16 {
        self.port
    }

    /// Everything that reached it, in order.
    #[must_use]
    pub fn seen(&self) -> Vec<Seen> {
        lock(&self.state.seen).clone()
    }

    /// What reached it on this path.
    #[must_use]
    pub fn seen_at(&self, path: &str) -> Vec<Seen> {
        let mut seen = self.seen();
        seen.retain(|one| one.path == path);
        seen
    }

    /// Requests that it has finished with, whether or not anybody listened.
    #[must_use]
    pub fn done(&self) -> u64 {
        self.state.done.load(Ordering::SeqCst)
    }

    /// Lets those go on that wait for it, and all that come.
    pub fn release(&self) {
        self.state.released.send_replace(true);
    }

    /// Connections that are open now.
    #[must_use]
    pub fn open(&self) -> usize {
        self.state.open.load(Ordering::SeqCst)
    }
}

impl Drop for Upstream {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, state: Arc<State>) {
    while let Ok((stream, _)) = listener.accept().await {
        let state = Arc::clone(&state);
        tokio::spawn(async move {
            state.open.fetch_add(1, Ordering::SeqCst);
            connection(stream, &state).await;
            state.open.fetch_sub(1, Ordering::SeqCst);
        });
    }
}

async fn connection(stream: TcpStream, state: &Arc<State>) {
    let mut first = [0; 3];
    let is_http2 = matches!(stream.peek(&mut first).await, Ok(3) if &first == b"PRI");
    serve(stream, is_http2, state).await;
}

async fn serve<S>(stream: S, is_http2: bool, state: &Arc<State>)
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Unpin + Send + 'static,
{
    let number = state.connections.fetch_add(1, Ordering::SeqCst);
    let service = service_fn(|request| {
        let state = Arc::clone(state);
        async move { answer(request, state, number).await }
    });
    let io = TokioIo::new(stream);
    let _ = match is_http2 {
        true => {
            let builder = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
            builder.serve_connection(io, service).await
        }
        false => {
            let builder = hyper::server::conn::http1::Builder::new();
            let connection = builder.serve_connection(io, service).with_upgrades();
            connection.await
        }
    };
}

async fn answer(
    mut request: Request<Incoming>,
    state: Arc<State>,
    connection: usize,
) -> Result<Response<Body>, std::io::Error> {
    let query = request.uri().query().unwrap_or_default().to_owned();
    let wish: HashMap<String, u64> = query
        .split('&')
        .filter_map(|pair| pair.split_once('='))
        .filter_map(|(key, value)| Some((key.to_owned(), value.parse().ok()?)))
        .collect();
    let of = |key: &str| wish.get(key).copied();
    let path = request.uri().path().to_owned();
    let mut seen = Seen {
        method: request.method().to_string(),
        is_http2: request.version() == hyper::Version::HTTP_2,
        path: path.clone(),
        headers: request.headers().clone(),
        body: None,
        trailers: HeaderMap::new(),
        connection,
    };
    if path == "/ws" {
        lock(&state.seen).push(seen);
        let upgrade = hyper::upgrade::on(&mut request);
        tokio::spawn(async move {
            if let Ok(upgraded) = upgrade.await {
                echo(TokioIo::new(upgraded)).await;
            }
        });
        let head = Response::builder().status(101);
        let head = head
            .header("connection", "upgrade")
            .header("upgrade", "websocket");
        return head.body(empty()).map_err(std::io::Error::other);
    }
    let grpc = seen.headers.get("content-type").cloned();
    let grpc = grpc.filter(|kind| kind.as_bytes().starts_with(b"application/grpc"));
    if path.ends_with("/Chat") {
        // Speaks when it is spoken to.
        lock(&state.seen).push(seen);
        let body = request.into_body().map_err(std::io::Error::other);
        let head = Response::builder().header("content-type", "application/grpc");
        return head
            .body(body.boxed_unsync())
            .map_err(std::io::Error::other);
    }
    let body = request.into_body().collect().await;
    if let Ok(body) = body {
        seen.trailers = body.trailers().cloned().unwrap_or_default();
        seen.body = Some(body.to_bytes().len());
    }
    let epoch = seen.headers.get("writefence-epoch").cloned();
    let whole = seen.body.is_some();
    let text = format!(
        "{{\"server\":\"{}\",\"method\":\"{}\",\"epoch\":{:?},\"body\":{}}}",
        state.name,
        seen.method,
        epoch.unwrap_or_else(|| hyper::header::HeaderValue::from_static("")),
        seen.body.unwrap_or_default()
    );
    lock(&state.seen).push(seen);
    if !whole {
        return Err(std::io::ErrorKind::UnexpectedEof.into());
    }
    // A worker of its own: it finishes whatever becomes of the connection.
    let (finished, done) = oneshot::channel();
    let worker = Arc::clone(&state);
    let wait = Duration::from_millis(of("ms").unwrap_or_default());
    let gated = of("gate").is_some();
    tokio::spawn(async move {
        tokio::time::sleep(wait).await;
        if gated {
            // It cannot be closed: whoever waits holds a part of it.
            let _ = worker.released.subscribe().wait_for(|go| *go).await;
        }
        worker.done.fetch_add(1, Ordering::SeqCst);
        let _ = finished.send(());
    });
    let _ = done.await;
    if of("die").is_some() {
        return Err(std::io::ErrorKind::ConnectionAborted.into());
    }
    if path == "/events" {
        return events(of("n").unwrap_or(u64::MAX));
    }
    if of("half").is_some() {
        let parts = [
            Ok(Frame::data(Bytes::from_static(b"half of it"))),
            Err(std::io::ErrorKind::ConnectionAborted.into()),
        ];
        // The pause has the first part sent before the connection breaks.
        let parts = stream::iter(parts).then(async |part| {
            tokio::task::yield_now().await;
            part
        });
        return Ok(Response::new(StreamBody::new(parts).boxed_unsync()));
    }
    if let Some(kind) = grpc {
        let mut trailers = HeaderMap::new();
        trailers.insert("grpc-status", hyper::header::HeaderValue::from_static("0"));
        let parts = [
            Ok(Frame::data(Bytes::from_static(b"\0\0\0\0\0"))),
            Ok(Frame::trailers(trailers)),
        ];
        let body = StreamBody::new(stream::iter(parts)).boxed_unsync();
        let head = Response::builder().header("content-type", kind);
        return head.body(body).map_err(std::io::Error::other);
    }
    let text = match of("bytes") {
        Some(n) => Bytes::from(vec![b'x'; usize::try_from(n).unwrap_or_default()]),
        None => Bytes::from(text),
    };
    let body = http_body_util::Full::new(text)
        .map_err(never)
        .boxed_unsync();
    Ok(Response::new(body))
}

fn events(n: u64) -> Result<Response<Body>, std::io::Error> {
    let parts = stream::unfold(0, move |at| async move {
        if at == n {
            return None;
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
        let data = Bytes::from(format!("data: {at}\n\n"));
        Some((Ok(Frame::data(data)), at + 1))
    });
    let head = Response::builder().header("content-type", "text/event-stream");
    let body = StreamBody::new(parts).boxed_unsync();
    head.body(body).map_err(std::io::Error::other)
}

/// Sends back what comes, until a close frame has come and gone.
async fn echo(mut io: TokioIo<hyper::upgrade::Upgraded>) {
    let mut buffer = [0; 1024];
    while let Ok(n) = io.read(&mut buffer).await {
        if n == 0 || buffer[0] == 0x88 {
            break;
        }
        let payload: Vec<u8> = (6..n)
            .map(|at| buffer[at] ^ buffer[2 + (at - 6) % 4])
            .collect();
        let mut frame = vec![buffer[0], u8::try_from(payload.len()).unwrap_or(125)];
        frame.extend_from_slice(&payload);
        if io.write_all(&frame).await.is_err() {
            break;
        }
    }
    let _ = io.shutdown().await;
}

fn empty() -> Body {
    http_body_util::Empty::new().map_err(never).boxed_unsync()
}

fn never(error: Infallible) -> std::io::Error {
    match error {}
}

fn lock<T>(mutex: &Mutex<T>) -> std::sync::MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// An answer as a client reads it from a socket.
#[derive(Debug, Clone)]
pub struct Reply {
    /// Status code.
    pub status: u16,
    /// Headers, names in lower case.
    pub headers: HashMap<String, String>,
    /// Body, with its framing taken off.
    pub body: Vec<u8>,
}

impl Reply {
    /// The body as JSON; null if it is none.
    #[must_use]
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// A header; empty if it is not there.
    #[must_use]
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).map_or("", String::as_str)
    }
}

/// An HTTP/1.1 client of raw bytes.
pub struct Raw(pub TcpStream);

impl Raw {
    /// Connects.
    ///
    /// # Errors
    /// Nobody listens.
    pub async fn connect(port: u16) -> Result<Self> {
        let stream = TcpStream::connect((Ipv4Addr::LOCALHOST, port)).await?;
        stream.set_nodelay(true)?;
        Ok(Self(stream))
    }

    /// Sends bytes.
    ///
    /// # Errors
    /// The connection is broken.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) -> Result<()> {
        Ok(self.0.write_all(bytes.as_ref()).await?)
    }

    /// Leaves with a FIN.
    pub fn fin(self) {
        drop(self.0);
    }

    /// Leaves with a RST.
    ///
    /// # Errors
    /// The system refuses.
    pub fn rst(self) -> Result<()> {
        self.0.set_zero_linger()?;
        drop(self.0);
        Ok(())
    }

    /// Reads a head without a body, such as a 100.
    ///
    /// # Errors
    /// It is not whole.
    pub async fn reply_head(&mut self) -> Result<String> {
        let mut got = Vec::new();
        while !got.ends_with(b"\r\n\r\n") {
            let mut byte = [0; 1];
            ensure!(self.0.read(&mut byte).await? > 0, "closed in the head");
            got.push(byte[0]);
        }
        Ok(String::from_utf8_lossy(&got).into_owned())
    }

    /// Reads an answer.
    ///
    /// # Errors
    /// It is not whole.
    pub async fn reply(&mut self) -> Result<Reply> {
        let mut got = Vec::new();
        let end = loop {
            if let Some(at) = got.windows(4).position(|four| four == b"\r\n\r\n") {
                break at + 4;
            }
            let n = self.0.read_buf(&mut got).await?;
            ensure!(
                n > 0,
                "closed in the head: {:?}",
                String::from_utf8_lossy(&got)
            );
        };
        let head = String::from_utf8_lossy(&got[..end]).into_owned();
        let mut lines = head.lines();
        let status = lines.next().and_then(|line| line.split(' ').nth(1));
        let status = status.and_then(|s| s.parse().ok()).context("a status")?;
        let headers: HashMap<_, _> = lines
            .filter_map(|line| line.split_once(": "))
            .map(|(name, value)| (name.to_lowercase(), value.to_owned()))
            .collect();
        let mut body = got.split_off(end);
        if let Some(length) = headers.get("content-length") {
            let length: usize = length.parse()?;
            while body.len() < length {
                ensure!(self.0.read_buf(&mut body).await? > 0, "closed in the body");
            }
        } else if headers.contains_key("transfer-encoding") {
            while !body.ends_with(b"0\r\n\r\n") {
                ensure!(self.0.read_buf(&mut body).await? > 0, "closed in a chunk");
            }
            body = unchunk(&body);
        } else if status != 204 && status != 101 {
            self.0.read_to_end(&mut body).await?;
        }
        Ok(Reply {
            status,
            headers,
            body,
        })
    }

    /// Whether the other side has closed and sent nothing more.
    ///
    /// # Errors
    /// It sent something.
    pub async fn closed(&mut self) -> Result<()> {
        let mut rest = Vec::new();
        let read = tokio::time::timeout(Duration::from_secs(30), self.0.read_to_end(&mut rest));
        let _ = read.await.context("the connection stays open")?;
        ensure!(rest.is_empty(), "{:?}", String::from_utf8_lossy(&rest));
        Ok(())
    }
}

fn unchunk(mut bytes: &[u8]) -> Vec<u8> {
    let mut body = Vec::new();
    while let Some(at) = bytes.windows(2).position(|two| two == b"\r\n") {
        let size = std::str::from_utf8(&bytes[..at]).unwrap_or("0");
        let size = usize::from_str_radix(size, 16).unwrap_or_default();
        if size == 0 {
            break;
        }
        body.extend_from_slice(&bytes[at + 2..at + 2 + size]);
        bytes = &bytes[at + 2 + size + 2..];
    }
    body
}

/// One request on a connection of its own.
///
/// # Errors
/// There is no whole answer.
pub async fn send(port: u16, method: &str, target: &str, more: &str, body: &str) -> Result<Reply> {
    let mut raw = Raw::connect(port).await?;
    let length = body.len();
    raw.send(format!(
        "{method} {target} HTTP/1.1\r\nHost: api.test\r\nContent-Length: {length}\r\n{more}\r\n{body}"
    ))
    .await?;
    raw.reply().await
}
