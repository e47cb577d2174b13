//! Code of a database's own objects: parsed once, judged as often as more is known of what it uses.

use pg_query::NodeEnum;
use pg_query::protobuf::{Node, RawStmt};

use super::finding::Finding;
use super::lens::Lens;
use super::parse::{self, Reading};
use super::policy::Policy;
use super::{decide, rule};
use crate::pg::catalog::{Model, Nature};

/// Statements or expressions, parsed.
#[derive(Debug)]
pub(crate) struct Code(Vec<Node>);

impl Code {
    /// Statements, as in the body of an SQL function or in a view.
    pub(crate) fn statements(text: &str) -> Option<Self> {
        let nodes = parsed(text)?.into_iter();
        Some(Self(nodes.filter_map(|raw| Some(*raw.stmt?)).collect()))
    }

    /// A list of expressions.
    pub(crate) fn expressions(list: &str) -> Option<Self> {
        Self::statements(&format!("SELECT {list}"))
    }

    /// The body of an SQL-standard function as PostgreSQL writes it.
    pub(crate) fn standard_body(text: &str) -> Option<Self> {
        let text = text.trim();
        if let Some(expression) = text.strip_prefix("RETURN ") {
            return Self::expressions(expression);
        }
        let statements = text.strip_prefix("BEGIN ATOMIC")?.strip_suffix("END")?;
        Self::statements(statements)
    }

    /// What a rule does; `None` where it changes rows, or is not understood.
    pub(crate) fn rule_actions(definition: &str) -> Option<Self> {
        let raw = parsed(definition)?.pop()?;
        let Some(NodeEnum::RuleStmt(rule)) = raw.stmt?.node else {
            return None;
        };
        let reads = |node: &Node| {
            matches!(
                node.node,
                Some(NodeEnum::SelectStmt(_) | NodeEnum::NotifyStmt(_))
            )
        };
        rule.actions.iter().all(reads).then_some(Self(rule.actions))
    }

    /// What running it may do, and the name that decided.
    pub(crate) fn look(&self, model: &Model) -> (Nature, Option<String>) {
        let policy = Policy::default();
        let lens = Lens {
            policy: &policy,
            model: Some(model),
        };
        let mut all = Finding::read(rule::QUERY);
        let mut way_out = false;
        for node in self.0.iter().filter_map(|node| node.node.as_ref()) {
            let (kind, finding) = decide::top(node, lens);
            way_out |= kind.is_way_out();
            all.worsen(finding);
        }
        let nature = Nature {
            way_out: all.nature.way_out | way_out,
            ..all.nature
        };
        (nature, all.decided_by)
    }
}

/// Read both ways where a backslash could make a difference: the setting at the time of its running
/// is not known.
fn parsed(text: &str) -> Option<Vec<RawStmt>> {
    let reading = Reading {
        standard_strings: None,
        plain_ascii: Some(true),
    };
    let text = parse::readable(text.as_bytes(), reading).ok()?;
    let mut all = parse::modes(text, reading).map(|mode| parse::statements(text, mode));
    let first = all.next()?.ok()?;
    all.all(|other| other.is_ok_and(|other| other == first))
        .then_some(first)
}
