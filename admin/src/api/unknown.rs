//! Writes whose outcome is unknown: admitted, then their upstream was lost.
//!
//! They are kept durably until they are resolved or an operator acknowledges them.

use serde::{Deserialize, Serialize};

use super::{StragglerKind, Timestamp};

/// `GET /v1/groups/{g}/unknown`, and the answer of `unknown ack`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownList {
    /// The group.
    pub group: String,
    /// Oldest first; acknowledged ones stay until the ledger is trimmed.
    pub writes: Vec<UnknownWrite>,
}

/// One write of unknown outcome.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnknownWrite {
    /// Names it within the group.
    pub id: String,
    /// When its upstream was lost.
    pub at: Timestamp,
    /// What it was.
    pub kind: StragglerKind,
    /// How far it is known by now.
    pub state: UnknownState,
    /// The region it was sent to.
    pub region: Option<String>,
    /// Database user.
    pub user: Option<String>,
    /// Database.
    pub database: Option<String>,
    /// The client's address.
    pub client: Option<String>,
    /// Process id of the backend that had it.
    pub pid: Option<i32>,
    /// Fingerprint of the statement or the request.
    pub digest: Option<String>,
    /// The request's own key, if it had one.
    pub idempotency_key: Option<String>,
    /// The id of the request, which the server behind was told as `X-Request-Id`.
    #[serde(default)]
    pub request: Option<String>,
    /// Transaction id on the server; null unless it was tracked.
    pub xid: Option<u64>,
    /// Who acknowledged it, and the reason given.
    pub acknowledged_by: Option<String>,
}

/// What is known of it by now.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum UnknownState {
    /// Still to be found out; blocks `drained`.
    Unresolved,
    /// The server was shown to have it.
    Committed,
    /// The server was shown not to have it.
    Lost,
    /// The server was shown to have it prepared; COMMIT PREPARED or ROLLBACK PREPARED decides.
    Prepared,
    /// Its backend is gone, whether it was committed can no longer be found out.
    Unresolvable,
    /// An operator took note.
    Acknowledged,
}
