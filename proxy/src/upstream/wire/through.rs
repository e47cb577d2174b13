//! A login that client and server settle between them: their messages are carried across.
//!
//! Whatever either sends is bounded in size, and by the login's time. Channel binding cannot be
//! carried across where we end TLS on one side, so it is not offered to the client.

use std::io;

use bytes::{Buf, BufMut, Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};

use super::auth::{AuthError, method_name};
use super::error::ProtocolFault;
use super::frame::{Budget, FrameError, read_frame};
use crate::scram;

/// The most a client may send during a login, in bytes: passwords and SCRAM are far below.
const MAX_ANSWERS: usize = 64 << 10;

/// The client's side of a login that is passed through.
pub(super) struct Through<'a, S> {
    client: &'a mut S,
    budget: Budget,
    done: bool,
}

impl<'a, S: AsyncRead + AsyncWrite + Unpin> Through<'a, S> {
    pub(super) const fn new(client: &'a mut S) -> Self {
        Self {
            client,
            budget: Budget::new(MAX_ANSWERS),
            done: false,
        }
    }

    pub(super) const fn is_done(&self) -> bool {
        self.done
    }

    /// Carries one request of the server's to the client, and its answer into `out`.
    pub(super) async fn step(
        &mut self,
        body: &Bytes,
        encrypted: bool,
        out: &mut BytesMut,
    ) -> Result<(), AuthError> {
        let Some(code) = body.as_ref().try_get_u32().ok() else {
            return Err(ProtocolFault::Malformed {
                message: "Authentication",
            }
            .into());
        };
        let asks = match code {
            0 => {
                self.done = true;
                return Ok(());
            }
            12 => false,
            3 | 5 | 10 | 11 => true,
            other => return Err(AuthError::Unsupported(method_name(other))),
        };
        let mut request = BytesMut::new();
        request.put_u32(code);
        match code {
            10 => mechanisms(body.get(4..).unwrap_or_default(), &mut request)?,
            _ => request.put_slice(body.get(4..).unwrap_or_default()),
        }
        let mut message = BytesMut::new();
        put(&mut message, b'R', &request);
        let sent = self.client.write_all(&message).await;
        sent.map_err(ProtocolFault::Client)?;
        self.client.flush().await.map_err(ProtocolFault::Client)?;
        if asks {
            self.answer(code, encrypted, out).await?;
        }
        Ok(())
    }

    async fn answer(
        &mut self,
        code: u32,
        encrypted: bool,
        out: &mut BytesMut,
    ) -> Result<(), AuthError> {
        let frame = read_frame(self.client, &mut self.budget).await;
        let frame = frame.map_err(|e| match e {
            FrameError::Io(e) => ProtocolFault::Client(e),
            FrameError::Fault(fault) => fault,
        })?;
        if frame.tag != b'p' {
            let gone = io::Error::new(io::ErrorKind::InvalidData, "it does not answer the request");
            return Err(ProtocolFault::Client(gone).into());
        }
        // mechanism, zero, length, "y,,…": the server would take it for an attack, and rightly.
        let led_on = code == 10 && encrypted && {
            let after = frame.body.iter().position(|b| *b == 0).unwrap_or_default();
            frame.body.get(after + 5) == Some(&b'y')
        };
        if led_on {
            return Err(AuthError::Unsupported(
                "channel binding, which cannot pass a relay that ends TLS on both sides (use \
                 auth = \"scram\", or channel_binding=disable in the client)"
                    .to_owned(),
            ));
        }
        put(out, b'p', &frame.body);
        Ok(())
    }
}

/// The server's list without the mechanism that is bound to its certificate.
fn mechanisms(offered: &[u8], out: &mut BytesMut) -> Result<(), AuthError> {
    let names = offered.split(|b| *b == 0).filter(|name| !name.is_empty());
    let mut any = false;
    for name in names.filter(|name| *name != scram::PLUS.as_bytes()) {
        out.put_slice(name);
        out.put_u8(0);
        any = true;
    }
    out.put_u8(0);
    if any {
        return Ok(());
    }
    Err(AuthError::Unsupported("channel binding only".to_owned()))
}

fn put(out: &mut BytesMut, tag: u8, body: &[u8]) {
    out.put_u8(tag);
    out.put_u32(u32::try_from(body.len() + 4).unwrap_or(u32::MAX));
    out.put_slice(body);
}
