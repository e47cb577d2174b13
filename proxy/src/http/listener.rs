//! Accepts clients of the HTTP front and finds out what they speak.
//!
//! A connection in rest is a small task without buffers: everything a request needs is made when
//! its first byte comes and let go of with its answer. Connections are counted against the
//! listener's limit, and every wait has an end.

mod haste;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::{TcpListener, TcpStream};
use tokio::time::{sleep, timeout};

use super::Front;
use super::figures::Fate;
use super::refuse;
use super::request::{self, Peer};
use super::server::{Downstream, H2Connection, NoRequest};
use super::socket::Socket;
use crate::gate::{Lane, Phase};
use crate::shutdown::Shutdown;
use crate::tls::Stream;
use haste::Haste;

/// After an error of accept (out of file descriptors, mostly) the loop waits this long, so that it
/// neither spins nor gives up.
const PAUSE: Duration = Duration::from_millis(50);

/// What an HTTP/2 client says first.
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long an HTTP/2 client without a request has to close its connection once it was asked to.
const PARTING: Duration = Duration::from_secs(2);

/// Between the first two looks at a preface that comes in pieces, and between the last. Looking costs
/// more than sending nothing does, so the pauses grow.
const PREFACE_PIECE: Duration = Duration::from_millis(2);
const PREFACE_PIECE_MOST: Duration = Duration::from_millis(200);

/// Whether the group opens is decided in milliseconds where its servers answer; connections wait
/// that long in the socket's queue, so that no first write is refused for being early.
const FIRST_WORD: Duration = Duration::from_secs(1);

/// Serves until the listener is taken away or the daemon stops.
pub(super) async fn serve(
    front: Arc<Front>,
    listener: TcpListener,
    mut removed: Shutdown,
    mut stop: Shutdown,
) {
    first_word(&front).await;
    loop {
        // Every arm may be dropped at any point: accept and stopping are cancel safe.
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = removed.stopping() => return,
            () = stop.stopping() => return,
        };
        match accepted {
            Ok((stream, client)) => {
                let counted = Counted::new(&front);
                if counted.before >= front.listener.connections as u64 {
                    front.figures.turn_away();
                    continue;
                }
                let (served, stop) = (Arc::clone(&front), stop.clone());
                front
                    .tasks
                    .spawn(connection(served, stream, client, counted, stop));
            }
            Err(error) => {
                tracing::warn!(%error, "a connection could not be accepted");
                sleep(PAUSE).await;
            }
        }
    }
}

async fn first_word(front: &Front) {
    let mut watch = front.group.gate.watch();
    let opened = async {
        while front.group.gate.look(Lane::Http).phase != Phase::Open {
            watch.changed().await;
        }
    };
    let _ = timeout(FIRST_WORD, opened).await;
}

/// One connection of the limit.
struct Counted {
    front: Arc<Front>,
    before: u64,
}

impl Counted {
    fn new(front: &Arc<Front>) -> Self {
        Self {
            front: Arc::clone(front),
            before: front.figures.connection(),
        }
    }
}

impl Drop for Counted {
    fn drop(&mut self) {
        self.front.figures.disconnected();
    }
}

async fn connection(
    front: Arc<Front>,
    stream: TcpStream,
    client: SocketAddr,
    counted: Counted,
    stop: Shutdown,
) {
    // Without it small answers would wait for the client's delayed acknowledgements.
    let _ = stream.set_nodelay(true);
    // Boxed: only as large as this while it goes on.
    let greeted = timeout(
        front.listener.header_timeout,
        Box::pin(greet(&front, stream)),
    );
    let Ok(Some((socket, is_http2))) = greeted.await else {
        return;
    };
    match is_http2 {
        true => Box::pin(http2(front, socket, client, counted, stop)).await,
        false => http1(front, socket, client, stop).await,
    }
}

/// Does the handshake and looks at what the client speaks.
async fn greet(front: &Front, stream: TcpStream) -> Option<(Socket, bool)> {
    let Some(tls) = &front.tls else {
        let is_http2 = knows_http2(&stream).await?;
        return Some((Socket::new(Stream::Plain(stream)), is_http2));
    };
    let stream = Stream::accept(stream, &tls.current()).await.ok()?;
    let is_http2 = stream.alpn() == Some(b"h2");
    Some((Socket::new(stream), is_http2))
}

/// Whether the client begins as HTTP/2 clients with prior knowledge do.
async fn knows_http2(stream: &TcpStream) -> Option<bool> {
    let mut seen = [0; PREFACE.len()];
    let mut pause = PREFACE_PIECE;
    loop {
        let n = stream.peek(&mut seen).await.ok()?;
        if n == 0 {
            return None;
        }
        if seen.get(..n) != PREFACE.get(..n) {
            return Some(false);
        }
        if n == PREFACE.len() {
            return Some(true);
        }
        sleep(pause).await;
        pause = (pause * 2).min(PREFACE_PIECE_MOST);
    }
}

async fn http1(front: Arc<Front>, mut socket: Socket, client: SocketAddr, mut stop: Shutdown) {
    let peer = Peer {
        client,
        tls: socket.is_tls(),
        tally: Arc::default(),
        stop: stop.clone(),
    };
    loop {
        let wait = timeout(front.listener.idle_timeout, socket.wait());
        // Both arms may be dropped: what was read ahead is kept in the socket.
        let came = tokio::select! {
            came = wait => came,
            () = stop.stopping() => Ok(false),
        };
        if !matches!(came, Ok(true)) {
            return;
        }
        match Box::pin(one(&front, socket, &peer)).await {
            Some(again) => socket = again,
            None => return,
        }
    }
}

async fn one(front: &Arc<Front>, socket: Socket, peer: &Peer) -> Option<Socket> {
    let mut down = match Downstream::read(socket, front.pace()).await {
        Ok(down) => down,
        Err((down, why)) => {
            reject(front, *down, why).await;
            return None;
        }
    };
    if peer.stop.is_stopping() {
        down.close_after();
    }
    request::serve(front, down, peer).await
}

async fn reject(front: &Front, down: Downstream, why: NoRequest) {
    let (status, why) = match why {
        NoRequest::Closed => return,
        NoRequest::Malformed(why) => (http::StatusCode::BAD_REQUEST, why),
        NoRequest::TooLarge => (
            http::StatusCode::REQUEST_HEADER_FIELDS_TOO_LARGE,
            "its head is over the limit",
        ),
        NoRequest::TooSlow => (
            http::StatusCode::REQUEST_TIMEOUT,
            "its head did not come in time",
        ),
    };
    front.figures.count(Fate::Bad);
    tracing::debug!(why, "a request was refused");
    let reply = refuse::bad(status, why);
    down.reject(reply.head, reply.body).await;
}

async fn http2(
    front: Arc<Front>,
    socket: Socket,
    client: SocketAddr,
    counted: Counted,
    mut stop: Shutdown,
) {
    let limit = |value: usize| u32::try_from(value).unwrap_or(u32::MAX);
    let (streams, head) = (front.listener.streams, front.listener.header_bytes);
    let peer = Peer {
        client,
        tls: socket.is_tls(),
        tally: Arc::default(),
        stop: stop.clone(),
    };
    let greeted = H2Connection::greet(socket, limit(streams), limit(head));
    let Ok(Some(mut connection)) = timeout(front.listener.header_timeout, greeted).await else {
        return;
    };
    // Requests tell by their share of its place that they are still there, also those whose client
    // has left: so neither a connection's number of them nor the listener's can be got around.
    let place = Arc::new(counted);
    let under_way = |place: &Arc<Counted>| Arc::strong_count(place) - 1;
    let mut winding_down = false;
    let mut haste = Haste::default();
    loop {
        let idle = under_way(&place) == 0;
        let patience = match winding_down {
            true => PARTING,
            false => front.listener.idle_timeout,
        };
        // All arms may be dropped: the next stream stays with the connection.
        let stream = tokio::select! {
            stream = connection.next() => stream,
            () = stop.stopping(), if !winding_down => {
                winding_down = true;
                connection.wind_down();
                continue;
            }
            () = sleep(patience) => {
                if !idle || under_way(&place) > 0 {
                    continue;
                }
                if winding_down {
                    return;
                }
                // Said first, so that a request that is on its way now is not lost with it.
                winding_down = true;
                connection.wind_down();
                continue;
            }
        };
        let Some(stream) = stream else {
            return;
        };
        if haste.is_too_much(peer.tally.gone()) {
            tracing::debug!(%client, "a client that only asks and leaves is given up");
            return connection.give_up().await;
        }
        if under_way(&place) >= streams {
            stream.refuse();
            continue;
        }
        let (front, peer, place) = (Arc::clone(&front), peer.clone(), Arc::clone(&place));
        let tasks = front.tasks.clone();
        tasks.spawn(async move {
            let down = Downstream::of_stream(stream, front.pace());
            request::serve(&front, down, &peer).await;
            drop(place);
        });
    }
}
