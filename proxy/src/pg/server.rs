//! A session's login on a server: borrowed from nobody, kept for the session.
//!
//! It knows which target it was made for (`serial`) and what the server said about itself at login.

use std::io;
use std::sync::Arc;

use super::classify::Reading;
use super::frame::HEADER;
use super::leg::Leg;
use super::message::{body, parameter_of, report_field};
use super::params::{Pairs, Params};
use crate::upstream::wire::Connected;
use crate::upstream::{Endpoint, Target};
use tokio::time::Instant;

/// Answers to what we ask ourselves are small; more than this is an offence.
const ANSWER: usize = 1024 * 1024;

/// One login upstream.
pub(crate) struct Server {
    pub(crate) leg: Leg,
    pub(crate) target: Arc<Target>,
    pub(crate) pid: i32,
    pub(crate) secret: Vec<u8>,
    /// Last known ParameterStatus values, as the server has them.
    pub(crate) params: Arc<Pairs>,
    /// When the login was done.
    pub(crate) since: Instant,
}

/// What came back from a question of our own.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    /// SQLSTATE and message of the first error.
    pub(crate) error: Option<(String, String)>,
    /// First column of each row, as text.
    pub(crate) rows: Vec<Option<String>>,
    /// Frames that are not ours: notices, notifications, parameters.
    pub(crate) others: Vec<u8>,
    /// Transaction status at the end.
    pub(crate) status: u8,
}

impl Server {
    pub(crate) fn new(connected: Connected, target: Arc<Target>, known: &Params) -> Self {
        Self {
            leg: Leg::new(connected.stream),
            target,
            pid: connected.pid,
            secret: connected.secret,
            params: known.share(connected.params),
            since: Instant::now(),
        }
    }

    /// Where it is.
    pub(crate) fn endpoint(&self) -> &Endpoint {
        &self.target.endpoint
    }

    /// Notes a changed parameter.
    pub(crate) fn note(&mut self, name: &str, value: &str) {
        if self.param(name) == Some(value) {
            return;
        }
        // From here on the list is this session's own.
        let params = Arc::make_mut(&mut self.params);
        match params.iter_mut().find(|(n, _)| n == name) {
            Some((_, v)) => value.clone_into(v),
            None => params.push((name.to_owned(), value.to_owned())),
        }
    }

    /// A parameter as last reported.
    pub(crate) fn param(&self, name: &str) -> Option<&str> {
        self.params
            .iter()
            .find(|(n, _)| n == name)
            .map(|(_, v)| v.as_str())
    }

    /// How it reads statement texts, as far as it reported that.
    pub(crate) fn reading(&self) -> Reading {
        Reading::reported(
            self.param("standard_conforming_strings"),
            self.param("client_encoding"),
        )
    }

    /// Sends messages of our own that end in `readies` ReadyForQuery, and waits for the answers.
    /// Only while nothing of the client's is in flight.
    pub(crate) async fn ask(&mut self, messages: &[u8], readies: usize) -> io::Result<Answer> {
        self.gather(messages, readies, false).await
    }

    /// Sends a Sync behind a run of the client's: what is answered to that is not ours.
    pub(crate) async fn sync(&mut self) -> io::Result<Answer> {
        self.gather(&[b'S', 0, 0, 0, 4], 1, true).await
    }

    async fn gather(
        &mut self,
        messages: &[u8],
        readies: usize,
        theirs: bool,
    ) -> io::Result<Answer> {
        self.leg.queue().extend_from_slice(messages);
        self.leg.flush().await?;
        let mut answer = Answer::default();
        let mut left = readies;
        while left > 0 {
            let frame = self.leg.next_frame(ANSWER).await?;
            match frame.first() {
                Some(b'Z') => {
                    left -= 1;
                    answer.status = frame.get(HEADER).copied().unwrap_or(b'I');
                }
                Some(b'E') if answer.error.is_none() => {
                    let text = |code| {
                        let text = report_field(body(&frame), code).unwrap_or_default();
                        String::from_utf8_lossy(text).into_owned()
                    };
                    answer.error = Some((text(b'C'), text(b'M')));
                }
                Some(b'D') if !theirs => answer.rows.push(first_column(body(&frame))),
                Some(b'S') => {
                    if let Some((name, value)) = parameter_of(body(&frame)) {
                        self.note(name, value);
                    }
                    answer.others.extend_from_slice(&frame);
                }
                Some(b'N' | b'A') => answer.others.extend_from_slice(&frame),
                Some(tag) if theirs && *tag != b'E' => answer.others.extend_from_slice(&frame),
                _ => {}
            }
        }
        Ok(answer)
    }
}

fn first_column(row: &[u8]) -> Option<String> {
    let (_, rest) = row.split_first_chunk::<2>()?;
    let (len, rest) = rest.split_first_chunk::<4>()?;
    let len = usize::try_from(i32::from_be_bytes(*len)).ok()?;
    Some(String::from_utf8_lossy(rest.get(..len)?).into_owned())
}
