//! A typed client of the admin socket.
//!
//! One connection per call: a Unix socket costs microseconds, and a daemon that was restarted in
//! between is simply met anew. Every call has a time limit. When it passes, the call may still have
//! been carried out; the error says so and nothing is repeated here.

mod error;
mod exchange;

use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

pub use error::ClientError;

use crate::api::{
    AuditPage, Drain, Reload, ReloadReport, Request, RunProgress, SessionList, Status, UnknownList,
    Verb,
};
use crate::report::Report;
use crate::{Expect, Wait};

/// Where the daemon listens unless told otherwise.
pub const DEFAULT_SOCKET: &str = "/run/writefence/admin.sock";
/// How long an answer may take. The daemon answers every call at once, so this is the time after
/// which it counts as gone; shorter would fail on a machine under load.
pub const DEFAULT_TIMEOUT: Duration = Duration::from_secs(5);

type Result<T> = std::result::Result<T, ClientError>;

/// Talks to one daemon.
#[derive(Debug, Clone)]
pub struct Client {
    socket: PathBuf,
    timeout: Duration,
}

impl Client {
    /// A client of the daemon at `socket`; nothing is connected yet.
    pub fn new(socket: impl Into<PathBuf>, timeout: Duration) -> Self {
        Self {
            socket: socket.into(),
            timeout,
        }
    }

    /// The socket's path.
    pub fn socket(&self) -> &Path {
        &self.socket
    }

    /// The time limit of a call.
    pub const fn timeout(&self) -> Duration {
        self.timeout
    }

    /// Every group's status.
    ///
    /// # Errors
    /// [`ClientError`], as all calls.
    pub async fn status(&self) -> Result<Status> {
        self.get("/v1/status", Duration::ZERO).await
    }

    /// Who is connected.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn sessions(&self, group: &str) -> Result<SessionList> {
        self.get(&verb_path(group, Verb::Sessions), Duration::ZERO)
            .await
    }

    /// Writes of unknown outcome.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn unknown_list(&self, group: &str) -> Result<UnknownList> {
        self.get(&verb_path(group, Verb::Unknown), Duration::ZERO)
            .await
    }

    /// A run, as soon as there is something newer than `wait.after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn progress(&self, run: &str, wait: Wait) -> Result<RunProgress> {
        let (run, after, ms) = (segment(run), wait.after, wait.at_most.as_millis());
        let path = format!("/v1/runs/{run}?after={after}&wait_ms={ms}");
        self.get(&path, wait.at_most).await
    }

    /// The report of a run.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn report(&self, run: &str) -> Result<Report> {
        self.get(&format!("/v1/runs/{}/report", segment(run)), Duration::ZERO)
            .await
    }

    /// Records of the audit behind number `after`.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn audit(&self, after: u64, limit: usize) -> Result<AuditPage> {
        let path = format!("/v1/audit?after={after}&limit={limit}");
        self.get(&path, Duration::ZERO).await
    }

    /// A drain, as soon as it has an outcome or `at_most` is over.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn drain(&self, group: &str, id: &str, at_most: Duration) -> Result<Drain> {
        let (group, id, ms) = (segment(group), segment(id), at_most.as_millis());
        self.get(
            &format!("/v1/groups/{group}/drains/{id}?wait_ms={ms}"),
            at_most,
        )
        .await
    }

    /// Sends a verb to a group; nothing is done there unless the group is as expected.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn send<R: Request>(
        &self,
        group: &str,
        expect: &Expect,
        request: &R,
    ) -> Result<R::Answer> {
        let mut fields = fields(request);
        fields.extend(self::fields(expect));
        let body = Value::Object(fields).to_string();
        let path = verb_path(group, R::VERB);
        exchange::exchange(&self.socket, "POST", &path, body, self.timeout).await
    }

    /// Applies the configuration file again.
    ///
    /// # Errors
    /// [`ClientError`].
    pub async fn reload(&self) -> Result<ReloadReport> {
        let body = Value::Object(fields(&Reload::default())).to_string();
        exchange::exchange(&self.socket, "POST", "/v1/reload", body, self.timeout).await
    }

    async fn get<T: DeserializeOwned>(&self, path: &str, waiting: Duration) -> Result<T> {
        let within = self.timeout + waiting;
        exchange::exchange(&self.socket, "GET", path, String::new(), within).await
    }
}

fn verb_path(group: &str, verb: Verb) -> String {
    format!("/v1/groups/{}/{verb}", segment(group))
}

fn fields(of: &impl serde::Serialize) -> Map<String, Value> {
    match serde_json::to_value(of) {
        Ok(Value::Object(fields)) => fields,
        other => unreachable!("requests are structs with named fields, not {other:?}"),
    }
}

/// One segment of a path: what is not plainly a name is percent-encoded (RFC 3986, unreserved).
fn segment(text: &str) -> String {
    let mut segment = String::with_capacity(text.len());
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || b"-._~".contains(&byte) {
            segment.push(char::from(byte));
        } else {
            segment.push_str(&format!("%{byte:02X}"));
        }
    }
    segment
}
