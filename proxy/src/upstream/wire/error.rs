//! Why a login or a query failed, in the terms a caller decides by.
//!
//! A server's own refusal keeps the body of its ErrorResponse, so that a session can relay it to
//! its client word for word.

use std::io;
use std::time::Duration;

use bytes::Bytes;

use crate::upstream::Endpoint;

/// An ErrorResponse of PostgreSQL.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{severity} {sqlstate}: {message}")]
pub struct ServerError {
    /// ERROR, FATAL or PANIC, never translated when the server is 9.6 or newer.
    pub severity: String,
    /// Five characters, as in appendix A of the manual.
    pub sqlstate: String,
    /// The primary message, in the server's language.
    pub message: String,
    /// The detail line, if there was one.
    pub detail: Option<String>,
    /// The hint line, if there was one.
    pub hint: Option<String>,
    /// The message's body as it came, without tag and length.
    pub raw: Bytes,
}

impl ServerError {
    /// Reads the body of an ErrorResponse or NoticeResponse; `None` when it is malformed.
    pub fn parse(raw: Bytes) -> Option<Self> {
        let (mut severity, mut plain_severity) = (None, None);
        let (mut sqlstate, mut message, mut detail, mut hint) = (None, None, None, None);
        let mut rest = raw.as_ref();
        while let Some((&kind, tail)) = rest.split_first().filter(|(kind, _)| **kind != 0) {
            let end = tail.iter().position(|byte| *byte == 0)?;
            let value = String::from_utf8_lossy(&tail[..end]).into_owned();
            match kind {
                b'S' => severity = Some(value),
                b'V' => plain_severity = Some(value),
                b'C' => sqlstate = Some(value),
                b'M' => message = Some(value),
                b'D' => detail = Some(value),
                b'H' => hint = Some(value),
                _ => {}
            }
            rest = &tail[end + 1..];
        }
        let severity = plain_severity.or(severity)?;
        Some(Self {
            severity,
            sqlstate: sqlstate?,
            message: message?,
            detail,
            hint,
            raw,
        })
    }

    /// Whether the role lacks a privilege (42501).
    pub fn is_privilege(&self) -> bool {
        self.sqlstate == "42501"
    }
}

/// What a peer sent that PostgreSQL would not have sent there.
#[derive(Debug, thiserror::Error)]
pub enum ProtocolFault {
    /// More bytes than any honest answer has.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The bound, in bytes.
        limit: usize,
    },
    /// A length that cannot be.
    #[error("message {:?} has the impossible length {length}", char::from(*tag))]
    BadLength {
        /// The message's tag.
        tag: u8,
        /// The length it claimed.
        length: usize,
    },
    /// A message that has no place here.
    #[error("unexpected message {:?} {during}", char::from(*tag))]
    Unexpected {
        /// The message's tag.
        tag: u8,
        /// What was going on.
        during: &'static str,
    },
    /// A message whose body cannot be read.
    #[error("malformed {message}")]
    Malformed {
        /// The message's name in the protocol documentation.
        message: &'static str,
    },
    /// The server failed to prove that it knows the password, or broke the exchange.
    #[error("the SCRAM exchange failed")]
    Scram(#[source] io::Error),
    /// The client of a login that is passed through is gone or answers something else.
    #[error("the client does not go on with the login")]
    Client(#[source] io::Error),
    /// A parameter with a zero byte cannot be sent.
    #[error("a startup parameter, password or query contains a zero byte")]
    ZeroByte,
}

/// Why a login did not end at ReadyForQuery.
#[derive(Debug, thiserror::Error)]
pub enum LoginError {
    /// No connection could be made: name, route, or nobody listening. Nothing was sent.
    #[error("cannot reach {endpoint}")]
    Unreachable {
        /// Who was asked.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Connected, and then the connection broke.
    #[error("{endpoint} closed the connection during login")]
    Closed {
        /// Who was asked.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Not done within the time given.
    #[error("{endpoint} did not complete the login within {after:?}")]
    Timeout {
        /// Who was asked.
        endpoint: Endpoint,
        /// The time given.
        after: Duration,
    },
    /// The server refused.
    #[error("{endpoint} refused the login")]
    Server {
        /// Who was asked.
        endpoint: Endpoint,
        /// Its own words.
        source: Box<ServerError>,
    },
    /// The peer does not speak the protocol.
    #[error("{endpoint} does not answer as PostgreSQL does")]
    Protocol {
        /// Who was asked.
        endpoint: Endpoint,
        /// What was wrong.
        source: ProtocolFault,
    },
    /// The server wants a password and none is configured.
    #[error("{endpoint} asks for a password ({method}) and none is configured")]
    NoPassword {
        /// Who was asked.
        endpoint: Endpoint,
        /// The method it asked for.
        method: &'static str,
    },
    /// The server asks for a use of the password that is not allowed.
    #[error("{endpoint} asks for the password by {method}, which password_methods does not allow")]
    NotAllowed {
        /// Who was asked.
        endpoint: Endpoint,
        /// The method it asked for.
        method: &'static str,
    },
    /// The client's key does not fit this server.
    #[error(
        "{endpoint} keeps this user's password with another salt or other iterations than the one \
         that the client logged in with, so its key is of no use there; a password in users_file \
         or in the region's passfile would be"
    )]
    OtherVerifier {
        /// Who was asked.
        endpoint: Endpoint,
    },
    /// The encrypted connection could not be made.
    #[error("no encrypted connection to {endpoint}")]
    Tls {
        /// Who was asked.
        endpoint: Endpoint,
        /// What the library or the system said.
        source: io::Error,
    },
    /// The server wants a method that is not spoken here.
    #[error("{endpoint} asks for {method}; trust, password, md5 and scram-sha-256 are accepted")]
    UnsupportedAuth {
        /// Who was asked.
        endpoint: Endpoint,
        /// The method it asked for.
        method: String,
    },
}

impl LoginError {
    /// The server's own refusal, if that is what happened.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::Unreachable { .. }
            | Self::Closed { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::NoPassword { .. }
            | Self::NotAllowed { .. }
            | Self::OtherVerifier { .. }
            | Self::Tls { .. }
            | Self::UnsupportedAuth { .. } => None,
        }
    }
}

/// Why a query of the observer has no answer. Except after `Server`, the connection is of no
/// further use, and whether the statement took effect is unknown.
#[derive(Debug, thiserror::Error)]
pub enum QueryError {
    /// The server refused the statement; the connection stays usable unless FATAL.
    #[error("{endpoint} refused the statement")]
    Server {
        /// Who was asked.
        endpoint: Endpoint,
        /// Its own words.
        source: Box<ServerError>,
    },
    /// The connection broke.
    #[error("lost the connection to {endpoint}")]
    Closed {
        /// Who was asked.
        endpoint: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// Not answered within the time given.
    #[error("{endpoint} did not answer within {after:?}")]
    Timeout {
        /// Who was asked.
        endpoint: Endpoint,
        /// The time given.
        after: Duration,
    },
    /// The peer does not speak the protocol.
    #[error("{endpoint} does not answer as PostgreSQL does")]
    Protocol {
        /// Who was asked.
        endpoint: Endpoint,
        /// What was wrong.
        source: ProtocolFault,
    },
    /// An earlier statement left the connection in an unknown state.
    #[error("the connection to {endpoint} was given up after an earlier failure")]
    GivenUp {
        /// Who would have been asked.
        endpoint: Endpoint,
    },
    /// The answer does not have the form that was asked for.
    #[error("{endpoint} answered without a usable {field}")]
    Answer {
        /// Who was asked.
        endpoint: Endpoint,
        /// What is missing or cannot be read.
        field: &'static str,
    },
}

impl QueryError {
    /// The server's own refusal, if that is what happened.
    pub fn server(&self) -> Option<&ServerError> {
        match self {
            Self::Server { source, .. } => Some(source),
            Self::Closed { .. }
            | Self::Timeout { .. }
            | Self::Protocol { .. }
            | Self::GivenUp { .. }
            | Self::Answer { .. } => None,
        }
    }

    /// Whether the role lacks a privilege (42501).
    pub fn is_privilege(&self) -> bool {
        self.server().is_some_and(ServerError::is_privilege)
    }
}
