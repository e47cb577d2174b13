//! How a connection becomes encrypted, or stays plain: asked for, or TLS from the first byte on.
//!
//! PostgreSQL's order and no other: TLS once, GSS encryption refused once, direct TLS only as the
//! very first thing and only with its protocol named, and nothing in plain text between a request
//! for TLS and its answer, since that could pass for encrypted afterwards (CVE-2021-23222). Cancel
//! requests may come plain even where sessions may not: older clients send them so.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use tokio::io::AsyncWriteExt;
use tokio::time::timeout;

use super::door::Door;
use super::startup::{Asked, Heard, Hello, HelloError, TLS_HANDSHAKE, read_hello};
use crate::tls::{ServerTls, Stream};

/// The protocol's registered name.
pub(crate) const ALPN: &[u8] = b"postgresql";

/// A client's connection on its way in.
pub(crate) struct Line {
    /// None after a handshake that failed: nothing can be said any more.
    pub(crate) stream: Option<Stream>,
    /// The hash of the certificate that this client saw, for channel binding.
    pub(crate) end_point: Option<Arc<[u8]>>,
}

/// Reads what the client wants and encrypts the connection where that is asked for.
pub(crate) async fn hello(
    line: &mut Line,
    door: &Door,
    within: Duration,
) -> Result<Hello, HelloError> {
    timeout(within, negotiate(line, door))
        .await
        .unwrap_or(Err(HelloError::Slow(within)))
}

async fn negotiate(line: &mut Line, door: &Door) -> Result<Hello, HelloError> {
    let mut asked = Asked::default();
    if let Some(tls) = &door.tls
        && first_byte(line).await? == Some(TLS_HANDSHAKE)
    {
        encrypt(line, tls).await?;
        let named = line.stream.as_ref().and_then(|stream| stream.alpn());
        if named != Some(ALPN) {
            return Err(HelloError::NoAlpn);
        }
        asked.ssl = true;
    }
    loop {
        let stream = line.stream.as_mut().ok_or_else(gone)?;
        match read_hello(stream, &mut asked, door.tls.is_some()).await? {
            Heard::Hello(Hello::Session(_)) if door.must_encrypt && !stream.is_tls() => {
                return Err(HelloError::MustEncrypt);
            }
            Heard::Hello(hello) => return Ok(hello),
            Heard::Encrypt => {
                let early = stream.socket().peek(&mut [0]).now_or_never();
                if early.is_some_and(|seen| seen.is_ok_and(|n| n > 0)) {
                    return Err(HelloError::Early);
                }
                stream.write_all(b"S").await?;
                if let Some(tls) = &door.tls {
                    encrypt(line, tls).await?;
                }
            }
        }
    }
}

/// The first byte, left where it is; `None` when the client has left.
async fn first_byte(line: &Line) -> Result<Option<u8>, HelloError> {
    let stream = line.stream.as_ref().ok_or_else(gone)?;
    let mut first = [0];
    let n = stream.socket().peek(&mut first).await?;
    Ok((n > 0).then_some(first[0]))
}

async fn encrypt(line: &mut Line, tls: &ServerTls) -> Result<(), HelloError> {
    let material = tls.current();
    match line.stream.take() {
        Some(Stream::Plain(socket)) => {
            let encrypted = Stream::accept(socket, &material).await;
            line.stream = Some(encrypted.map_err(HelloError::Handshake)?);
            line.end_point.clone_from(&material.end_point);
            Ok(())
        }
        Some(Stream::Tls(_)) | None => Err(gone().into()),
    }
}

fn gone() -> io::Error {
    io::ErrorKind::NotConnected.into()
}
