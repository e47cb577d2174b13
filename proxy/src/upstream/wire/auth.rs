//! The authentication part of a login: one request of the server, one answer of ours.
//!
//! Pure: bytes in, bytes out; `login` does the reading and writing. A server that asks again after
//! it was answered, or skips its own part of SCRAM, is refused: only SCRAM proves the server too.
//! With SCRAM the login is bound to the server's certificate where the server offers that.

use std::io;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::authentication::md5_hash;
use postgres_protocol::authentication::sasl::{ChannelBinding, ScramSha256};
use postgres_protocol::message::frontend;

use super::error::ProtocolFault;
use super::proof::Proof;
use crate::scram::{self, ClientError, Keys};
use crate::upstream::Methods;

/// How far the exchange has come.
pub(super) enum Auth {
    /// The server has not asked for anything yet.
    Start,
    /// SCRAM: our first message is out.
    ScramFirst(Scram),
    /// SCRAM: our proof is out, the server's own proof is due.
    ScramFinal(Scram),
    /// All asked for was given; AuthenticationOk is due.
    Answered,
    /// AuthenticationOk came.
    Done,
}

/// SCRAM with a password or with a recovered key.
pub(super) enum Scram {
    Password(Box<ScramSha256>),
    Keys(Box<scram::Client>),
}

/// Who logs in, with what, over what.
pub(super) struct Login<'a> {
    pub(super) user: &'a str,
    pub(super) proof: &'a Proof,
    pub(super) methods: Methods,
    pub(super) encrypted: bool,
    /// The hash of the server's certificate, where it has one.
    pub(super) end_point: Option<&'a [u8]>,
}

/// Why the exchange cannot go on.
#[derive(Debug)]
pub(super) enum AuthError {
    NoPassword(&'static str),
    NotAllowed(&'static str),
    OtherVerifier,
    Unsupported(String),
    Fault(ProtocolFault),
}

impl From<ProtocolFault> for AuthError {
    fn from(fault: ProtocolFault) -> Self {
        Self::Fault(fault)
    }
}

impl From<ClientError> for AuthError {
    fn from(error: ClientError) -> Self {
        match error {
            ClientError::OtherVerifier => Self::OtherVerifier,
            ClientError::Malformed | ClientError::Impostor => {
                ProtocolFault::Scram(io::Error::new(io::ErrorKind::InvalidData, error)).into()
            }
        }
    }
}

impl Auth {
    /// Takes one Authentication message; what is to be sent is appended to `out`.
    pub(super) fn step(
        self,
        mut body: Bytes,
        login: &Login<'_>,
        out: &mut BytesMut,
    ) -> Result<Self, AuthError> {
        if body.len() < 4 {
            return Err(ProtocolFault::Malformed {
                message: "Authentication",
            }
            .into());
        }
        match (self, body.get_u32()) {
            (Self::Start | Self::Answered, 0) => Ok(Self::Done),
            (Self::Start, 3) => {
                let password = login.password("password", login.methods.cleartext)?;
                frontend::password_message(password.as_bytes(), out).map_err(zero)?;
                Ok(Self::Answered)
            }
            (Self::Start, 5) => {
                let salt =
                    <[u8; 4]>::try_from(body.as_ref()).map_err(|_| ProtocolFault::Malformed {
                        message: "AuthenticationMD5",
                    })?;
                let password = login.password("md5", login.methods.md5)?;
                let hash = md5_hash(login.user.as_bytes(), password.as_bytes(), salt);
                frontend::password_message(hash.as_bytes(), out).map_err(zero)?;
                Ok(Self::Answered)
            }
            (Self::Start, 10) => Ok(Self::ScramFirst(Scram::start(&body, login, out)?)),
            (Self::ScramFirst(mut scram), 11) => {
                scram.answer(&body, login, out)?;
                Ok(Self::ScramFinal(scram))
            }
            (Self::ScramFinal(scram), 12) => {
                scram.finish(&body, login)?;
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

impl Login<'_> {
    /// The password, for a method that shows it or something as good as it.
    fn password(&self, method: &'static str, allowed: bool) -> Result<&str, AuthError> {
        match self.proof {
            Proof::Password(_) if !allowed => Err(AuthError::NotAllowed(method)),
            Proof::Password(secret) => Ok(secret.expose()),
            Proof::None | Proof::Keys(_) => Err(AuthError::NoPassword(method)),
        }
    }

    fn keys(&self) -> Result<&Keys, AuthError> {
        match self.proof {
            Proof::Keys(keys) => Ok(keys),
            Proof::None | Proof::Password(_) => Err(AuthError::NoPassword("scram-sha-256")),
        }
    }
}

impl Scram {
    fn start(offered: &[u8], login: &Login<'_>, out: &mut BytesMut) -> Result<Self, AuthError> {
        let offers = |wanted: &str| {
            offered
                .split(|b| *b == 0)
                .any(|name| name == wanted.as_bytes())
        };
        if !offers(scram::PLAIN) {
            let listed = String::from_utf8_lossy(offered).replace('\0', " ");
            let what = format!("SASL ({})", listed.trim_end());
            return Err(AuthError::Unsupported(what));
        }
        let plus = offers(scram::PLUS);
        let end_point = login.end_point.filter(|_| login.encrypted);
        match login.proof {
            Proof::None => Err(AuthError::NoPassword("scram-sha-256")),
            Proof::Password(password) => {
                let (binding, mechanism) = match end_point {
                    Some(hash) if plus => (
                        ChannelBinding::tls_server_end_point(hash.to_vec()),
                        scram::PLUS,
                    ),
                    Some(_) => (ChannelBinding::unrequested(), scram::PLAIN),
                    None => (ChannelBinding::unsupported(), scram::PLAIN),
                };
                let scram = ScramSha256::new(password.expose().as_bytes(), binding);
                frontend::sasl_initial_response(mechanism, scram.message(), out).map_err(zero)?;
                Ok(Self::Password(Box::new(scram)))
            }
            Proof::Keys(_) => {
                let scram = scram::Client::new(plus, end_point);
                let (mechanism, first) = (scram.mechanism(), scram.first());
                frontend::sasl_initial_response(mechanism, first.as_bytes(), out).map_err(zero)?;
                Ok(Self::Keys(Box::new(scram)))
            }
        }
    }

    fn answer(
        &mut self,
        body: &[u8],
        login: &Login<'_>,
        out: &mut BytesMut,
    ) -> Result<(), AuthError> {
        match self {
            Self::Password(scram) => {
                scram.update(body).map_err(ProtocolFault::Scram)?;
                frontend::sasl_response(scram.message(), out).map_err(zero)?;
            }
            Self::Keys(scram) => {
                let last = scram.last(body, login.keys()?)?;
                frontend::sasl_response(last.as_bytes(), out).map_err(zero)?;
            }
        }
        Ok(())
    }

    fn finish(self, body: &[u8], login: &Login<'_>) -> Result<(), AuthError> {
        match self {
            Self::Password(mut scram) => Ok(scram.finish(body).map_err(ProtocolFault::Scram)?),
            Self::Keys(scram) => Ok(scram.finish(body, login.keys()?)?),
        }
    }
}

pub(super) fn method_name(code: u32) -> String {
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
