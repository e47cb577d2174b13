//! What can be wrong with an answer about a server, and with a wish to switch to it.

use super::{Endpoint, Identity, Lsn, Region, Timeline};

/// Text that is no LSN.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a log position: {text:?} (expected two hexadecimal numbers, as in 16/B374D848)")]
pub struct BadLsn {
    /// What was found.
    pub text: String,
}

/// Text that is no timeline.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a timeline: {text:?} (expected a whole number of 1 or more)")]
pub struct BadTimeline {
    /// What was found.
    pub text: String,
}

/// A region that no target was configured for.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no region {region} in this group")]
pub struct UnknownRegion {
    /// The name that was asked for.
    pub region: Region,
}

/// Why an observed server is not accepted as target.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Mismatch {
    /// The observation is of another server.
    #[error("observed {found}, to be accepted is {wanted}")]
    OtherServer {
        /// Who was observed.
        found: Endpoint,
        /// Who is to be accepted.
        wanted: Endpoint,
    },
    /// The server is a standby.
    #[error("the server is in recovery, a primary is wanted")]
    InRecovery,
    /// The server is a primary.
    #[error("the server is not in recovery, a standby is wanted")]
    NotInRecovery,
    /// The server did not say whether it is in recovery.
    #[error("the server did not say whether it is in recovery")]
    RoleUnknown,
    /// The server did not tell its system identifier.
    #[error("the system identifier cannot be read (EXECUTE on pg_control_system() is needed)")]
    IdentifierUnknown,
    /// The server did not tell its timeline.
    #[error("the timeline cannot be read (EXECUTE on pg_walfile_name(pg_lsn) is needed)")]
    TimelineUnknown,
    /// Another cluster altogether.
    #[error("system identifier {found} found, {wanted} wanted: this is another cluster")]
    SystemIdentifier {
        /// What the server says.
        found: u64,
        /// What the group has.
        wanted: u64,
    },
    /// Not promoted since: the old primary itself, or one older still.
    #[error("timeline {found} found, one above {old} wanted: this server was not promoted")]
    TimelineNotHigher {
        /// What the server says.
        found: Timeline,
        /// The timeline in force.
        old: Timeline,
    },
    /// To be reopened, but promoted or rewound meanwhile.
    #[error("timeline {found} found, {wanted} wanted: this is no longer the same primary")]
    Timeline {
        /// What the server says.
        found: Timeline,
        /// The timeline in force.
        wanted: Timeline,
    },
    /// To be reopened, but the timeline of that number is another one.
    #[error("the timeline forked at {found}, {wanted} wanted: two promotions took one number")]
    Fork {
        /// Where the server's timeline began.
        found: Lsn,
        /// Where the one in force began.
        wanted: Lsn,
    },
    /// The fork point is needed and cannot be read.
    #[error(
        "the fork point cannot be read, one at or after {wanted} is wanted \
         (the observer's role needs the REPLICATION attribute)"
    )]
    ForkUnknown {
        /// The fence LSN.
        wanted: Lsn,
    },
    /// The new timeline does not descend from the old one.
    #[error("the server's timeline does not descend from timeline {wanted}")]
    OtherLineage {
        /// The timeline in force.
        wanted: Timeline,
    },
    /// Promoted before it had everything.
    #[error("forked at {found}, at or after {wanted} wanted: acknowledged writes are missing")]
    ForkBeforeFence {
        /// Where the server left the old timeline.
        found: Lsn,
        /// The fence LSN.
        wanted: Lsn,
    },
    /// Writes would be refused by the server's own setting.
    #[error("default_transaction_read_only is on, off is wanted")]
    ReadOnly,
    /// The server did not tell its setting.
    #[error("the server did not tell its default_transaction_read_only, off is wanted")]
    ReadOnlyUnknown,
}

/// Why a checked target was not put in force.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RepointError {
    /// Another repoint came between the check and this one.
    #[error("the target was checked against {}, in force is {}", known(.checked), known(.now))]
    Overtaken {
        /// What the check started from.
        checked: Option<Identity>,
        /// What is in force.
        now: Option<Identity>,
    },
    /// A first identity is given once only.
    #[error("the group already has a primary: {identity}")]
    Established {
        /// What is in force.
        identity: Identity,
    },
}

fn known(identity: &Option<Identity>) -> String {
    identity.map_or_else(|| "no identity".to_owned(), |identity| identity.to_string())
}
