//! Logging in: startup packet, authentication, and the server's greeting up to ReadyForQuery.
//!
//! Not a byte beyond ReadyForQuery is read, so the socket can be handed to another reader. Cancel
//! safe in the sense that dropping the future closes the connection; nothing was asked of the
//! server yet.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use bytes::{Buf, Bytes, BytesMut};
use postgres_protocol::message::frontend;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::time::{Instant, timeout_at};

use super::auth::{self, Auth, AuthError};
use super::error::{LoginError, ProtocolFault, ServerError};
use super::frame::{Budget, Frame, FrameError, read_frame};
use super::proof::Proof;
use super::socket;
use super::through::Through;
use crate::tls::Stream;
use crate::upstream::Endpoint;

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
    /// Shown when the server asks for it.
    pub proof: Proof,
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
    /// The connection; the next byte read from it belongs to whatever comes next.
    pub stream: Stream,
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
    login_told(endpoint, login, &|_| {}).await
}

/// Told our end of the connection before anything is sent on it.
pub type Told<'a> = &'a (dyn Fn(SocketAddr) + Send + Sync);

/// As [`login`], and tells under which address the server will show it.
///
/// # Errors
/// As [`login`].
pub async fn login_told(
    endpoint: &Endpoint,
    login: &Login,
    told: Told<'_>,
) -> Result<Connected, LoginError> {
    log_in::<Stream>(endpoint, login, told, None).await
}

/// Logs in as a client that settles it with the server itself; AuthenticationOk is not told to it.
///
/// # Errors
/// As [`login`]; the client has then seen a part of the exchange.
pub async fn login_through<S>(
    endpoint: &Endpoint,
    login: &Login,
    told: Told<'_>,
    client: &mut S,
) -> Result<Connected, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
    log_in(endpoint, login, told, Some(Through::new(client))).await
}

async fn log_in<S>(
    endpoint: &Endpoint,
    login: &Login,
    told: Told<'_>,
    through: Option<Through<'_, S>>,
) -> Result<Connected, LoginError>
where
    S: AsyncRead + AsyncWrite + Unpin,
{
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
    if let Ok(address) = stream.local_addr() {
        told(address);
    }
    let exchange = async {
        let stream = socket::secure(stream, endpoint).await;
        let stream = stream.map_err(|source| insecure(endpoint, source))?;
        let greeting = Greeting {
            endpoint,
            login,
            auth: Auth::Start,
            through,
            encrypted: stream.is_tls(),
            end_point: stream.peer_end_point(),
            out: BytesMut::new(),
        };
        greeting.run(stream).await
    };
    timeout_at(deadline, exchange)
        .await
        .unwrap_or_else(|_| Err(timeout()))
}

/// A refusal of either side stays one; a server that goes away in the middle is only gone.
fn insecure(endpoint: &Endpoint, source: io::Error) -> LoginError {
    let endpoint = endpoint.clone();
    match source.kind() {
        io::ErrorKind::InvalidData | io::ErrorKind::InvalidInput | io::ErrorKind::Unsupported => {
            LoginError::Tls { endpoint, source }
        }
        _ => LoginError::Closed { endpoint, source },
    }
}

/// The exchange in progress.
struct Greeting<'a, S> {
    endpoint: &'a Endpoint,
    login: &'a Login,
    auth: Auth,
    /// The client that answers in our stead.
    through: Option<Through<'a, S>>,
    encrypted: bool,
    end_point: Option<Vec<u8>>,
    out: BytesMut,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Greeting<'_, S> {
    async fn run(mut self, stream: Stream) -> Result<Connected, LoginError> {
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
                let sent = connected.stream.flush().await;
                sent.map_err(|source| self.closed(source))?;
            }
            let frame = read_frame(&mut connected.stream, &mut budget).await;
            let frame = frame.map_err(|error| match error {
                FrameError::Io(source) => self.closed(source),
                FrameError::Fault(fault) => self.fault(fault),
            })?;
            if frame.tag == b'Z' && self.is_in() {
                return Ok(connected);
            }
            if frame.tag == b'R'
                && !self.is_in()
                && let Some(through) = &mut self.through
            {
                let step = through.step(&frame.body, self.encrypted, &mut self.out);
                step.await.map_err(|error| self.failed(error))?;
                continue;
            }
            self = self.take(frame, &mut connected)?;
        }
    }

    /// Whether the server has let us in.
    fn is_in(&self) -> bool {
        match &self.through {
            Some(through) => through.is_done(),
            None => self.auth.is_done(),
        }
    }

    fn take(self, frame: Frame, connected: &mut Connected) -> Result<Self, LoginError> {
        match (frame.tag, self.is_in()) {
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
        let asked = auth::Login {
            user: self.login.param("user").unwrap_or_default(),
            proof: &self.login.proof,
            methods: self.endpoint.link.methods,
            encrypted: self.encrypted,
            end_point: self.end_point.as_deref(),
        };
        let auth = std::mem::replace(&mut self.auth, Auth::Start);
        let step = auth.step(body, &asked, &mut self.out);
        self.auth = step.map_err(|error| self.failed(error))?;
        Ok(self)
    }

    fn failed(&self, error: AuthError) -> LoginError {
        let endpoint = self.endpoint.clone();
        match error {
            AuthError::NoPassword(method) => LoginError::NoPassword { endpoint, method },
            AuthError::NotAllowed(method) => LoginError::NotAllowed { endpoint, method },
            AuthError::OtherVerifier => LoginError::OtherVerifier { endpoint },
            AuthError::Unsupported(method) => LoginError::UnsupportedAuth { endpoint, method },
            AuthError::Fault(source) => LoginError::Protocol { endpoint, source },
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
