//! One message of PostgreSQL's protocol: a tag, a length, a body.
//!
//! Reads exactly one message and not a byte more, so the caller can hand the socket on in a known
//! state. Bounded by a budget of bytes that spans several messages.

use std::io;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt};

use super::error::ProtocolFault;

/// A message as it came, without its length.
#[derive(Debug)]
pub(super) struct Frame {
    pub(super) tag: u8,
    pub(super) body: Bytes,
}

/// Why no message could be read.
#[derive(Debug)]
pub(super) enum FrameError {
    Io(io::Error),
    Fault(ProtocolFault),
}

/// Bytes that may still be read before the peer is held to be broken or hostile.
#[derive(Debug)]
pub(super) struct Budget {
    left: usize,
    limit: usize,
}

impl Budget {
    pub(super) const fn new(limit: usize) -> Self {
        Self { left: limit, limit }
    }

    fn take(&mut self, bytes: usize) -> Result<(), FrameError> {
        match self.left.checked_sub(bytes) {
            Some(left) => self.left = left,
            None => {
                return Err(FrameError::Fault(ProtocolFault::TooLarge {
                    limit: self.limit,
                }));
            }
        }
        Ok(())
    }
}

/// Reads the next message. The budget is charged before memory is taken for the body.
pub(super) async fn read_frame<R>(reader: &mut R, budget: &mut Budget) -> Result<Frame, FrameError>
where
    R: AsyncRead + Unpin,
{
    let mut head = [0; 5];
    reader.read_exact(&mut head).await.map_err(FrameError::Io)?;
    let [tag, length @ ..] = head;
    let length = u32::from_be_bytes(length) as usize;
    let Some(size) = length.checked_sub(4) else {
        return Err(FrameError::Fault(ProtocolFault::BadLength { tag, length }));
    };
    budget.take(head.len() + size)?;
    let mut body = vec![0; size];
    reader.read_exact(&mut body).await.map_err(FrameError::Io)?;
    Ok(Frame {
        tag,
        body: body.into(),
    })
}
