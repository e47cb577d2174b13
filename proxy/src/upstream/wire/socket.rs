//! Opening a connection upstream: resolve, connect, set the options every upstream socket has, TLS.
//!
//! A name is resolved once and kept (see [`Endpoint`]). All its addresses are tried in the resolver's
//! order; each gets an equal share of the time that is left, so that one black-holed address (often the IPv6 one) cannot use up the deadline.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rustix::net::sockopt;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use crate::tls::Stream;
use crate::upstream::{Endpoint, Security};
use writefence_config::Tcp;

/// Connects before `deadline`. Running out of time is `io::ErrorKind::TimedOut`.
pub(super) async fn connect(endpoint: &Endpoint, deadline: Instant) -> io::Result<TcpStream> {
    let mut addresses = endpoint.addresses();
    if addresses.is_empty() {
        let found = timeout_at(deadline, lookup(endpoint))
            .await
            .map_err(timed_out)?;
        addresses = Arc::new(found?);
        endpoint.keep(addresses.to_vec());
    }
    let mut failure = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
    for (n, address) in addresses.iter().enumerate() {
        let now = Instant::now();
        let left = u32::try_from(addresses.len() - n).unwrap_or(u32::MAX);
        let share = deadline.saturating_duration_since(now) / left;
        match timeout_at(now + share, TcpStream::connect(address))
            .await
            .map_err(timed_out)
        {
            Ok(Ok(stream)) => {
                set_times(&stream, &endpoint.tcp)?;
                let most = millis(endpoint.tcp.unacknowledged);
                sockopt::set_tcp_user_timeout(&stream, most)?;
                return Ok(stream);
            }
            Ok(Err(error)) | Err(error) => failure = error,
        }
    }
    Err(failure)
}

async fn lookup(endpoint: &Endpoint) -> io::Result<Vec<SocketAddr>> {
    #[cfg(feature = "failpoints")]
    if let Some(found) = pretended(endpoint) {
        return Ok(found);
    }
    let found = tokio::net::lookup_host((endpoint.host.as_str(), endpoint.port)).await?;
    Ok(found.collect())
}

/// For tests: a file in place of DNS, whose lines are a name and where it leads.
#[cfg(feature = "failpoints")]
fn pretended(endpoint: &Endpoint) -> Option<Vec<SocketAddr>> {
    let text = std::fs::read_to_string(std::env::var_os("WRITEFENCE_HOSTS")?).ok()?;
    let of = |line: &str| {
        let address = line.strip_prefix(&endpoint.host)?.trim().parse().ok()?;
        Some(SocketAddr::new(address, endpoint.port))
    };
    Some(text.lines().filter_map(of).collect())
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

/// What every connection gets, downstream too.
///
/// # Errors
/// The kernel refuses.
pub(crate) fn set_times(stream: &TcpStream, tcp: &Tcp) -> io::Result<()> {
    stream.set_nodelay(true)?;
    sockopt::set_socket_keepalive(stream, true)?;
    sockopt::set_tcp_keepidle(stream, tcp.keepalive_idle)?;
    sockopt::set_tcp_keepintvl(stream, tcp.keepalive_interval)?;
    sockopt::set_tcp_keepcnt(stream, tcp.keepalive_probes)?;
    Ok(())
}

fn millis(duration: Duration) -> u32 {
    u32::try_from(duration.as_millis()).unwrap_or(u32::MAX)
}

fn timed_out(_: tokio::time::error::Elapsed) -> io::Error {
    io::ErrorKind::TimedOut.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_kernel_is_told_what_the_configuration_says() {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0")
            .await
            .expect("a listener");
        let port = listener.local_addr().expect("its address").port();
        let secs = Duration::from_secs;
        let tcp = Tcp {
            keepalive_idle: secs(7),
            keepalive_interval: secs(3),
            keepalive_probes: 4,
            unacknowledged: Duration::from_millis(4321),
        };
        let endpoint = Endpoint::with_tcp("127.0.0.1", port, tcp);
        let stream = connect(&endpoint, Instant::now() + secs(5))
            .await
            .expect("a connection");
        assert!(sockopt::socket_keepalive(&stream).expect("keepalive"));
        assert_eq!(sockopt::tcp_keepidle(&stream), Ok(secs(7)));
        assert_eq!(sockopt::tcp_keepintvl(&stream), Ok(secs(3)));
        assert_eq!(sockopt::tcp_keepcnt(&stream), Ok(4));
        assert_eq!(sockopt::tcp_user_timeout(&stream), Ok(4321));
        assert!(stream.nodelay().expect("nodelay"));
    }
}
