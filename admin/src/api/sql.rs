//! What the gate would say to a statement, and why.

use serde::{Deserialize, Serialize};

/// Answer of `explain-sql`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainSql {
    /// The worst verdict of all statements; an empty text is a read.
    pub verdict: Verdict,
    /// The rule behind that verdict; null for an empty text.
    pub rule: Option<String>,
    /// The function, table or setting that decided, where one did.
    pub decided_by: Option<String>,
    /// The database whose catalog was asked; null where none was.
    #[serde(default)]
    pub database: Option<String>,
    /// Why nothing is known of that database; null where its catalog was asked.
    #[serde(default)]
    pub no_catalog: Option<String>,
    /// Each statement in its order.
    pub statements: Vec<ExplainStatement>,
}

/// One statement of the text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ExplainStatement {
    /// The statement as found in the text.
    pub text: String,
    /// What kind of statement it is, such as `begin`.
    pub kind: String,
    /// What classification decided.
    pub verdict: Verdict,
    /// The rule behind it.
    pub rule: String,
    /// What decided, where something named did.
    pub decided_by: Option<String>,
}

/// What classification decides.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Verdict {
    /// Passes a fence.
    Read,
    /// Does not pass a fence.
    Write,
    /// Transaction and session control: follows its transaction.
    Boundary,
    /// The server decides, in a session it keeps read-only.
    Uncertain,
}
