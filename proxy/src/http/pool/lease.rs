//! One connection in use: opened, and what is sent on it in the words of its HTTP version.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use http::header::{CONTENT_LENGTH, HOST, HeaderValue, TRANSFER_ENCODING};
use http::{Method, Uri, Version};
use hyper::body::Incoming;
use hyper::client::conn::{http1, http2};
use hyper::{Request, Response};
use hyper_util::rt::{TokioIo, TokioTimer};

use super::Key;
use crate::http::body::UpBody;
use crate::http::origin::Speaks;
use crate::shutdown::Tasks;

/// Bytes that a server may send on a stream before its client has taken them. All streams of a
/// connection may be as far behind as that, and the others still flow.
const STREAM_WINDOW: u32 = 256 << 10;

/// What all streams of a connection come to together.
const CONNECTION_WINDOW: u32 = 64 * STREAM_WINDOW;

/// Between two questions whether an HTTP/2 connection is alive, and how long its answer may take.
const ALIVE: Duration = Duration::from_secs(10);

/// Bytes of a head that a server may answer with.
const HEAD_BYTES: usize = 256 << 10;

/// Why a request got no answer.
#[derive(Debug)]
pub(in crate::http) enum Unanswered {
    /// Not a byte of it was sent; here it is again.
    Unsent(Box<Request<UpBody>>, String),
    /// The server said that it did nothing about it.
    Refused(String),
    /// What came of it is not known.
    Lost(String),
}

pub(super) enum Sender {
    Http1(http1::SendRequest<UpBody>),
    Http2(http2::SendRequest<UpBody>),
}

/// A connection in use.
pub(in crate::http) struct Lease {
    pub(super) sender: Sender,
    pub(super) key: Key,
    pub(super) reused: bool,
    /// Its share of an HTTP/2 connection, given back when it is dropped.
    pub(super) _share: Option<Arc<()>>,
}

/// Opens a connection on a stream.
pub(super) async fn open<S>(tasks: &Tasks, stream: S, speaks: Speaks) -> io::Result<Sender>
where
    S: tokio::io::AsyncRead + tokio::io::AsyncWrite + Send + Unpin + 'static,
{
    let io = TokioIo::new(stream);
    match speaks {
        Speaks::Http1 => {
            let mut builder = http1::Builder::new();
            builder.max_buf_size(HEAD_BYTES);
            let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
            tasks.spawn(async move {
                // How it ended is told to whoever waits for an answer on it.
                let _ = connection.with_upgrades().await;
            });
            Ok(Sender::Http1(sender))
        }
        Speaks::Http2 => {
            let mut builder = http2::Builder::new(Exec(tasks.clone()));
            builder
                .timer(TokioTimer::new())
                .keep_alive_interval(ALIVE)
                .keep_alive_timeout(ALIVE)
                .initial_stream_window_size(STREAM_WINDOW)
                .initial_connection_window_size(CONNECTION_WINDOW);
            let (sender, connection) = builder.handshake(io).await.map_err(io::Error::other)?;
            tasks.spawn(async move {
                let _ = connection.await;
            });
            Ok(Sender::Http2(sender))
        }
    }
}

impl Lease {
    /// Whether it carried something before.
    pub(in crate::http) const fn is_reused(&self) -> bool {
        self.reused
    }

    /// Sends a request and waits for the head of its answer.
    pub(in crate::http) async fn send(
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
                None if is_refusal(error.error()) => Unanswered::Refused(why),
                None => Unanswered::Lost(why),
            }
        })
    }
}

/// Whether an HTTP/2 server said of this request that it did nothing about it (RFC 9113 8.7): by its
/// code, or by a goodbye that names an earlier stream as the last that it looked at. Later ones are all
/// that h2 tells of a goodbye: the others go on.
fn is_refusal(error: &hyper::Error) -> bool {
    let mut source = std::error::Error::source(error);
    while let Some(one) = source {
        if let Some(error) = one.downcast_ref::<h2::Error>() {
            let refused = error.reason() == Some(h2::Reason::REFUSED_STREAM);
            return error.is_remote() && (error.is_go_away() || refused);
        }
        source = one.source();
    }
    false
}

/// The path alone in the first line, the host in its header.
fn for_http1(mut request: Request<UpBody>) -> Request<UpBody> {
    if let Some(authority) = request.uri().authority() {
        let host = HeaderValue::from_str(authority.as_str());
        if let (false, Ok(host)) = (request.headers().contains_key(HOST), host) {
            request.headers_mut().insert(HOST, host);
        }
    }
    // As long as it is, and not as a client may have said of something else.
    let exact = hyper::body::Body::size_hint(request.body()).exact();
    let has_body = [Method::POST, Method::PUT, Method::PATCH].contains(request.method());
    if let Some(exact) = exact
        && (has_body || request.headers().contains_key(CONTENT_LENGTH))
    {
        let exact = HeaderValue::from(exact);
        request.headers_mut().insert(CONTENT_LENGTH, exact);
    }
    // hyper would leave out a body of unknown length where the method seldom has one.
    if exact.is_none() && !request.headers().contains_key(CONTENT_LENGTH) {
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

#[cfg(test)]
mod tests {
    use std::collections::VecDeque;

    use super::*;

    #[test]
    fn a_body_is_announced_as_long_as_it_is() {
        let length = |method: &str, said: Option<&str>, body: &'static str| {
            let first = VecDeque::from_iter((!body.is_empty()).then(|| body.into()));
            let mut request = Request::new(UpBody::new(first, None));
            *request.method_mut() = method.parse().unwrap();
            if let Some(said) = said {
                let headers = request.headers_mut();
                headers.insert(CONTENT_LENGTH, said.parse().unwrap());
            }
            let sent = for_http1(request);
            let length = sent.headers().get(CONTENT_LENGTH);
            length.map(|length| length.to_str().unwrap().to_owned())
        };
        assert_eq!(length("GET", None, ""), None);
        assert_eq!(length("GET", Some("55"), ""), Some("0".to_owned()));
        assert_eq!(length("POST", None, ""), Some("0".to_owned()));
        assert_eq!(length("POST", Some("3"), "abc"), Some("3".to_owned()));
    }
}
