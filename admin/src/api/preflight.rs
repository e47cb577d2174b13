//! Findings: conditions with a sentence for a tired person.
//!
//! Used by `preflight` and, in a run, by the steps `preflight` and `verify`.

use serde::{Deserialize, Serialize};

use super::Plan;

/// Answer of `preflight`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Preflight {
    /// The group.
    pub group: String,
    /// The accepted primary's region.
    pub from: Option<String>,
    /// The candidate's region.
    pub to: String,
    /// The worst level of all findings.
    pub level: Level,
    /// Every condition looked at, also those that hold.
    pub findings: Vec<Finding>,
    /// What the move would do, where that was asked for.
    #[serde(default)]
    pub plan: Option<Plan>,
}

/// One condition and what was found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// Whether it stands in the way.
    pub level: Level,
    /// A stable word, such as `candidate_reachable`.
    pub name: String,
    /// What was found and, unless it passes, what to do.
    pub sentence: String,
}

/// Whether a finding stands in the way. Ordered: later is worse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Pass,
    /// The move is possible, at a price that the sentence names.
    Warn,
    /// The move would be refused.
    Block,
}

impl Preflight {
    /// Puts the findings together; no findings at all is a pass.
    pub fn new(group: String, from: Option<String>, to: String, findings: Vec<Finding>) -> Self {
        let level = findings
            .iter()
            .map(|finding| finding.level)
            .max()
            .unwrap_or(Level::Pass);
        Self {
            group,
            from,
            to,
            level,
            findings,
            plan: None,
        }
    }
}

impl Finding {
    /// One finding.
    pub fn new(level: Level, name: impl Into<String>, sentence: impl Into<String>) -> Self {
        Self {
            level,
            name: name.into(),
            sentence: sentence.into(),
        }
    }
}
