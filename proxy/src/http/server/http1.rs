//! A request over HTTP/1 and its answer, on pingora's session.
//!
//! The session frames bodies and keeps a connection for the next request. What it does not do: it reads
//! the trailers of a request away and writes none of an answer; it leaves to interpretation what `strict`
//! refuses; and its own timeouts are not used, since all waits are ours.

use std::time::Duration;

use bytes::Bytes;
use http::{request, response};
use pingora::ErrorType;
use pingora::http::ResponseHeader;
use pingora::protocols::http::ServerSession;
use tokio::time::{sleep, timeout};

use super::{Gone, NoRequest, Pace};
use crate::http::socket::Socket;
use crate::http::strict;

/// How often a connection is looked at for a client that has left. No call into the system, so it
/// may be often; a held request is looked at once more before it runs.
const LOOK_EVERY: Duration = Duration::from_millis(50);

/// See the module.
pub(super) struct H1Request {
    session: Box<ServerSession>,
    /// For each write.
    piece_time: Duration,
}

impl H1Request {
    /// Reads the head, and says what is wrong with it.
    pub(super) async fn read(socket: Socket, pace: Pace) -> (Self, Option<NoRequest>) {
        socket.begin_head(pace.head_bytes);
        let mut session = Box::new(ServerSession::new_http1(Box::new(socket)));
        session.set_keepalive(Some(0));
        session.set_pipelining_enabled(true);
        let read = timeout(pace.head_time, session.read_request()).await;
        let cut = socket_of(&session).is_some_and(Socket::end_head);
        let wrong = match read {
            Err(_) => Some(NoRequest::TooSlow),
            Ok(Ok(false)) => Some(NoRequest::Closed),
            Ok(Err(_)) if cut => Some(NoRequest::TooLarge),
            Ok(Err(error)) if *error.etype() == ErrorType::ConnectionClosed => {
                Some(NoRequest::Closed)
            }
            Ok(Err(_)) => Some(NoRequest::Malformed("its head is malformed")),
            Ok(Ok(true)) => check_head(&session, pace.head_bytes),
        };
        // From here on the waits are ours.
        session.set_read_timeout(None);
        let piece_time = pace.piece_time;
        let this = Self {
            session,
            piece_time,
        };
        (this, wrong)
    }

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

    /// Nothing more is to come of the body.
    pub(super) fn is_body_done(&mut self) -> bool {
        self.session.is_body_done()
    }

    /// The next piece of the body; `None` behind the last. Safe to drop.
    pub(super) async fn piece(&mut self) -> Result<Option<Bytes>, Gone> {
        self.session.read_request_body().await.map_err(|_| Gone)
    }

    /// Waits until the client has closed its side. Safe to drop.
    pub(super) async fn until_left(&self) {
        while !self.is_closed() {
            sleep(LOOK_EVERY).await;
        }
    }

    /// Whether it has.
    pub(super) fn is_closed(&self) -> bool {
        socket_of(&self.session).is_none_or(Socket::is_closed)
    }

    /// Tells the client to send its body.
    pub(super) async fn go_on(&mut self) -> Result<(), Gone> {
        in_time(self.piece_time, self.session.write_continue_response()).await
    }

    /// Sends a head: of the answer, or of something before it.
    pub(super) async fn say(&mut self, head: response::Parts) -> Result<(), Gone> {
        let head = Box::new(ResponseHeader::from(head));
        in_time(self.piece_time, self.session.write_response_header(head)).await
    }

    /// Sends a piece of the answer's body.
    pub(super) async fn send(&mut self, data: Bytes, last: bool) -> Result<(), Gone> {
        let write = self.session.write_response_body(data, last);
        in_time(self.piece_time, write).await
    }

    /// No request comes after this one on its connection.
    pub(super) fn close_after(&mut self) {
        self.session.set_keepalive(None);
    }

    /// Ends the answer. Returns the connection if it can take another request.
    pub(super) async fn finish(self) -> Option<Socket> {
        let finished = timeout(self.piece_time, self.session.finish()).await;
        let (stream, rest) = finished.ok()?.ok()??.into_parts();
        let mut socket: Socket = *stream.into_any().downcast().ok()?;
        if let Some(rest) = rest {
            socket.put_ahead(&rest);
        }
        Some(socket)
    }

    /// An answer before there is a request. The connection ends with it.
    pub(super) async fn reject(mut self, head: response::Parts, body: Bytes) {
        self.close_after();
        let written = async {
            self.say(head).await?;
            self.send(body, true).await
        };
        if written.await.is_ok() {
            self.session.shutdown().await;
        }
    }
}

/// What HTTP/1 leaves to interpretation is looked for in the bytes as they came: a parsed head
/// does not show it any more.
fn check_head(session: &ServerSession, most: usize) -> Option<NoRequest> {
    let raw = session.as_http1()?.get_headers_raw_bytes();
    if raw.len() > most {
        return Some(NoRequest::TooLarge);
    }
    strict::check(&raw).err().map(NoRequest::Malformed)
}

fn socket_of(session: &ServerSession) -> Option<&Socket> {
    let stream = session.stream()?;
    (**stream).as_any().downcast_ref()
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
