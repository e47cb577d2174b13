//! DO: what can be told of its code without running it.
//!
//! The code is run where PostgreSQL refuses it to write and to end its transaction. What is left to
//! look for are the effects that read-only mode lets pass. Every word counts, also in strings and
//! comments: the code may run a string.

use pg_query::NodeEnum;
use pg_query::protobuf::DoStmt;

use super::finding::{Finding, Verdict};
use super::functions;
use super::names;
use super::policy::{Effect, Policy};
use super::rule;

/// Statements with such an effect that may stand in code, by their first word.
const STATEMENTS: &[(&str, Effect)] = &[
    ("analyse", Effect::Maintenance),
    ("analyze", Effect::Maintenance),
    ("cluster", Effect::Maintenance),
    ("copy", Effect::ServerFiles),
    ("load", Effect::Load),
    ("lock", Effect::Lock),
    ("notify", Effect::Notify),
    ("reindex", Effect::Maintenance),
];

/// Finding about a DO block.
pub(super) fn block(stmt: &DoStmt, policy: &Policy) -> Finding {
    let mut finding = Finding::new(Verdict::Uncertain, rule::PROCEDURE, None);
    for option in &stmt.args {
        let Some(NodeEnum::DefElem(option)) = &option.node else {
            return Finding::write(rule::SYNTAX);
        };
        let Some(text) = option.arg.as_deref().and_then(names::text) else {
            return Finding::write(rule::SYNTAX);
        };
        if option.defname == "as" {
            finding.worsen(named(text, policy));
        }
    }
    finding
}

fn named(code: &str, policy: &Policy) -> Finding {
    let mut finding = Finding::read(rule::QUERY);
    let words = code.split(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$'));
    for word in words.map(str::to_lowercase) {
        let statement = STATEMENTS.iter().find(|(first, _)| *first == word);
        let effect = statement.map(|(_, effect)| *effect);
        if let Some(effect) = effect.or_else(|| functions::effect(&word)) {
            finding.worsen(policy.effect(effect).by(word));
        }
    }
    finding
}
