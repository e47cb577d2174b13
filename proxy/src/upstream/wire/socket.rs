//! Opening a connection upstream: resolve, connect, set the options every upstream socket has, TLS.
//!
//! All addresses of a name are tried in the resolver's order; each gets an equal share of the time
//! that is left, so that one black-holed address (often the IPv6 one) cannot use up the deadline.

use std::io;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::tls::Stream;
use crate::upstream::{Endpoint, Security};

/// Silence after which the kernel asks whether the peer is still there. Shorter costs packets on
/// thousands of idle sessions; longer leaves a vanished server unnoticed.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(10);
/// Pause between unanswered questions.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(3);
/// Unanswered questions after which the peer is gone: 10 s + 3 × 3 s in all.
const KEEPALIVE_PROBES: u32 = 3;
/// How long sent bytes may stay unacknowledged, in milliseconds. Without it a write towards a
/// server that lost power is retried by the kernel for about 15 minutes, and its permit with it.
const UNACKNOWLEDGED_MS: u32 = 15_000;

/// Connects before `deadline`. Running out of time is `io::ErrorKind::TimedOut`.
pub(super) async fn connect(endpoint: &Endpoint, deadline: Instant) -> io::Result<TcpStream> {
    let lookup = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port));
    let addresses: Vec<_> = timeout_at(deadline, lookup)
        .await
        .map_err(timed_out)??
        .collect();
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (n, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(address))
            .await
            .map_err(timed_out)
        {
            Ok(Ok(stream)) => return prepare(stream),
            Ok(Err(error)) | Err(error) => failure = error,
        }
    }
    Err(failure)
}

/// SSLRequest: the length, and the code that stands where a protocol version would.
const SSL_REQUEST: [u8; 8] = [0, 0, 0, 8, 4, 210, 22, 47];

/// Makes the connection what the endpoint's configuration asks for. Exactly one byte is read before
/// the handshake, so nothing that was sent in plain text can pass for encrypted.
pub(super) async fn secure(mut stream: TcpStream, endpoint: &Endpoint) -> io::Result<Stream> {
    let (tls, must) = match &endpoint.link.security {
        Security::Plain => return Ok(Stream::Plain(stream)),
        Security::Prefer(tls) => (tls, false),
        Security::Require(tls) => (tls, true),
    };
    stream.write_all(&SSL_REQUEST).await?;
    let refused = |what| Err(io::Error::new(io::ErrorKind::Unsupported, what));
    match stream.read_u8().await? {
        b'S' => tls.connect(stream, &endpoint.host).await,
        b'N' if must => refused("the server does not speak TLS, and tls.mode asks for it"),
        b'N' => Ok(Stream::Plain(stream)),
        // An error in plain text may be anybody's, so it is not repeated.
        _ => refused("the server does not answer the request for TLS as PostgreSQL does"),
    }
}

fn prepare(stream: TcpStream) -> io::Result<TcpStream> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(&stream, true)?;
    sockopt::set_tcp_keepidle(&stream, KEEPALIVE_IDLE)?;
    sockopt::set_tcp_keepintvl(&stream, KEEPALIVE_INTERVAL)?;
    sockopt::set_tcp_keepcnt(&stream, KEEPALIVE_PROBES)?;
    sockopt::set_tcp_user_timeout(&stream, UNACKNOWLEDGED_MS)?;
    Ok(stream)
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}
