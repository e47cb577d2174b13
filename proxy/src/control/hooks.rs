//! Hooks: the user's own programs and requests at the moments of a run.
//!
//! Journal first, then the effect: a hook that is on record as done is not done again by a run that
//! is resumed; one that was only begun is. A failure that may stop a run does so only before its
//! point of no return; behind it there is only forward, and the failure is an exception for the
//! report. A hook is never waited for longer than its own attempts may take.

use std::time::Duration;

use serde_json::{Value, json};
use writefence_admin::api::{ApiError, Code, Finding, Level};
use writefence_admin::runbook::{Fact, RunFacts};
use writefence_config::{Hook, Means, Moment, OnFailure};

use super::desk::Desk;
use super::error::{chain, refused};
use crate::clock;
use crate::fleet::Durability;
use crate::outside::{self, Method, OutsideError, Program};

/// Between two attempts.
const PAUSE: Duration = Duration::from_millis(200);

/// Does what is to be done at a moment of the live run, in the order of the file.
///
/// # Errors
/// A hook failed that stops the run; the ones after it were not done.
pub(crate) async fn at(desk: &Desk, moment: Moment) -> Result<Vec<Finding>, ApiError> {
    let mut found = Vec::new();
    for hook in desk.hooks.iter().filter(|hook| hook.at == moment) {
        let Some(facts) = desk.book.live() else {
            return Ok(found);
        };
        if facts.has_done(&hook.name, moment.name()) {
            continue;
        }
        found.push(one(desk, hook, &facts).await?);
    }
    Ok(found)
}

async fn one(desk: &Desk, hook: &Hook, facts: &RunFacts) -> Result<Finding, ApiError> {
    let (name, moment) = (hook.name.clone(), hook.at.name().to_owned());
    let begun = Fact::HookBegun {
        hook: name.clone(),
        moment: moment.clone(),
    };
    desk.book.note_with(begun, Durability::Sync).await?;
    let from = clock::now();
    let done = attempts(desk, hook, facts).await;
    let took_ms = clock::ms_since(from);
    let error = done.as_ref().err().map(|error| chain(error));
    let ended = Fact::HookEnded {
        hook: name.clone(),
        moment,
        took_ms,
        error: error.clone(),
    };
    desk.book.note(ended).await?;
    let word = format!("hook_{name}");
    let Some(error) = error else {
        let text = format!("hook {name} done in {took_ms} ms");
        return Ok(Finding::new(Level::Pass, word, text));
    };
    let text = format!("hook {name} ({}) failed: {error}", hook.at.name());
    let stops = hook.on_failure == OnFailure::Stop && hook.at.may_stop() && facts.pnr.is_none();
    if stops {
        let error = refused(Code::HookFailed, text);
        return Err(error.hint("repair it, or give it on_failure = \"continue\""));
    }
    tracing::error!(group = %desk.group.name, run = %facts.run, hook = %name, %error, "hook failed");
    desk.book
        .note(Fact::Exception { text: text.clone() })
        .await?;
    Ok(Finding::new(Level::Warn, word, text))
}

async fn attempts(desk: &Desk, hook: &Hook, facts: &RunFacts) -> Result<(), OutsideError> {
    let mut left = hook.retries;
    loop {
        match attempt(desk, hook, facts).await {
            Err(error) if left > 0 => {
                let error = chain(&error);
                tracing::warn!(group = %desk.group.name, hook = %hook.name, left, %error, "again");
                left -= 1;
                tokio::time::sleep(PAUSE).await;
            }
            done => return done,
        }
    }
}

async fn attempt(desk: &Desk, hook: &Hook, facts: &RunFacts) -> Result<(), OutsideError> {
    let told = Told::of(desk, facts, hook.at.name(), &hook.name);
    let input = told.json().to_string();
    match &hook.means {
        Means::Command(words) => {
            let env = told.env();
            let program = Program {
                words,
                env: &env,
                input: input.as_bytes(),
                timeout: hook.timeout,
            };
            outside::run(&program).await.map(drop)
        }
        Means::Http(url) => outside::request(Method::Post, url, input, hook.timeout)
            .await
            .map(drop),
        // The configuration has no such hook.
        Means::Sql(_) => Ok(()),
    }
}

/// What a program of the user's is told of the run.
pub(crate) struct Told {
    group: String,
    run: String,
    reason: String,
    kind: String,
    from: Option<String>,
    to: Option<String>,
    epoch: u64,
    step: String,
    moment: String,
    hook: String,
}

impl Told {
    pub(crate) fn of(desk: &Desk, facts: &RunFacts, moment: &str, hook: &str) -> Self {
        let started = &facts.started;
        Self {
            group: desk.group.name.clone(),
            run: facts.run.clone(),
            reason: started.reason.clone(),
            kind: started.run_kind.to_string(),
            from: started.from.clone(),
            to: facts.to.clone(),
            epoch: desk.actor.epoch().value(),
            step: facts.step.map(|step| step.to_string()).unwrap_or_default(),
            moment: moment.to_owned(),
            hook: hook.to_owned(),
        }
    }

    /// Where a value is not known yet, the variable is empty.
    pub(crate) fn env(&self) -> Vec<(&'static str, String)> {
        vec![
            ("WRITEFENCE_GROUP", self.group.clone()),
            ("WRITEFENCE_RUN", self.run.clone()),
            ("WRITEFENCE_REASON", self.reason.clone()),
            ("WRITEFENCE_KIND", self.kind.clone()),
            ("WRITEFENCE_FROM", self.from.clone().unwrap_or_default()),
            ("WRITEFENCE_TO", self.to.clone().unwrap_or_default()),
            ("WRITEFENCE_EPOCH", self.epoch.to_string()),
            ("WRITEFENCE_STEP", self.step.clone()),
            ("WRITEFENCE_MOMENT", self.moment.clone()),
            ("WRITEFENCE_HOOK", self.hook.clone()),
        ]
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "api": 1,
            "group": self.group,
            "run": self.run,
            "reason": self.reason,
            "kind": self.kind,
            "from": self.from,
            "to": self.to,
            "epoch": self.epoch,
            "step": self.step,
            "moment": self.moment,
            "hook": self.hook,
        })
    }
}
