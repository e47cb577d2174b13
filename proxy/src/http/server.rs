//! One request as it comes from a client: its head, its body, its answer.
//!
//! The only file that names pingora's server types, beside `socket`, which is what they run on. The
//! rest of this front sees `Downstream` and does not know which HTTP version the client speaks.
//! Reading may be dropped at any point; writing may be dropped only by giving up the request.

use std::future::pending;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderMap, StatusCode, Version, header, request, response};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::Digest;
use pingora::protocols::http::ServerSession;
use pingora::protocols::http::v2::server::{self as h2, H2Accept, H2Options, HttpSession};
use tokio::time::{sleep, timeout};

use super::socket::Socket;
use super::strict;

/// How often a connection is looked at for a client that has left. No call into the system, so it
/// may be often; a held request is looked at once more before it runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// Malformed streams after which an HTTP/2 connection is given up.
const MALFORMED: usize = 32;

/// The client is gone, or does not read or write in time.
#[derive(Debug)]
pub(super) struct Gone;

/// Why there is no request to serve.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum NoRequest {
    /// The client closed.
    Closed,
    /// What came is not a request that everybody understands in the same way.
    Malformed(&'static str),
    /// Its head is over the limit.
    TooLarge,
    /// Its head did not come in time.
    TooSlow,
}

/// What comes from the client.
#[derive(Debug)]
pub(super) enum Input {
    /// A piece of the body.
    Data(Bytes),
    /// The body is complete.
    End,
    /// The client has left, or sends what is no body.
    Broken,
    /// The client has closed its side behind a complete request.
    Left,
}

/// Limits of the client's side.
#[derive(Clone, Copy, Debug)]
pub(super) struct Pace {
    pub(super) head_bytes: usize,
    pub(super) head_time: Duration,
    /// Between two pieces of a body, either way.
    pub(super) piece_time: Duration,
}

/// See the module.
pub(super) struct Downstream {
    session: ServerSession,
    pace: Pace,
    body_done: bool,
    left: bool,
    answered: bool,
    /// Pauses between pieces are no fault of the client: an upgraded connection, a gRPC stream.
    patient: bool,
}

impl Downstream {
    /// Reads the head of an HTTP/1 request.
    pub(super) async fn read(socket: Socket, pace: Pace) -> Result<Self, (Box<Self>, NoRequest)> {
        socket.begin_head(pace.head_bytes);
        let mut this = Self {
            session: ServerSession::new_http1(Box::new(socket)),
            pace,
            body_done: false,
            left: false,
            answered: false,
            patient: false,
        };
        this.session.set_keepalive(Some(0));
        this.session.set_pipelining_enabled(true);
        let read = timeout(pace.head_time, this.session.read_request()).await;
        let cut = this.socket().is_some_and(Socket::end_head);
        let wrong = match read {
            Err(_) => Some(NoRequest::TooSlow),
            Ok(Ok(false)) => Some(NoRequest::Closed),
            Ok(Err(_)) if cut => Some(NoRequest::TooLarge),
            Ok(Err(error)) if *error.etype() == ErrorType::ConnectionClosed => {
                Some(NoRequest::Closed)
            }
            Ok(Err(_)) => Some(NoRequest::Malformed("its head is malformed")),
            Ok(Ok(true)) => this.check_head(),
        };
        if let Some(wrong) = wrong {
            return Err((Box::new(this), wrong));
        }
        // From here on the waits are ours.
        this.session.set_read_timeout(None);
        this.body_done = this.session.is_body_done();
        Ok(this)
    }

    /// What HTTP/1 leaves to interpretation is looked for in the bytes as they came: a parsed head
    /// does not show it any more.
    fn check_head(&self) -> Option<NoRequest> {
        let raw = self.session.as_http1()?.get_headers_raw_bytes();
        if raw.len() > self.pace.head_bytes {
            return Some(NoRequest::TooLarge);
        }
        strict::check(&raw).err().map(NoRequest::Malformed)
    }

    /// Takes a request of an HTTP/2 connection.
    pub(super) fn of_stream(stream: H2Stream, pace: Pace) -> Self {
        let mut session = ServerSession::new_http2(stream.0);
        let length = session.req_header().headers.get(header::CONTENT_LENGTH);
        // A client that says that there is no body may still end its stream with a frame of its own.
        let is_empty = length.is_some_and(|length| length.as_bytes() == b"0");
        let body_done = session.is_body_done() && !is_empty;
        Self {
            session,
            pace,
            body_done,
            left: false,
            answered: false,
            patient: false,
        }
    }

    /// Pieces of the body may be far apart from now on.
    pub(super) fn be_patient(&mut self) {
        self.patient = true;
    }

    pub(super) fn is_http2(&self) -> bool {
        self.session.is_http2()
    }

    /// Method, target, version, headers.
    pub(super) fn head(&self) -> &request::Parts {
        self.session.req_header()
    }

    /// Path and query as they came.
    pub(super) fn target(&self) -> &[u8] {
        self.session.req_header().raw_path()
    }

    pub(super) fn is_upgrade(&self) -> bool {
        self.session.is_upgrade_req()
    }

    /// Whether the whole body has been read.
    pub(super) fn body_done(&self) -> bool {
        self.body_done
    }

    /// Whether the head of an answer is out.
    pub(super) fn is_answered(&self) -> bool {
        self.answered
    }

    /// The client waits for our word before it sends its body.
    pub(super) fn awaits_continue(&self) -> bool {
        let expect = self.head().headers.get(header::EXPECT);
        let asks = expect.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        asks && !self.body_done && !self.answered
    }

    /// Gives that word.
    pub(super) async fn go_on(&mut self) -> Result<(), Gone> {
        if !self.is_http2() && self.head().version == Version::HTTP_11 {
            let word = self.session.write_continue_response();
            in_time(self.pace.piece_time, word).await?;
        }
        Ok(())
    }

    /// The next of the client: a piece of its body if one is `wanted` and not all has come, else
    /// that it leaves. Pending for ever once nothing is left to tell.
    pub(super) async fn input(&mut self, wanted: bool) -> Input {
        if wanted && !self.body_done {
            let read = self.session.read_request_body();
            let piece = match self.patient {
                true => Ok(read.await),
                false => timeout(self.pace.piece_time, read).await,
            };
            return match piece {
                Ok(Ok(Some(data))) => Input::Data(data),
                Ok(Ok(None)) => {
                    self.body_done = true;
                    Input::End
                }
                Ok(Err(_)) | Err(_) => Input::Broken,
            };
        }
        if self.left {
            return pending().await;
        }
        self.until_left().await;
        self.left = true;
        match self.body_done {
            true => Input::Left,
            false => Input::Broken,
        }
    }

    /// Waits until the client leaves. Reads nothing, so a body stays where it is.
    pub(super) async fn until_left(&mut self) {
        if let Some(reset) = self.session.watch_h2_stream_close() {
            let _ = reset.await;
            return;
        }
        while !self.is_gone() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether the client has left, as far as is known without waiting.
    pub(super) fn is_gone(&mut self) -> bool {
        use futures_util::FutureExt;
        if let Some(reset) = self.session.watch_h2_stream_close() {
            return tokio::task::unconstrained(reset).now_or_never().is_some();
        }
        self.socket().is_none_or(Socket::is_closed)
    }

    fn socket(&self) -> Option<&Socket> {
        let stream = self.session.stream()?;
        (**stream).as_any().downcast_ref()
    }

    /// Sends the head of the answer; `end` when no body follows.
    pub(super) async fn answer(&mut self, head: response::Parts, end: bool) -> Result<(), Gone> {
        let mut head = head;
        let version = self.head().version;
        if !self.is_http2() && version == Version::HTTP_11 && has_body(&head, end) {
            let chunked = http::HeaderValue::from_static("chunked");
            head.headers.insert(header::TRANSFER_ENCODING, chunked);
        }
        if head.status == StatusCode::SWITCHING_PROTOCOLS {
            // What follows is no body any more, and has no length.
            (self.body_done, self.patient) = (false, true);
        } else if end
            && !self.is_http2()
            && may_have_body(&head)
            && self.head().method != http::Method::HEAD
        {
            let none = http::HeaderValue::from_static("0");
            head.headers.entry(header::CONTENT_LENGTH).or_insert(none);
        }
        head.version = version;
        self.answered = true;
        let head = Box::new(ResponseHeader::from(head));
        let written = async {
            match &mut self.session {
                // With its end, so that a stream whose body was not read ends in one frame.
                ServerSession::H2(stream) => stream.write_response_header(head, end),
                other => other.write_response_header(head).await,
            }
        };
        in_time(self.pace.piece_time, written).await
    }

    /// Sends a piece of the answer's body.
    pub(super) async fn send(&mut self, data: Bytes) -> Result<(), Gone> {
        if data.is_empty() {
            return Ok(());
        }
        let written = self.session.write_response_body(data, false);
        in_time(self.pace.piece_time, written).await
    }

    /// Sends the whole rest of the answer's body.
    pub(super) async fn send_last(&mut self, data: Bytes) -> Result<(), Gone> {
        let written = self.session.write_response_body(data, true);
        in_time(self.pace.piece_time, written).await
    }

    /// Sends trailers, which end the answer.
    pub(super) async fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        let written = self.session.write_response_trailers(trailers);
        in_time(self.pace.piece_time, written).await
    }

    /// Reads on for a client that was answered or is about to be, up to a bound. True once its body
    /// is complete.
    pub(super) async fn drain(&mut self, most: usize, within: Duration) -> bool {
        let mut left = most;
        let _ = timeout(within, async {
            while !self.body_done && left > 0 {
                match self.input(true).await {
                    Input::Data(data) => left = left.saturating_sub(data.len()),
                    Input::End | Input::Left | Input::Broken => return,
                }
            }
        })
        .await;
        self.body_done
    }

    /// No request comes after this one on its connection.
    pub(super) fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }

    /// Ends the answer. Returns the connection if it can take another request.
    pub(super) async fn finish(self) -> Option<Socket> {
        let piece_time = self.pace.piece_time;
        let finished = timeout(piece_time, self.session.finish()).await;
        let (stream, rest) = finished.ok()?.ok()??.into_parts();
        let mut socket: Socket = *stream.into_any().downcast().ok()?;
        if let Some(rest) = rest {
            socket.put_ahead(&rest);
        }
        Some(socket)
    }

    /// Breaks the answer off so that the client sees that it is not whole.
    pub(super) async fn abort(mut self) {
        if self.is_http2() {
            self.session.shutdown().await;
        }
    }

    /// An answer before there is a request. The connection ends with it.
    pub(super) async fn reject(mut self, head: response::Parts, body: Bytes) {
        self.session.set_keepalive(None);
        let written = async {
            let head = Box::new(ResponseHeader::from(head));
            self.session.write_response_header(head).await?;
            self.session.write_response_body(body, true).await
        };
        if timeout(self.pace.piece_time, written).await.is_ok() {
            self.session.shutdown().await;
        }
    }
}

/// Whether a body of unknown length follows.
fn has_body(head: &response::Parts, end: bool) -> bool {
    !end && may_have_body(head) && !head.headers.contains_key(header::CONTENT_LENGTH)
}

fn may_have_body(head: &response::Parts) -> bool {
    let none = [StatusCode::NO_CONTENT, StatusCode::NOT_MODIFIED];
    !head.status.is_informational() && !none.contains(&head.status)
}

async fn in_time<F>(at_most: Duration, write: F) -> Result<(), Gone>
where
    F: Future<Output = pingora::Result<()>>,
{
    match timeout(at_most, write).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) | Err(_) => Err(Gone),
    }
}

/// A stream of an HTTP/2 connection.
pub(super) struct H2Stream(HttpSession);

/// An HTTP/2 connection.
pub(super) struct H2Connection {
    inner: ::h2::server::Connection<pingora::protocols::Stream, Bytes>,
    digest: Arc<Digest>,
    malformed: usize,
}

impl H2Connection {
    /// Greets the client.
    pub(super) async fn greet(socket: Socket, streams: u32, head_bytes: u32) -> Option<Self> {
        let mut options: H2Options = h2::default_h2_options();
        options
            .max_concurrent_streams(streams)
            .max_header_list_size(head_bytes);
        let inner = h2::handshake(Box::new(socket), Some(options)).await.ok()?;
        Some(Self {
            inner,
            digest: Arc::default(),
            malformed: 0,
        })
    }

    /// The next stream; `None` when the connection is over. It must be asked again and again, also
    /// while streams are served: this is what moves their bytes. Safe to drop.
    pub(super) async fn next(&mut self) -> Option<H2Stream> {
        loop {
            let accepted = HttpSession::from_h2_conn(&mut self.inner, Arc::clone(&self.digest));
            match accepted.await {
                Ok(Some(H2Accept::Session(stream))) => return Some(H2Stream(stream)),
                Ok(Some(H2Accept::Rejected)) if self.malformed < MALFORMED => self.malformed += 1,
                Ok(_) | Err(_) => return None,
            }
        }
    }

    /// Takes no new streams; those that are there go on.
    pub(super) fn wind_down(&mut self) {
        self.inner.graceful_shutdown();
    }
}
