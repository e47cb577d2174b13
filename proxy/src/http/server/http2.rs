//! A client's HTTP/2 connection and its streams, straight on the crate `h2`.
//!
//! Not pingora's session of a stream, which has no place for the trailers of a request nor for an
//! answer before the answer (103). What pingora refuses of a head is refused here as well: whoever is
//! behind us may speak HTTP/1, where a second length or host would be another request.

use std::future::poll_fn;
use std::time::Duration;

use bytes::Bytes;
use h2::server::{Connection, SendResponse};
use h2::{Reason, RecvStream, SendStream};
use http::header::{self, HeaderMap};
use http::{Method, Response, StatusCode, Uri, request, response};
use pingora::protocols::http::date::get_cached_date;
use tokio::time::timeout;

use super::Gone;
use crate::http::socket::Socket;

/// Malformed streams after which a connection is given up.
const MALFORMED: usize = 32;

/// Bytes that a client may send on a stream before they are read.
const STREAM_WINDOW: u32 = 65_535;

/// What small frames may take here beside their bytes until they are read. By itself it would grow
/// with the window of the connection.
const SMALL_FRAMES: usize = 256 << 10;

/// How long the last words of a connection that is given up may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// See the module.
pub(in crate::http) struct H2Connection {
    inner: Connection<Socket, Bytes>,
    malformed: usize,
}

impl H2Connection {
    /// Greets the client. WebSockets over HTTP/2 (RFC 8441) are not announced, so clients open theirs
    /// over HTTP/1.1.
    pub(in crate::http) async fn greet(
        socket: Socket,
        streams: u32,
        head_bytes: u32,
    ) -> Option<Self> {
        let mut builder = h2::server::Builder::new();
        builder
            .max_concurrent_streams(streams)
            .initial_window_size(STREAM_WINDOW)
            // What lies unread of a held write takes no other stream's room.
            .initial_connection_window_size(whole_window(streams))
            .data_frame_budget(SMALL_FRAMES)
            .max_header_list_size(head_bytes);
        let inner = builder.handshake(socket).await.ok()?;
        Some(Self {
            inner,
            malformed: 0,
        })
    }

    /// The next stream; `None` when the connection is over. It must be asked again and again, also
    /// while streams are served: this is what moves their bytes. Safe to drop.
    pub(in crate::http) async fn next(&mut self) -> Option<H2Stream> {
        while self.malformed < MALFORMED {
            let (request, mut respond) = self.inner.accept().await?.ok()?;
            let (head, body) = request.into_parts();
            match flaw(&head) {
                None => return Some(H2Stream::new(head, body, respond)),
                Some(Flaw::Framing) => respond.send_reset(Reason::PROTOCOL_ERROR),
                Some(Flaw::Address) => {
                    let mut answer = Response::new(());
                    *answer.status_mut() = StatusCode::BAD_REQUEST;
                    // A client that has left already needs none.
                    let _ = respond.send_response(answer, true);
                }
            }
            self.malformed += 1;
        }
        self.give_up().await;
        None
    }

    /// Takes no new streams; those that are there go on.
    pub(in crate::http) fn wind_down(&mut self) {
        self.inner.graceful_shutdown();
    }

    /// Ends a connection whose client asks too much, and says so.
    pub(in crate::http) async fn give_up(&mut self) {
        self.inner.abrupt_shutdown(Reason::ENHANCE_YOUR_CALM);
        let closed = poll_fn(|cx| self.inner.poll_closed(cx));
        let _ = timeout(LAST_WORDS, closed).await;
    }
}

/// Room for what all streams of a connection may send unread, within what HTTP/2 can say.
fn whole_window(streams: u32) -> u32 {
    let most = i32::MAX.unsigned_abs();
    STREAM_WINDOW.saturating_mul(streams).min(most)
}

/// What is wrong with the head of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Flaw {
    /// Its length could be read in two ways.
    Framing,
    /// It does not say for whom it is, or says it in two ways.
    Address,
}

fn flaw(head: &request::Parts) -> Option<Flaw> {
    let mut lengths = head.headers.get_all(header::CONTENT_LENGTH).iter();
    if let Some(length) = lengths.next() {
        let length = length.as_bytes();
        let is_number = !length.is_empty() && length.iter().all(u8::is_ascii_digit);
        if !is_number || lengths.next().is_some() {
            return Some(Flaw::Framing);
        }
    }
    if head.headers.contains_key(header::TRANSFER_ENCODING) {
        return Some(Flaw::Framing);
    }
    let mut hosts = head.headers.get_all(header::HOST).iter();
    let (host, second) = (hosts.next(), hosts.next());
    let authority = head.uri.authority().map(|one| one.as_str().as_bytes());
    let is_one = match (authority, host.map(http::HeaderValue::as_bytes)) {
        (None, None) => false,
        (Some(one), Some(other)) => one.eq_ignore_ascii_case(other) && !one.contains(&b'@'),
        (Some(one), None) | (None, Some(one)) => !one.contains(&b'@'),
    };
    let is_sound = is_one && second.is_none() && has_path(&head.method, &head.uri);
    (!is_sound).then_some(Flaw::Address)
}

/// A path, `*` for OPTIONS, and nothing for CONNECT (which is answered later).
fn has_path(method: &Method, uri: &Uri) -> bool {
    match uri.path_and_query().map(http::uri::PathAndQuery::as_str) {
        _ if method == Method::CONNECT => true,
        Some("*") => method == Method::OPTIONS,
        Some(path) => path.starts_with('/'),
        None => false,
    }
}

/// One request and its answer.
pub(in crate::http) struct H2Stream {
    head: request::Parts,
    body: RecvStream,
    respond: SendResponse<Bytes>,
    /// Once the head of the answer is out.
    answer: Option<SendStream<Bytes>>,
    ended: bool,
}

impl H2Stream {
    fn new(head: request::Parts, body: RecvStream, respond: SendResponse<Bytes>) -> Self {
        Self {
            head,
            body,
            respond,
            answer: None,
            ended: false,
        }
    }

    /// Turns it away before anything was done: its client may send it again, whatever it is.
    pub(in crate::http) fn refuse(mut self) {
        self.respond.send_reset(Reason::REFUSED_STREAM);
    }

    pub(super) const fn head(&self) -> &request::Parts {
        &self.head
    }

    /// Path and query as they came.
    pub(super) fn target(&self) -> &[u8] {
        let target = self.head.uri.path_and_query();
        target.map_or(b"/", |target| target.as_str().as_bytes())
    }

    /// Nothing more is to come of the body.
    pub(super) fn is_body_done(&self) -> bool {
        self.body.is_end_stream()
    }

    /// Bytes of the body that may lie here unread.
    pub(super) fn unread(&self) -> usize {
        let length = self.head.headers.get(header::CONTENT_LENGTH);
        let length = length.and_then(|length| length.to_str().ok()?.parse().ok());
        match self.is_body_done() {
            true => 0,
            false => length.map_or(STREAM_WINDOW as usize, |n: usize| {
                n.min(STREAM_WINDOW as usize)
            }),
        }
    }

    /// Tells the client to send its body.
    pub(super) fn go_on(&mut self) -> Result<(), Gone> {
        let mut head = Response::new(()).into_parts().0;
        head.status = StatusCode::CONTINUE;
        self.hint(head)
    }

    /// The next piece of the body; `None` behind the last. Safe to drop.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Gone> {
        let Some(data) = self.body.data().await else {
            return Ok(None);
        };
        let data = data.map_err(|_| Gone)?;
        // Fails only where the stream is over already.
        let _ = self.body.flow_control().release_capacity(data.len());
        Ok(Some(data))
    }

    /// What stands behind the body. Safe to drop.
    pub(super) async fn trailers(&mut self) -> Result<Option<HeaderMap>, Gone> {
        self.body.trailers().await.map_err(|_| Gone)
    }

    /// Waits until the client resets the stream or its connection ends. Safe to drop.
    pub(super) async fn until_reset(&mut self) {
        let _ = poll_fn(|cx| match &mut self.answer {
            Some(answer) => answer.poll_reset(cx),
            None => self.respond.poll_reset(cx),
        })
        .await;
    }

    /// Says something before the answer.
    pub(super) fn hint(&mut self, head: response::Parts) -> Result<(), Gone> {
        let hint = Response::from_parts(head, ());
        self.respond.send_informational(hint).map_err(|_| Gone)
    }

    /// Sends the head of the answer; `end` when nothing follows.
    pub(super) fn answer(&mut self, mut head: response::Parts, end: bool) -> Result<(), Gone> {
        if !head.headers.contains_key(header::DATE) {
            head.headers.insert(header::DATE, get_cached_date());
        }
        let answer = self
            .respond
            .send_response(Response::from_parts(head, ()), end);
        self.answer = Some(answer.map_err(|_| Gone)?);
        self.ended = end;
        Ok(())
    }

    /// Sends a piece of the answer's body, as fast as the client takes it.
    pub(super) async fn send(&mut self, mut data: Bytes, end: bool) -> Result<(), Gone> {
        let answer = self.answer.as_mut().ok_or(Gone)?;
        while !data.is_empty() {
            answer.reserve_capacity(data.len());
            let room = poll_fn(|cx| answer.poll_capacity(cx)).await;
            let room = room.and_then(Result::ok).ok_or(Gone)?;
            let piece = data.split_to(room.min(data.len()));
            if piece.is_empty() {
                // Capacity that was taken away again; the next is waited for.
                continue;
            }
            let last = end && data.is_empty();
            answer.send_data(piece, last).map_err(|_| Gone)?;
            self.ended = last;
        }
        Ok(())
    }

    /// Sends trailers, which end the answer.
    pub(super) fn send_trailers(&mut self, trailers: HeaderMap) -> Result<(), Gone> {
        let answer = self.answer.as_mut().ok_or(Gone)?;
        answer.send_trailers(trailers).map_err(|_| Gone)?;
        self.ended = true;
        Ok(())
    }

    /// Ends the answer where its end is not told yet.
    pub(super) fn finish(&mut self) {
        if let (false, Some(answer)) = (self.ended, &mut self.answer) {
            // Fails only where the client has left.
            let _ = answer.send_data(Bytes::new(), true);
            self.ended = true;
        }
    }

    /// Breaks the answer off so that the client sees that it is not whole.
    pub(super) fn abort(&mut self) {
        if !self.ended {
            self.respond.send_reset(Reason::INTERNAL_ERROR);
        }
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    type Headers<'a> = &'a [(&'a str, &'a str)];

    fn of(method: &str, uri: &str, headers: Headers<'_>) -> Option<Flaw> {
        let mut request = Request::builder().method(method).uri(uri);
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        flaw(&request.body(()).unwrap().into_parts().0)
    }

    #[test]
    fn a_head_that_could_be_read_in_two_ways_is_no_request() {
        let length = "content-length";
        let table: [(Headers<'_>, Option<Flaw>); 10] = [
            (&[], None),
            (&[(length, "3")], None),
            (&[("host", "A")], None),
            (&[(length, "3"), (length, "3")], Some(Flaw::Framing)),
            (&[(length, "3, 3")], Some(Flaw::Framing)),
            (&[(length, "+3")], Some(Flaw::Framing)),
            (&[(length, "")], Some(Flaw::Framing)),
            (&[("transfer-encoding", "chunked")], Some(Flaw::Framing)),
            (&[("host", "b")], Some(Flaw::Address)),
            (&[("host", "a"), ("host", "a")], Some(Flaw::Address)),
        ];
        for (headers, expected) in table {
            assert_eq!(of("POST", "http://a/x", headers), expected, "{headers:?}");
        }
        assert_eq!(of("GET", "/x", &[]), Some(Flaw::Address), "for nobody");
        assert_eq!(of("GET", "http://u@a/x", &[]), Some(Flaw::Address));
        assert_eq!(of("GET", "/x", &[("host", "u@a")]), Some(Flaw::Address));
        assert_eq!(of("GET", "*", &[("host", "a")]), Some(Flaw::Address));
        assert_eq!(of("OPTIONS", "*", &[("host", "a")]), None);
        assert_eq!(of("CONNECT", "a:443", &[]), None, "answered later");
    }
}
