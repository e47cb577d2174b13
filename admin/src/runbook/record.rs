//! The records of a run's journal, and which of them must be on disk before the run goes on.
//!
//! One JSON object per line: `{"seq":3,"at":"…","run":"…","kind":"step_started","step":"drain"}`.
//! The types are part of the state directory's format: fields are added, never renamed.

use serde::{Deserialize, Serialize};

use crate::api::{
    ApiError, Certificate, DivergedLog, Evidence, FenceAnswer, Finding, Loss, Measured, RunKind,
    RunState, Step, Timestamp, Verb,
};

/// One line of a journal.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    /// Starts at 1 and grows by one: a missing record is seen.
    pub seq: u64,
    /// When it was written.
    pub at: Timestamp,
    /// The run; the same in every record of a journal.
    pub run: String,
    /// What is recorded.
    #[serde(flatten)]
    pub fact: Fact,
}

/// What a record says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case")]
pub enum Fact {
    /// The run begins; always the first record.
    Started(Started),
    /// An operator's verb was accepted for this run.
    Verb {
        /// Which.
        verb: Verb,
        /// By whom.
        actor: String,
    },
    /// The candidate's region, where the start did not name it.
    Candidate {
        /// The region.
        region: String,
    },
    /// A step begins, or begins again.
    StepStarted {
        /// Which.
        step: Step,
    },
    /// A step is done.
    StepDone {
        /// Which.
        step: Step,
        /// What it found.
        #[serde(default)]
        findings: Vec<Finding>,
    },
    /// A step is not needed in this run.
    StepSkipped {
        /// Which.
        step: Step,
        /// Why not.
        reason: String,
    },
    /// A step failed; the run may repeat it.
    StepFailed {
        /// Which.
        step: Step,
        /// Why.
        error: ApiError,
        /// What it found.
        #[serde(default)]
        findings: Vec<Finding>,
    },
    /// The fence fell.
    Fence(Fenced),
    /// The log position the candidate must reach.
    FenceLsn(FenceLsn),
    /// The old primary was shown to take no more writes.
    Evidence {
        /// By what.
        evidence: Evidence,
    },
    /// What the promotion rests on.
    Certificate {
        /// The certificate.
        certificate: Certificate,
    },
    /// Something was waived.
    Exception {
        /// What, as a sentence.
        text: String,
    },
    /// The point of no return: from here on only forward, on this candidate.
    Pnr {
        /// The candidate, pinned.
        candidate: Pinned,
    },
    /// The candidate is a primary.
    Promoted(Promoted),
    /// Writes pass again.
    Open(Opened),
    /// The run is on its way back: every certificate is void from here on.
    Aborting {
        /// Who asked, or the daemon itself.
        actor: String,
        /// Why.
        reason: String,
    },
    /// A hook of the user's begins; known before it does anything.
    HookBegun {
        /// Its name.
        hook: String,
        /// At which moment of the run. (`at` is the record's own.)
        moment: String,
    },
    /// It has ended.
    HookEnded {
        /// Its name.
        hook: String,
        /// At which moment of the run. (`at` is the record's own.)
        moment: String,
        /// Milliseconds that it took, with its retries.
        took_ms: u64,
        /// Why it failed; null if it did not.
        #[serde(default)]
        error: Option<String>,
    },
    /// Any other change of the run's state.
    State {
        /// The new state.
        state: RunState,
        /// Why, for states that are not an aim.
        #[serde(default)]
        error: Option<ApiError>,
    },
    /// What is going to be lost, stated before an unplanned move.
    Loss(Loss),
    /// What the new primary does not have of the old one's log; also behind the end of the run, when
    /// the old primary is seen again.
    Diverged(DivergedLog),
    /// What the run cost, as far as it was seen.
    Measured(Measured),
    /// Something worth telling those who follow; changes nothing.
    Note {
        /// The step it belongs to.
        #[serde(default)]
        step: Option<Step>,
        /// The sentence.
        text: String,
    },
}

/// What was asked for.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Started {
    /// The group.
    pub group: String,
    /// What was started. (`kind` is the record's own.)
    pub run_kind: RunKind,
    /// The accepted primary's region at the start.
    pub from: Option<String>,
    /// The candidate's region, as far as named.
    pub to: Option<String>,
    /// The operator's reason.
    pub reason: String,
    /// Who asked.
    pub actor: String,
    /// Time allowed before the point of no return, milliseconds.
    #[serde(default)]
    pub budget_ms: Option<u64>,
    /// Whether loss was accepted from the start.
    #[serde(default)]
    pub accept_loss: bool,
    /// Whether stragglers are cancelled instead of rolling back.
    #[serde(default)]
    pub force_stragglers: bool,
    /// Whether a drill leaves the old primary alone.
    #[serde(default)]
    pub fence_only: bool,
}

/// The fence of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Fenced {
    /// The epoch it raised the group to.
    pub epoch: u64,
    /// What new writes get.
    pub answer: FenceAnswer,
    /// How long a write is held, milliseconds; null: as configured.
    #[serde(default)]
    pub hold_ms: Option<u64>,
}

/// The old primary's last position.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct FenceLsn {
    /// The position, as `X/X`.
    pub lsn: String,
    /// The old primary's system identifier, as text.
    pub system_identifier: String,
    /// The old primary's timeline.
    pub timeline: u32,
}

/// The candidate as it was when the point of no return was passed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pinned {
    /// Its region.
    pub region: String,
    /// Its system identifier, as text; null only for drivers that cannot tell.
    pub system_identifier: Option<String>,
    /// The timeline it received, which the promotion compares; null only for such drivers.
    pub timeline: Option<u32>,
}

/// The new primary's identity.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Promoted {
    /// Its region.
    pub region: String,
    /// Its system identifier, as text.
    pub system_identifier: Option<String>,
    /// Its new timeline.
    pub timeline: Option<u32>,
    /// Where the new timeline left the old one.
    pub fork_lsn: Option<String>,
    /// Its next transaction id before anybody wrote there: what lost writes are judged by.
    #[serde(default)]
    pub next_xid: Option<u64>,
}

/// The opening of a run.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Opened {
    /// The region that takes writes.
    pub region: String,
    /// The epoch it raised the group to.
    pub epoch: u64,
}

impl Fact {
    /// Whether the record must be on disk before the run goes on. These five are what a successor
    /// must never be wrong about: whether writes are stopped, whether it may still go back,
    /// which server is the primary, whether writes passed there, and that nothing may be promoted
    /// any more. All other records ride along with the next of these.
    pub const fn needs_fsync(&self) -> bool {
        match self {
            Self::Fence(_)
            | Self::Pnr { .. }
            | Self::Promoted(_)
            | Self::Open(_)
            | Self::Aborting { .. } => true,
            Self::Started(_)
            | Self::Verb { .. }
            | Self::Candidate { .. }
            | Self::StepStarted { .. }
            | Self::StepDone { .. }
            | Self::StepSkipped { .. }
            | Self::StepFailed { .. }
            | Self::FenceLsn(_)
            | Self::Evidence { .. }
            | Self::Certificate { .. }
            | Self::Exception { .. }
            | Self::State { .. }
            | Self::HookBegun { .. }
            | Self::HookEnded { .. }
            | Self::Loss(_)
            | Self::Diverged(_)
            | Self::Measured(_)
            | Self::Note { .. } => false,
        }
    }
}
