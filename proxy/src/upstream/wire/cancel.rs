//! Asking a server to cancel what a backend is doing.

use std::io;
use std::time::Duration;

use bytes::{BufMut, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::socket;
use crate::upstream::Endpoint;

/// The code that stands where a protocol version would.
const CANCEL_REQUEST: u32 = 80_877_102;
/// Keys of protocol 3.2 have at most this many bytes.
const MAX_KEY: usize = 256;

/// Sends a cancel request and waits until the server has closed that connection, which it does
/// after the signal was sent. Whether the backend was still busy is not told.
///
/// # Errors
/// Not connected, not delivered, or not closed within `timeout`.
pub async fn cancel(
    endpoint: &Endpoint,
    pid: i32,
    secret: &[u8],
    timeout: Duration,
) -> io::Result<()> {
    let request = request(pid, secret)?;
    let deadline = Instant::now() + timeout;
    let exchange = async {
        let stream = socket::connect(endpoint, deadline).await?;
        let mut stream = socket::secure(stream, endpoint).await?;
        stream.write_all(&request).await?;
        stream.flush().await?;
        let mut answer = [0; 64];
        // A server says nothing to a cancel request; anything it may send is read and dropped, so
        // that closing does not reset the connection before the request was read.
        while stream.read(&mut answer).await? > 0 {}
        Ok(())
    };
    timeout_at(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
}

pub(super) fn request(pid: i32, secret: &[u8]) -> io::Result<BytesMut> {
    let too_long = || io::Error::new(io::ErrorKind::InvalidInput, "cancel key is too long");
    let key = Some(secret)
        .filter(|key| key.len() <= MAX_KEY)
        .ok_or_else(too_long)?;
    let length = u32::try_from(12 + key.len()).map_err(|_| too_long())?;
    let mut request = BytesMut::with_capacity(12 + key.len());
    request.put_u32(length);
    request.put_u32(CANCEL_REQUEST);
    request.put_i32(pid);
    request.put_slice(key);
    Ok(request)
}
