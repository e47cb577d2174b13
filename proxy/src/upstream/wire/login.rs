//! Logging in: startup packet, authentication, and the server's greeting up to ReadyForQuery.
//!
//! Not a byte beyond ReadyForQuery is read, so the socket can be handed to another reader. Cancel
//! safe in the sense that dropping the future closes the connection; nothing was asked of the
//! server yet.

use std::io;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout_at};

use super::auth::{Auth, AuthError};
use super::error::{LoginError, ProtocolFault, ServerError};
use super::frame::{Budget, Frame, FrameError, read_frame};
use super::socket;
use crate::upstream::Endpoint;
use writefence_config::Secret;

/// The most a server may send until ReadyForQuery, in bytes. Real greetings are below 2 KiB;
/// login event triggers may add notices. Beyond this the peer is broken or hostile.
const MAX_GREETING: usize = 1 << 20;

/// How to log in.
#[derive(Clone, Debug)]
pub struct Login {
    /// Startup parameters in order: user (required), database, options, application_name,
    /// replication and so on.
    pub params: Vec<(String, String)>,
    /// The protocol's minor version to ask for; the server may speak a lower one.
    pub minor: u16,
    /// Used when the server asks for one.
    pub password: Option<Secret<String>>,
    /// For the whole of it: name resolution, connection, login.
    pub timeout: Duration,
}

impl Login {
    /// The value of a startup parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }
}

/// A connection right after ReadyForQuery.
#[derive(Debug)]
pub struct Connected {
    /// The socket; the next byte read from it belongs to whatever comes next.
    pub stream: TcpStream,
    /// The backend's process id; 0 if the server sent no key.
    pub pid: i32,
    /// The key for cancel requests, 4 bytes in protocol 3.0; empty if the server sent none.
    pub secret: Vec<u8>,
    /// ParameterStatus in the order received.
    pub params: Vec<(String, String)>,
    /// Bodies of NoticeResponse messages, as they came.
    pub notices: Vec<Bytes>,
}

/// Logs in.
///
/// # Errors
/// See [`LoginError`]; after any of them the connection is closed.
pub async fn login(endpoint: &Endpoint, login: &Login) -> Result<Connected, LoginError> {
    let deadline = Instant::now() + login.timeout;
    let timeout = || LoginError::Timeout {
        endpoint: endpoint.clone(),
        after: login.timeout,
    };
    let stream = socket::connect(endpoint, deadline)
        .await
        .map_err(|source| {
            if source.kind() == io::ErrorKind::TimedOut && Instant::now() >= deadline {
                return timeout();
            }
            LoginError::Unreachable {
                endpoint: endpoint.clone(),
                source,
            }
        })?;
    let greeting = Greeting {
        endpoint,
        login,
        auth: Auth::Start,
        out: BytesMut::new(),
    };
    timeout_at(deadline, greeting.run(stream))
        .await
        .unwrap_or_else(|_| Err(timeout()))
}

/// The exchange in progress.
struct Greeting<'a> {
    endpoint: &'a Endpoint,
    login: &'a Login,
    auth: Auth,
    out: BytesMut,
}

impl Greeting<'_> {
    async fn run(mut self, stream: TcpStream) -> Result<Connected, LoginError> {
        let mut connected = Connected {
            stream,
            pid: 0,
            secret: Vec::new(),
            params: Vec::new(),
            notices: Vec::new(),
        };
        let pairs = self
            .login
            .params
            .iter()
            .map(|(key, value)| (key.as_str(), value.as_str()));
        frontend::startup_message(pairs, &mut self.out)
            .map_err(|_| self.fault(ProtocolFault::ZeroByte))?;
        // Behind the length: major 3, then the minor version, which the encoder leaves at 0.
        if let Some(minor) = self.out.get_mut(6..8) {
            minor.copy_from_slice(&self.login.minor.to_be_bytes());
        }
        let mut budget = Budget::new(MAX_GREETING);
        loop {
            if !self.out.is_empty() {
                let sent = connected.stream.write_all_buf(&mut self.out).await;
                sent.map_err(|source| self.closed(source))?;
            }
            let frame = read_frame(&mut connected.stream, &mut budget).await;
            let frame = frame.map_err(|error| match error {
                FrameError::Io(source) => self.closed(source),
                FrameError::Fault(fault) => self.fault(fault),
            })?;
            if frame.tag == b'Z' && self.auth.is_done() {
                return Ok(connected);
            }
            self = self.take(frame, &mut connected)?;
        }
    }

    fn take(self, frame: Frame, connected: &mut Connected) -> Result<Self, LoginError> {
        match (frame.tag, self.auth.is_done()) {
            (b'R', false) => return self.authenticate(frame.body),
            (b'E', _) => return Err(self.refused(frame.body)),
            (b'N', _) => connected.notices.push(frame.body),
            // An older server names the version it speaks. Nothing depends on it here: what differs
            // is the length of the cancel key, which its message tells.
            (b'v', false) => {}
            (b'S', true) => match parse_parameter(&frame.body) {
                Some(pair) => connected.params.push(pair),
                None => return Err(self.malformed("ParameterStatus")),
            },
            (b'K', true) if frame.body.len() >= 8 => {
                let mut body = frame.body;
                connected.pid = body.get_i32();
                connected.secret = body.to_vec();
            }
            (b'K', true) => return Err(self.malformed("BackendKeyData")),
            (tag, _) => {
                let during = "during login";
                return Err(self.fault(ProtocolFault::Unexpected { tag, during }));
            }
        }
        Ok(self)
    }

    fn authenticate(mut self, body: Bytes) -> Result<Self, LoginError> {
        let user = self.login.param("user").unwrap_or_default();
        let password = self
            .login
            .password
            .as_ref()
            .map(|secret| secret.expose().as_str());
        let endpoint = self.endpoint.clone();
        match self.auth.step(body, user, password, &mut self.out) {
            Ok(auth) => {
                self.auth = auth;
                Ok(self)
            }
            Err(AuthError::NoPassword(method)) => Err(LoginError::NoPassword { endpoint, method }),
            Err(AuthError::Unsupported(method)) => {
                Err(LoginError::UnsupportedAuth { endpoint, method })
            }
            Err(AuthError::Fault(source)) => Err(LoginError::Protocol { endpoint, source }),
        }
    }

    fn refused(&self, body: Bytes) -> LoginError {
        match ServerError::parse(body) {
            Some(error) => LoginError::Server {
                endpoint: self.endpoint.clone(),
                source: Box::new(error),
            },
            None => self.malformed("ErrorResponse"),
        }
    }

    fn malformed(&self, message: &'static str) -> LoginError {
        self.fault(ProtocolFault::Malformed { message })
    }

    fn fault(&self, source: ProtocolFault) -> LoginError {
        LoginError::Protocol {
            endpoint: self.endpoint.clone(),
            source,
        }
    }

    fn closed(&self, source: io::Error) -> LoginError {
        LoginError::Closed {
            endpoint: self.endpoint.clone(),
            source,
        }
    }
}

/// Two zero-terminated strings and nothing else.
pub(super) fn parse_parameter(body: &[u8]) -> Option<(String, String)> {
    let mut parts = body.strip_suffix(&[0])?.split(|byte| *byte == 0);
    let (name, value) = (parts.next()?, parts.next()?);
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    parts.next().is_none().then(|| (text(name), text(value)))
}
