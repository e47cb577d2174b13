//! One request as it comes from a client: its head, its body, its answer.
//!
//! HTTP/1 runs on pingora's session (`http1`) and HTTP/2 on the crate `h2` (`http2`), which nobody
//! else names, beside `socket`, which is what they run on. The rest of this front sees `Downstream` and does not
//! know which HTTP version the client speaks. Reading may be dropped at any point; writing may be
//! dropped only by giving up the request.

mod http1;
mod http2;

use std::future::pending;
use std::time::Duration;

use bytes::Bytes;
use futures_util::FutureExt as _;
use http::{HeaderMap, StatusCode, Version, header, request, response};
use tokio::time::timeout;

use super::socket::Socket;
use http1::H1Request;

pub(super) use http2::{H2Connection, H2Stream};

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
    /// The next piece of the body did not come in time.
    Slow,
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
    leg: Leg,
    pace: Pace,
    body_done: bool,
    /// What stood behind the body, until somebody takes it.
    trailers: Option<HeaderMap>,
    left: bool,
    answered: bool,
    /// The client was told to send its body.
    continued: bool,
    /// Pauses between pieces are no fault of the client: an upgraded connection, a gRPC stream.
    patient: bool,
}

enum Leg {
    Http1(H1Request),
    Http2(Box<H2Stream>),
}

impl Downstream {
    fn new(leg: Leg, pace: Pace) -> Self {
        Self {
            leg,
            pace,
            body_done: false,
            trailers: None,
            left: false,
            answered: false,
            continued: false,
            patient: false,
        }
    }

    /// Reads the head of an HTTP/1 request.
    pub(super) async fn read(socket: Socket, pace: Pace) -> Result<Self, (Box<Self>, NoRequest)> {
        let (mut request, wrong) = H1Request::read(socket, pace).await;
        let body_done = wrong.is_none() && request.is_body_done();
        let this = Self {
            body_done,
            ..Self::new(Leg::Http1(request), pace)
        };
        match wrong {
            None => Ok(this),
            Some(wrong) => Err((Box::new(this), wrong)),
        }
    }

    /// Takes a request of an HTTP/2 connection.
    pub(super) fn of_stream(stream: H2Stream, pace: Pace) -> Self {
        let body_done = stream.is_body_done();
        Self {
            body_done,
            ..Self::new(Leg::Http2(Box::new(stream)), pace)
        }
    }

    /// Pieces of the body may be far apart from now on.
    pub(super) fn be_patient(&mut self) {
        self.patient = true;
    }

    pub(super) const fn is_http2(&self) -> bool {
        matches!(self.leg, Leg::Http2(_))
    }

    /// Method, target, version, headers.
    pub(super) fn head(&self) -> &request::Parts {
        match &self.leg {
            Leg::Http1(request) => request.head(),
            Leg::Http2(stream) => stream.head(),
        }
    }

    /// Path and query as they came.
    pub(super) fn target(&self) -> &[u8] {
        match &self.leg {
            Leg::Http1(request) => request.target(),
            Leg::Http2(stream) => stream.target(),
        }
    }

    pub(super) fn is_upgrade(&self) -> bool {
        match &self.leg {
            Leg::Http1(request) => request.is_upgrade(),
            Leg::Http2(_) => false,
        }
    }

    /// Whether the whole body has been read.
    pub(super) const fn body_done(&self) -> bool {
        self.body_done
    }

    /// What stood behind the body.
    pub(super) const fn take_trailers(&mut self) -> Option<HeaderMap> {
        self.trailers.take()
    }

    /// Whether the head of an answer is out.
    pub(super) const fn is_answered(&self) -> bool {
        self.answered
    }

    /// The client waits for our word before it sends its body.
    pub(super) fn awaits_continue(&self) -> bool {
        let expect = self.head().headers.get(header::EXPECT);
        let asks = expect.is_some_and(|v| v.as_bytes().eq_ignore_ascii_case(b"100-continue"));
        asks && !self.body_done && !self.answered && !self.continued
    }

    /// Gives that word.
    pub(super) async fn go_on(&mut self) -> Result<(), Gone> {
        self.continued = true;
        let is_1_0 = self.head().version == Version::HTTP_10;
        match &mut self.leg {
            Leg::Http2(stream) => stream.go_on(),
            Leg::Http1(_) if is_1_0 => Ok(()),
            Leg::Http1(request) => request.go_on().await,
        }
    }

    /// Bytes of the body that may lie here unread.
    pub(super) fn unread(&self) -> usize {
        match &self.leg {
            // They stay with the system, or with the client.
            Leg::Http1(_) => 0,
            Leg::Http2(stream) => stream.unread(),
        }
    }

    /// Whether the client has said how long its body is.
    pub(super) fn has_length(&self) -> bool {
        self.head().headers.contains_key(header::CONTENT_LENGTH)
    }

    /// The next of the client: a piece of its body if one is `wanted` and not all has come, else
    /// that it leaves. Pending for ever once nothing is left to tell.
    pub(super) async fn input(&mut self, wanted: bool) -> Input {
        if wanted && !self.body_done {
            let patience = (!self.patient).then_some(self.pace.piece_time);
            let piece = match patience {
                None => Ok(self.piece().await),
                Some(most) => timeout(most, self.piece()).await,
            };
            return match piece {
                Ok(Ok(Some(data))) => Input::Data(data),
                Ok(Ok(None)) => {
                    self.body_done = true;
                    Input::End
                }
                Ok(Err(Gone)) => Input::Broken,
                Err(_) => Input::Slow,
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

    async fn piece(&mut self) -> Result<Option<Bytes>, Gone> {
        let stream = match &mut self.leg {
            Leg::Http1(request) => return request.piece().await,
            Leg::Http2(stream) => stream,
        };
        if let Some(data) = stream.piece().await? {
            return Ok(Some(data));
        }
        self.trailers = stream.trailers().await?;
        Ok(None)
    }

    /// Waits until the client leaves. Reads nothing, so a body stays where it is.
    pub(super) async fn until_left(&mut self) {
        match &mut self.leg {
            Leg::Http2(stream) => stream.until_reset().await,
            Leg::Http1(request) => request.until_left().await,
        }
    }

    /// Whether the client has left, as far as is known without waiting.
    pub(super) fn is_gone(&mut self) -> bool {
        match &mut self.leg {
            Leg::Http2(stream) => {
                let reset = tokio::task::unconstrained(stream.until_reset());
                reset.now_or_never().is_some()
            }
            Leg::Http1(request) => request.is_closed(),
        }
    }

    /// Says something before the answer, to those who know of such a thing.
    pub(super) async fn hint(&mut self, head: response::Parts) -> Result<(), Gone> {
        let knows = self.head().version != Version::HTTP_10;
        match &mut self.leg {
            _ if self.answered || !knows => Ok(()),
            Leg::Http2(stream) => stream.hint(head),
            Leg::Http1(request) => request.say(head).await,
        }
    }

    /// Sends the head of the answer; `end` when no body follows.
    pub(super) async fn answer(&mut self, head: response::Parts, end: bool) -> Result<(), Gone> {
        let mut head = head;
        let version = self.head().version;
        if head.status == StatusCode::NO_CONTENT {
            // Some clients would wait for a body of that length (RFC 9110 8.6).
            head.headers.remove(header::CONTENT_LENGTH);
        }
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
        match &mut self.leg {
            // With its end, so that a stream whose body was not read ends in one frame.
            Leg::Http2(stream) => stream.answer(head, end),
            Leg::Http1(request) => request.say(head).await,
        }
    }

    /// Sends a piece of the answer's body.
    pub(super) async fn send(&mut self, data: Bytes) -> Result<(), Gone> {
        match data.is_empty() {
            true => Ok(()),
            false => self.write(data, false).await,
        }
    }

    /// Sends the whole rest of the answer's body.
    pub(super) async fn send_last(&mut self, data: Bytes) -> Result<(), Gone> {
        self.write(data, true).await
    }

    async fn write(&mut self, data: Bytes, last: bool) -> Result<(), Gone> {
        match &mut self.leg {
            Leg::Http2(stream) => {
                let sent = timeout(self.pace.piece_time, stream.send(data, last)).await;
                sent.unwrap_or(Err(Gone))
            }
            Leg::Http1(request) => request.send(data, last).await,
        }
    }

    /// Sends trailers, which end the answer. Over HTTP/1 there are none: pingora writes none.
    pub(super) fn trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        match &mut self.leg {
            Leg::Http2(stream) => stream.send_trailers(trailers),
            Leg::Http1(_) => Ok(()),
        }
    }

    /// Reads on for a client that was answered or is about to be, up to a bound. True once its body
    /// is complete.
    pub(super) async fn drain(&mut self, most: usize, within: Duration) -> bool {
        let mut left = most;
        let _ = timeout(within, async {
            while !self.body_done && left > 0 {
                match self.input(true).await {
                    Input::Data(data) => left = left.saturating_sub(data.len()),
                    Input::End | Input::Left | Input::Broken | Input::Slow => return,
                }
            }
        })
        .await;
        self.body_done
    }

    /// No request comes after this one on its connection.
    pub(super) fn close_after(&mut self) {
        if let Leg::Http1(request) = &mut self.leg {
            request.close_after();
        }
    }

    /// Ends the answer. Returns the connection if it can take another request.
    pub(super) async fn finish(self) -> Option<Socket> {
        match self.leg {
            Leg::Http1(request) => request.finish().await,
            Leg::Http2(mut stream) => {
                stream.finish();
                None
            }
        }
    }

    /// Breaks the answer off so that the client sees that it is not whole.
    pub(super) fn abort(self) {
        if let Leg::Http2(mut stream) = self.leg {
            stream.abort();
        }
    }

    /// An answer before there is a request. The connection ends with it.
    pub(super) async fn reject(self, head: response::Parts, body: Bytes) {
        if let Leg::Http1(request) = self.leg {
            request.reject(head, body).await;
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
