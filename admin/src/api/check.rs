//! [`Request`]: which verb a request belongs to, what answers it, and the rules between its fields.
//!
//! Checked by the server before the call, and by `writefencectl` before it connects.

use serde::Serialize;
use serde::de::DeserializeOwned;

use super::{
    Abort, ApiError, Code, Drain, DrillRequest, ExplainHttp, ExplainHttpRequest, ExplainSql,
    ExplainSqlRequest, FailoverRequest, FenceAnswer, OpenWrites, Preflight, PreflightRequest,
    Prepare, Promote, Reload, ReloadReport, Resume, Run, SwitchoverRequest, UnknownAck,
    UnknownList, Verb, Verify, WatchDrain,
};

/// A request's body.
pub trait Request: Serialize + DeserializeOwned + Send + 'static {
    /// The verb in the path.
    const VERB: Verb;

    /// The document that answers it.
    type Answer: Serialize + DeserializeOwned + Send + 'static;

    /// Rules between fields, checked by the server before the call.
    ///
    /// # Errors
    /// What is wrong with the request and what would be accepted.
    fn check(&self) -> Result<(), ApiError> {
        Ok(())
    }
}

impl Request for PreflightRequest {
    const VERB: Verb = Verb::Preflight;
    type Answer = Preflight;
}

impl Request for Prepare {
    const VERB: Verb = Verb::Prepare;
    type Answer = Run;

    fn check(&self) -> Result<(), ApiError> {
        if self.hold_ms.is_some() && self.answer != Some(FenceAnswer::Hold) {
            return Err(bad(
                "`hold_ms` is accepted only together with `answer: \"hold\"`",
            ));
        }
        reason_given(&self.reason)
    }
}

impl Request for WatchDrain {
    const VERB: Verb = Verb::WatchDrain;
    type Answer = Drain;
}

impl Request for Promote {
    const VERB: Verb = Verb::Promote;
    type Answer = Run;

    fn check(&self) -> Result<(), ApiError> {
        confirmed(self.confirm, Self::VERB)
    }
}

impl Request for OpenWrites {
    const VERB: Verb = Verb::OpenWrites;
    type Answer = Run;
}

impl Request for Verify {
    const VERB: Verb = Verb::Verify;
    type Answer = Run;
}

impl Request for SwitchoverRequest {
    const VERB: Verb = Verb::Switchover;
    type Answer = Run;

    fn check(&self) -> Result<(), ApiError> {
        reason_given(&self.reason)
    }
}

impl Request for FailoverRequest {
    const VERB: Verb = Verb::Failover;
    type Answer = Run;

    fn check(&self) -> Result<(), ApiError> {
        reason_given(&self.reason)?;
        if !self.accept_loss {
            return Err(ApiError::new(
                Code::NotConfirmed,
                "failover needs `accept_loss`: what the old primary did not ship is lost",
            )
            .hint(
                "if the old primary still answers, use `switchover`; else add --accept-loss, and \
                 --confirm since it cannot be taken back",
            ));
        }
        confirmed(self.confirm, Self::VERB)
    }
}

impl Request for DrillRequest {
    const VERB: Verb = Verb::Drill;
    type Answer = Run;

    fn check(&self) -> Result<(), ApiError> {
        reason_given(&self.reason)
    }
}

impl Request for Abort {
    const VERB: Verb = Verb::Abort;
    type Answer = Run;
}

impl Request for Resume {
    const VERB: Verb = Verb::Resume;
    type Answer = Run;
}

impl Request for ExplainSqlRequest {
    const VERB: Verb = Verb::ExplainSql;
    type Answer = ExplainSql;
}

impl Request for ExplainHttpRequest {
    const VERB: Verb = Verb::ExplainHttp;
    type Answer = ExplainHttp;
}

impl Request for UnknownAck {
    const VERB: Verb = Verb::Unknown;
    type Answer = UnknownList;

    fn check(&self) -> Result<(), ApiError> {
        if self.all == self.ids.is_empty() {
            return reason_given(&self.reason);
        }
        Err(bad(
            "`unknown ack` takes either `ids` or `all`, and exactly one of them",
        ))
    }
}

impl Request for Reload {
    const VERB: Verb = Verb::Reload;
    type Answer = ReloadReport;
}

fn bad(message: &str) -> ApiError {
    ApiError::new(Code::BadRequest, message)
}

fn reason_given(reason: &str) -> Result<(), ApiError> {
    if reason.trim().is_empty() {
        return Err(bad(
            "`reason` is empty; a ticket or a short sentence is accepted",
        ));
    }
    Ok(())
}

fn confirmed(confirm: bool, verb: Verb) -> Result<(), ApiError> {
    if confirm {
        return Ok(());
    }
    Err(ApiError::new(
        Code::NotConfirmed,
        format!("{verb} cannot be taken back behind its point of no return and was not confirmed"),
    )
    .hint(format!(
        "look at `writefencectl status`, then repeat `{verb}` with --confirm"
    )))
}
