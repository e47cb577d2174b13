//! The authentication part of a login: one request of the server, one answer of ours.
//!
//! Pure: bytes in, bytes out; `login` does the reading and writing. A server that asks again after
//! it was answered, or skips its own part of SCRAM, is refused: only SCRAM proves the server too.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, SCRAM_SHA_256, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::ProtocolFault;

/// How far the exchange has come.
pub(super) enum Auth {
    /// The server has not asked for anything yet.
    Start,
    /// SCRAM: our first message is out.
    ScramFirst(Box<ScramSha256>),
    /// SCRAM: our proof is out, the server's own proof is due.
    ScramFinal(Box<ScramSha256>),
    /// All asked for was given; AuthenticationOk is due.
    Answered,
    /// AuthenticationOk came.
    Done,
}

/// Why the exchange cannot go on.
pub(super) enum AuthError {
    NoPassword(&'static str),
    Unsupported(String),
    Fault(ProtocolFault),
}

impl From<ProtocolFault> for AuthError {
    fn from(fault: ProtocolFault) -> Self {
        Self::Fault(fault)
    }
}

impl Auth {
    /// Takes one Authentication message; what is to be sent is appended to `out`.
    pub(super) fn step(
        self,
        mut body: Bytes,
        user: &str,
        password: Option<&str>,
        out: &mut BytesMut,
    ) -> Result<Self, AuthError> {
        if body.len() < 4 {
            return Err(ProtocolFault::Malformed {
                message: "Authentication",
            }
            .into());
        }
        let want = |method| password.ok_or(AuthError::NoPassword(method));
        match (self, body.get_u32()) {
            (Self::Start | Self::Answered, 0) => Ok(Self::Done),
            (Self::Start, 3) => {
                frontend::password_message(want("password")?.as_bytes(), out).map_err(zero)?;
                Ok(Self::Answered)
            }
            (Self::Start, 5) => {
                let salt =
                    <[u8; 4]>::try_from(body.as_ref()).map_err(|_| ProtocolFault::Malformed {
                        message: "AuthenticationMD5",
                    })?;
                let hash = md5_hash(user.as_bytes(), want("md5")?.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), out).map_err(zero)?;
                Ok(Self::Answered)
            }
            (Self::Start, 10) => scram_start(&body, want, out),
            (Self::ScramFirst(mut scram), 11) => {
                scram.update(&body).map_err(ProtocolFault::Scram)?;
                frontend::sasl_response(scram.message(), out).map_err(zero)?;
                Ok(Self::ScramFinal(scram))
            }
            (Self::ScramFinal(mut scram), 12) => {
                scram.finish(&body).map_err(ProtocolFault::Scram)?;
                Ok(Self::Answered)
            }
            (Self::Start, other) => Err(AuthError::Unsupported(method_name(other))),
            _ => Err(ProtocolFault::Unexpected {
                tag: b'R',
                during: "during login",
            }
            .into()),
        }
    }

    /// Whether the server has let us in.
    pub(super) const fn is_done(&self) -> bool {
        matches!(self, Self::Done)
    }
}

fn scram_start<'a>(
    offered: &[u8],
    want: impl Fn(&'static str) -> Result<&'a str, AuthError>,
    out: &mut BytesMut,
) -> Result<Auth, AuthError> {
    let mut names = offered
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty());
    if !names.any(|name| name == SCRAM_SHA_256.as_bytes()) {
        let listed = String::from_utf8_lossy(offered).replace('\0', " ");
        return Err(AuthError::Unsupported(format!(
            "SASL ({})",
            listed.trim_end()
        )));
    }
    let password = want("scram-sha-256")?;
    let scram = ScramSha256::new(password.as_bytes(), ChannelBinding::unsupported());
    frontend::sasl_initial_response(SCRAM_SHA_256, scram.message(), out).map_err(zero)?;
    Ok(Auth::ScramFirst(Box::new(scram)))
}

fn method_name(code: u32) -> String {
    match code {
        2 => "Kerberos 5".into(),
        6 => "SCM credentials".into(),
        7 => "GSSAPI".into(),
        9 => "SSPI".into(),
        other => format!("authentication method {other}"),
    }
}

fn zero(_: io::Error) -> ProtocolFault {
    ProtocolFault::ZeroByte
}
