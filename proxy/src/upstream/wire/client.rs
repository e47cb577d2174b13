//! The observer's connection: simple queries, one after the other or several in one go.
//!
//! Works on replication connections too (IDENTIFY_SYSTEM, TIMELINE_HISTORY). Never reconnects and
//! never repeats: whether a statement without an answer took effect is for the caller to find out.
//! After a timeout or a broken message the connection is given up, since its state is unknown.

use std::time::Duration;

use bytes::{Bytes, BytesMut};
use futures_util::FutureExt;
use postgres_protocol::message::frontend;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::time::{Instant, timeout_at};

use super::error::{LoginError, ProtocolFault, QueryError, ServerError};
use super::frame::{Budget, FrameError, read_frame};
use super::login::{Login, login, parse_parameter};
use super::rows::{Row, Rows, parse_row};
use crate::tls::Stream;
use crate::upstream::Endpoint;

/// The most that one call may receive, in bytes. The largest honest answer is pg_stat_activity of
/// a server with many thousands of sessions, a few MiB.
const MAX_ANSWER: usize = 64 << 20;

/// A logged-in connection that runs simple queries.
#[derive(Debug)]
pub struct Client {
    endpoint: Endpoint,
    stream: BufReader<Stream>,
    pid: i32,
    secret: Vec<u8>,
    params: Vec<(String, String)>,
    notices: Vec<ServerError>,
    timeout: Duration,
    usable: bool,
}

/// What became of one query string: its result sets, or the server's refusal.
pub type Answer = Result<Vec<Rows>, ServerError>;

impl Client {
    /// Logs in. The login's timeout is also the bound of each later call, until
    /// [`set_timeout`](Self::set_timeout).
    ///
    /// # Errors
    /// As [`login`].
    pub async fn connect(endpoint: &Endpoint, how: &Login) -> Result<Self, LoginError> {
        let connected = login(endpoint, how).await?;
        Ok(Self {
            endpoint: endpoint.clone(),
            stream: BufReader::new(connected.stream),
            pid: connected.pid,
            secret: connected.secret,
            params: connected.params,
            notices: Vec::new(),
            timeout: how.timeout,
            usable: true,
        })
    }

    /// Who is asked.
    pub const fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// The process id of our backend.
    pub const fn pid(&self) -> i32 {
        self.pid
    }

    /// What a cancel request needs, to be sent while a call is under way.
    pub fn cancel_key(&self) -> (Endpoint, i32, Vec<u8>) {
        (self.endpoint.clone(), self.pid, self.secret.clone())
    }

    /// The bound of each call from now on.
    pub const fn set_timeout(&mut self, timeout: Duration) {
        self.timeout = timeout;
    }

    /// Whether another query may be tried.
    pub const fn is_usable(&self) -> bool {
        self.usable
    }

    /// Whether the server has said nothing since its last answer, not even goodbye. Asks the socket
    /// only, so a server that is gone without a word is quiet too.
    pub fn is_quiet(&mut self) -> bool {
        self.stream.fill_buf().now_or_never().is_none()
    }

    /// The last value the server reported for a parameter.
    pub fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(key, _)| key == name)
            .map(|(_, value)| value.as_str())
    }

    /// Notices and warnings of the last call.
    pub fn notices(&self) -> &[ServerError] {
        &self.notices
    }

    /// Runs a query string and returns its last result set.
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn query(&mut self, sql: &str) -> Result<Rows, QueryError> {
        Ok(self.query_all(sql).await?.pop().unwrap_or_default())
    }

    /// Runs a query string and returns the only row of its last result set.
    ///
    /// # Errors
    /// See [`QueryError`]; also when there is no row.
    pub async fn row(&mut self, sql: &str) -> Result<Row, QueryError> {
        let rows = self.query(sql).await?;
        rows.into_iter()
            .next()
            .ok_or_else(|| self.answer_error("row"))
    }

    /// Runs a query string and returns every result set, one per statement (empty for those that
    /// return no rows).
    ///
    /// # Errors
    /// See [`QueryError`].
    pub async fn query_all(&mut self, sql: &str) -> Result<Vec<Rows>, QueryError> {
        let answer = self.query_batch(&[sql]).await?.pop();
        answer
            .ok_or_else(|| self.answer_error("answer"))?
            .map_err(|source| self.refused(source))
    }

    /// Sends several query strings in one go, each a transaction of its own: one round trip, and
    /// the refusal of one does not touch the others. The strings should be few and small: all are
    /// sent before the first answer is read.
    ///
    /// # Errors
    /// Only what makes the connection useless; a refusal by the server is part of the answer.
    pub async fn query_batch(&mut self, queries: &[&str]) -> Result<Vec<Answer>, QueryError> {
        if !self.usable {
            return Err(QueryError::GivenUp {
                endpoint: self.endpoint.clone(),
            });
        }
        let mut out = BytesMut::new();
        for sql in queries {
            let written = frontend::query(sql, &mut out);
            written.map_err(|_| self.fault(ProtocolFault::ZeroByte))?;
        }
        self.notices.clear();
        // Until the last ReadyForQuery is read, a dropped future leaves answers unread.
        self.usable = false;
        let deadline = Instant::now() + self.timeout;
        let answers = match timeout_at(deadline, self.exchange(out, queries.len())).await {
            Ok(answers) => answers?,
            Err(_) => {
                let endpoint = self.endpoint.clone();
                return Err(QueryError::Timeout {
                    endpoint,
                    after: self.timeout,
                });
            }
        };
        self.usable = true;
        Ok(answers)
    }

    async fn exchange(&mut self, mut out: BytesMut, n: usize) -> Result<Vec<Answer>, QueryError> {
        let sent = match self.stream.write_all_buf(&mut out).await {
            Ok(()) => self.stream.flush().await,
            failed => failed,
        };
        sent.map_err(|source| QueryError::Closed {
            endpoint: self.endpoint.clone(),
            source,
        })?;
        let mut budget = Budget::new(MAX_ANSWER);
        let mut answers = Vec::with_capacity(n);
        for _ in 0..n {
            answers.push(self.read_answer(&mut budget).await?);
        }
        Ok(answers)
    }

    /// Reads up to the next ReadyForQuery.
    async fn read_answer(&mut self, budget: &mut Budget) -> Result<Answer, QueryError> {
        let mut sets = Vec::new();
        let mut rows = Rows::new();
        let mut refusal = None;
        loop {
            let frame = match read_frame(&mut self.stream, budget).await {
                Ok(frame) => frame,
                Err(error) => return Err(self.broken(error, refusal)),
            };
            match frame.tag {
                b'Z' => return Ok(refusal.map_or(Ok(sets), Err)),
                b'D' => match parse_row(frame.body) {
                    Some(row) => rows.push(row),
                    None => return Err(self.malformed("DataRow")),
                },
                b'C' | b'I' => sets.push(std::mem::take(&mut rows)),
                b'E' => refusal = Some(self.read_error(frame.body, "ErrorResponse")?),
                b'N' => {
                    let notice = self.read_error(frame.body, "NoticeResponse")?;
                    self.notices.push(notice);
                }
                b'S' => self.note_parameter(&frame.body),
                b'T' | b'A' => {}
                tag => {
                    let during = "in the answer to a query";
                    return Err(self.fault(ProtocolFault::Unexpected { tag, during }));
                }
            }
        }
    }

    fn read_error(&self, body: Bytes, message: &'static str) -> Result<ServerError, QueryError> {
        ServerError::parse(body).ok_or_else(|| self.malformed(message))
    }

    fn note_parameter(&mut self, body: &[u8]) {
        let Some((name, value)) = parse_parameter(body) else {
            return;
        };
        self.params.retain(|(key, _)| *key != name);
        self.params.push((name, value));
    }

    /// A FATAL error is followed by the end of the connection; its words say more than "closed".
    fn broken(&self, error: FrameError, refusal: Option<ServerError>) -> QueryError {
        match (error, refusal) {
            (FrameError::Io(_), Some(source)) => self.refused(source),
            (FrameError::Io(source), None) => QueryError::Closed {
                endpoint: self.endpoint.clone(),
                source,
            },
            (FrameError::Fault(fault), _) => self.fault(fault),
        }
    }

    fn malformed(&self, message: &'static str) -> QueryError {
        self.fault(ProtocolFault::Malformed { message })
    }

    fn fault(&self, source: ProtocolFault) -> QueryError {
        QueryError::Protocol {
            endpoint: self.endpoint.clone(),
            source,
        }
    }

    pub(crate) fn refused(&self, source: ServerError) -> QueryError {
        QueryError::Server {
            endpoint: self.endpoint.clone(),
            source: Box::new(source),
        }
    }

    pub(crate) fn answer_error(&self, field: &'static str) -> QueryError {
        QueryError::Answer {
            endpoint: self.endpoint.clone(),
            field,
        }
    }
}
