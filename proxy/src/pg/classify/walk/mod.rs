//! Looks through a query for everything that could change something.
//!
//! Every node a query can contain is named in [`Walk::node`]; one that is not named makes the
//! statement a write, so that a construct of a later version cannot slip through unseen.

mod call;
mod expression;
mod json;
mod query;

use pg_query::NodeEnum;
use pg_query::protobuf::{CallStmt, Node, RangeVar};

use super::finding::{Finding, Verdict};
use super::lens::Lens;
use super::policy::Policy;
use super::rule;

/// Deepest nesting that is followed. The parser's own stack ends before, so this is never met; it
/// stands here so that ours does not depend on a number of another program.
const MAX_DEPTH: usize = 50_000;

/// Finding about a query that is run.
pub(super) fn run(node: &NodeEnum, lens: Lens<'_>) -> Finding {
    let mut walk = Walk::new(Mode::Run, lens, Finding::read(rule::QUERY));
    walk.node(node);
    walk.finding
}

/// Finding about a query that is only planned.
pub(super) fn plan(node: &NodeEnum, lens: Lens<'_>) -> Finding {
    let mut walk = Walk::new(Mode::Plan, lens, Finding::read(rule::PLAN));
    walk.node(node);
    walk.finding
}

/// Finding about expressions that are evaluated.
pub(super) fn arguments(nodes: &[Node], lens: Lens<'_>) -> Finding {
    let mut walk = Walk::new(Mode::Run, lens, Finding::read(rule::QUERY));
    walk.all(nodes);
    walk.finding
}

/// Finding about CALL: the procedure and its arguments.
pub(super) fn procedure(stmt: &CallStmt, lens: Lens<'_>) -> Finding {
    let mut finding = Finding::new(Verdict::Uncertain, rule::PROCEDURE, None);
    if let Some(call) = &stmt.funccall {
        finding.decided_by = call::name(call);
        if let Some(name) = super::names::Name::of(&call.funcname) {
            finding.worsen(lens.function(&name, call.args.len()));
        }
        finding.worsen(arguments(&call.args, lens));
    }
    finding
}

/// A relation's name as written.
pub(super) fn relation(relation: &RangeVar) -> String {
    match relation.schemaname.as_str() {
        "" => relation.relname.clone(),
        schema => format!("{schema}.{}", relation.relname),
    }
}

/// Whether the relation is a temporary one for certain. Without a schema a name may be one too;
/// the session knows which it created.
pub(super) fn is_temporary(relation: &RangeVar) -> bool {
    relation.schemaname == "pg_temp"
}

/// Whether the relation is a temporary one, or may be one in this session.
pub(super) fn may_be_temporary(relation: &RangeVar, policy: &Policy) -> bool {
    is_temporary(relation) || policy.temporaries && relation.schemaname.is_empty()
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Mode {
    Run,
    Plan,
}

struct Walk<'p> {
    mode: Mode,
    lens: Lens<'p>,
    finding: Finding,
    depth: usize,
    /// Names of WITH queries in scope; they stand before relations of the same name.
    ctes: Vec<String>,
}

impl<'p> Walk<'p> {
    fn new(mode: Mode, lens: Lens<'p>, finding: Finding) -> Self {
        Self {
            mode,
            lens,
            finding,
            depth: 0,
            ctes: Vec::new(),
        }
    }

    /// Something that happens only when the statement is run.
    fn acts(&mut self, finding: Finding) {
        match self.mode {
            Mode::Run => self.finding.worsen(finding),
            Mode::Plan => {}
        }
    }

    /// Something the planner may already call, if it believes the function's marking. PostgreSQL's
    /// own functions that have effects are marked as what they are.
    fn calls(&mut self, mut finding: Finding) {
        if self.mode == Mode::Plan && !finding.nature.folds {
            finding.verdict = finding.verdict.min(Verdict::Uncertain);
        }
        self.finding.worsen(finding);
    }

    fn unknown(&mut self, rule: &'static str, name: impl Into<String>) {
        self.calls(self.lens.unknown(rule, name));
    }

    fn all(&mut self, nodes: &[Node]) {
        for node in nodes {
            self.inside(node);
        }
    }

    fn each<'n>(&mut self, nodes: impl IntoIterator<Item = &'n Option<Box<Node>>>) {
        for node in nodes.into_iter().flatten() {
            self.inside(node);
        }
    }

    /// An empty node is a null in the parser's list, as in `SELECT DISTINCT`.
    fn inside(&mut self, node: &Node) {
        if let Some(node) = &node.node {
            self.node(node);
        }
    }

    fn node(&mut self, node: &NodeEnum) {
        self.deeper(|walk| walk.dispatch(node));
    }

    fn deeper(&mut self, visit: impl FnOnce(&mut Self)) {
        if self.depth == MAX_DEPTH {
            return self.finding.worsen(Finding::write(rule::TOO_DEEP));
        }
        self.depth += 1;
        visit(self);
        self.depth -= 1;
    }

    fn dispatch(&mut self, node: &NodeEnum) {
        let known = self.query(node) || self.expression(node) || self.json(node);
        if !known {
            self.finding.worsen(Finding::write(rule::SYNTAX));
        }
    }
}
