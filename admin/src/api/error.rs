//! Errors as documents: a stable code word, a sentence, and what to do next.
//!
//! [`Code`] is a closed set; one table maps each word to its exit code and HTTP status. The word
//! is for programs and never changes its meaning; `message` and `hint` are for people and may.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::Exit;

/// Declares the codes in one table: variant, exit code, HTTP status, meaning. The word in JSON is
/// the variant's name in snake case.
macro_rules! codes {
    ($($code:ident $exit:ident $http:literal $meaning:literal;)*) => {
        /// What went wrong, as a word that programs may rely on.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[serde(rename_all = "snake_case")]
        pub enum Code {
            $(#[doc = $meaning] $code,)*
            /// A word that this program does not know: the daemon is of a later release.
            #[serde(other)]
            Other,
        }

        impl Code {
            /// Every code that this release uses.
            pub const ALL: &'static [Self] = &[$(Self::$code),*];

            /// The exit code of `writefencectl` for this error.
            pub const fn exit(self) -> Exit {
                match self {
                    $(Self::$code => Exit::$exit,)*
                    Self::Other => Exit::Unreachable,
                }
            }

            /// The HTTP status of an answer that carries this error.
            pub const fn http_status(self) -> u16 {
                match self {
                    $(Self::$code => $http,)*
                    Self::Other => 500,
                }
            }
        }
    };
}

codes! {
    BadRequest           Usage         400 "The request's JSON or a field's value cannot be used.";
    NotConfirmed         Usage         400 "A verb that cannot be taken back was sent without `confirm`.";
    GroupNotNamed        Usage         400 "Several groups exist and the call names none.";
    NoSuchPath           Usage         404 "The path or the verb does not exist.";
    NoSuchGroup          Usage         404 "The group is not configured.";
    NoSuchRun            Usage         404 "No run of this id is known.";
    NoSuchDrain          Usage         404 "No drain of this id is known.";
    NoSuchWrite          Usage         404 "No write of unknown outcome has this id.";
    MethodNotAllowed     Usage         405 "The path exists, the HTTP method does not fit it.";
    TooSlow              Usage         408 "The request did not arrive whole in time.";
    TooLarge             Usage         413 "The request is larger than the daemon accepts.";
    BadConfig            Usage         422 "The configuration to be loaded has problems; nothing was applied.";
    NotInThisVersion     Usage         501 "The verb or option is planned and not in this version.";
    Internal             Unreachable   500 "The daemon failed in a way it did not foresee; what was done is unknown.";
    BadAnswer            Unreachable   502 "The answer cannot be read (said by the client, not by the daemon).";
    Unreachable          Unreachable   503 "Nobody answers on the socket (said by the client).";
    Stopping             Unreachable   503 "The daemon is stopping.";
    Busy                 Unreachable   503 "The daemon has as many calls in hand as it takes.";
    NoAnswer             Unreachable   504 "No answer in time (said by the client); what was done is unknown.";
    Precondition         Precondition  412 "A precondition without a word of its own.";
    PreflightBlocked     Precondition  412 "A preflight finding blocks.";
    WrongRegion          Precondition  412 "The region is not configured, or not the one the verb needs.";
    NoLiveRun            Precondition  412 "The verb is a step of a run, and none is live.";
    NotFenced            Precondition  412 "The verb needs a fenced group.";
    NotDrained           Precondition  412 "Admitted writes are not proven to have ended.";
    EvidenceMissing      Precondition  412 "Nothing proves that the old primary takes no more writes.";
    ForeignWriters       Precondition  412 "Sessions that are not ours write on the old primary and cannot be ended.";
    IdentityMismatch     Precondition  412 "The server is not the one it should be: identifier, timeline or fork.";
    CandidateBehind      Precondition  412 "The candidate has not replayed up to the fence LSN.";
    TargetUnreachable    Precondition  412 "A server that the step needs does not answer.";
    PromotionFailed      Precondition  412 "The candidate was asked and is not a primary; the run stays on it.";
    HookFailed           Precondition  412 "A hook with `on_failure = stop` failed.";
    LossNotAccepted      Precondition  412 "Going on may lose writes, and `accept_loss` was not given.";
    PastPointOfNoReturn  Precondition  412 "Too late to abort: only forward, on the same candidate.";
    NothingToResume      Precondition  412 "No run is interrupted.";
    NothingToAbort       Precondition  412 "No run is live.";
    RunInterrupted       Precondition  412 "The daemon was restarted during the run: `resume` or `abort`.";
    Storage              Precondition  412 "The journal or the state cannot be written; the step was not begun.";
    DrainTimedOut        DrainTimedOut 409 "Writes were still in flight when the drain's time ran out.";
    Aborted              Aborted       409 "The run was aborted.";
    RolledBack           Aborted       409 "The run rolled itself back.";
    BudgetExceeded       Aborted       409 "The run was over its budget before the point of no return.";
    Superseded           Superseded    409 "A later command took over.";
    WrongEpoch           Superseded    409 "The group's epoch is not the expected one.";
    WrongRun             Superseded    409 "The live run is not the expected one.";
    RunInProgress        Superseded    409 "Another run is live in this group.";
    VerificationFailed   VerifyFailed  409 "The state after the move is not as it should be.";
    AuditDamaged         VerifyFailed  409 "The audit chain does not hold.";
}

impl fmt::Display for Code {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.serialize(f)
    }
}

/// Why a call or a step did not do what was asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ApiError {
    /// The stable word.
    pub code: Code,
    /// What happened and where, as one sentence without a full stop.
    pub message: String,
    /// What to do next, if there is something to do.
    pub hint: Option<String>,
    /// The run concerned.
    pub run: Option<String>,
    /// The group's epoch when the error arose.
    pub epoch: Option<u64>,
}

/// An error as a top-level document: `{"api":1,"error":{…}}`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ErrorDoc {
    /// The error.
    pub error: ApiError,
}

impl ApiError {
    /// An error with its sentence and nothing else known.
    pub fn new(code: Code, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            hint: None,
            run: None,
            epoch: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// Names the run concerned.
    #[must_use]
    pub fn run(mut self, run: impl Into<String>) -> Self {
        self.run = Some(run.into());
        self
    }

    /// Adds the group's epoch.
    #[must_use]
    pub const fn epoch(mut self, epoch: u64) -> Self {
        self.epoch = Some(epoch);
        self
    }
}

impl fmt::Display for ApiError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for ApiError {}
