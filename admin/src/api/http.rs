//! What the gate would say to an HTTP request, and why.

use serde::{Deserialize, Serialize};

use super::FenceAnswer;

/// Answer of `explain-http`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainHttp {
    /// The worst verdict of all listeners.
    pub verdict: HttpVerdict,
    /// What each HTTP listener of the group says, in the order of the file.
    pub listeners: Vec<ExplainHttpListener>,
}

/// What one listener says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainHttpListener {
    /// Its address.
    pub address: String,
    /// What it decided.
    pub verdict: HttpVerdict,
    /// The rule behind it.
    pub rule: String,
    /// The route that fits, by its place in the file from 0 on; null if none does.
    pub route: Option<u64>,
    /// How a fence answers here; null: as the fence says.
    pub answer: Option<FenceAnswer>,
    /// How long such a write may take before its outcome counts as unknown.
    pub write_deadline_ms: u64,
}

/// What is decided about a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum HttpVerdict {
    /// Passes a fence.
    Read,
    /// The body decides, and none was given.
    NeedsBody,
    /// Does not pass a fence.
    Write,
}
