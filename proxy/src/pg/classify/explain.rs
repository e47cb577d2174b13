//! EXPLAIN: runs its statement only with ANALYZE, but plans it always, and the planner already
//! calls functions that are marked immutable or stable.

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, CreateTableAsStmt, ExplainStmt, Node, a_const::Val};

use super::finding::{Finding, Verdict};
use super::kind::Kind;
use super::lens::Lens;
use super::policy::Effect;
use super::{names, rule, walk};

pub(super) fn explain(stmt: &ExplainStmt, lens: Lens<'_>) -> (Kind, Finding) {
    let runs = stmt.options.iter().rev().find_map(analyze) == Some(true);
    let Some(node) = node(stmt.query.as_deref()) else {
        return (Kind::Other, Finding::write(rule::SYNTAX));
    };
    match node {
        // The session knows what the name stands for; it is run as if by EXECUTE itself.
        NodeEnum::ExecuteStmt(execute) => {
            let name = execute.name.clone();
            let mut finding = Finding::new(Verdict::Uncertain, rule::EXECUTE, Some(name.clone()));
            finding.worsen(walk::arguments(&execute.params, lens));
            (
                if runs {
                    Kind::Execute { name }
                } else {
                    Kind::Other
                },
                finding,
            )
        }
        NodeEnum::DeclareCursorStmt(declare) => (
            Kind::Other,
            query(self::node(declare.query.as_deref()), runs, lens),
        ),
        NodeEnum::CreateTableAsStmt(create) => (Kind::Other, table(create, runs, lens)),
        // REFRESH is accepted and not run: "utility statements have no plan structure".
        NodeEnum::RefreshMatViewStmt(_) => (Kind::Other, Finding::read(rule::PLAN)),
        _ => (Kind::Other, query(Some(node), runs, lens)),
    }
}

fn node(node: Option<&Node>) -> Option<&NodeEnum> {
    node.and_then(|node| node.node.as_ref())
}

fn query(node: Option<&NodeEnum>, runs: bool, lens: Lens<'_>) -> Finding {
    match node {
        Some(node) if runs => walk::run(node, lens),
        Some(node) => walk::plan(node, lens),
        None => Finding::write(rule::SYNTAX),
    }
}

/// PostgreSQL's read-only mode lets EXPLAIN ANALYZE of CREATE TABLE AS pass: the table is filled
/// and thrown away, and a transaction id is spent.
fn table(create: &CreateTableAsStmt, runs: bool, lens: Lens<'_>) -> Finding {
    let inner = node(create.query.as_deref());
    let mut finding = match inner {
        Some(NodeEnum::ExecuteStmt(execute)) => Finding::new(
            Verdict::Uncertain,
            rule::EXECUTE,
            Some(execute.name.clone()),
        ),
        _ => query(inner, runs, lens),
    };
    if runs {
        finding.worsen(lens.effect(Effect::ExplainCreate));
    }
    finding
}

/// What an option says about ANALYZE, if anything; of several the last holds on the server. A value
/// that is not clearly false is true.
fn analyze(option: &Node) -> Option<bool> {
    let Some(NodeEnum::DefElem(option)) = &option.node else {
        return Some(true);
    };
    if option.defname != "analyze" {
        return None;
    }
    let Some(value) = &option.arg else {
        return Some(true);
    };
    let off = match value.node.as_ref() {
        Some(NodeEnum::Integer(integer)) => integer.ival == 0,
        Some(NodeEnum::AConst(AConst {
            val: Some(Val::Ival(integer)),
            ..
        })) => integer.ival == 0,
        Some(NodeEnum::Boolean(boolean)) => !boolean.boolval,
        _ => names::text(value).is_some_and(|word| {
            ["off", "false"]
                .iter()
                .any(|no| word.eq_ignore_ascii_case(no))
        }),
    };
    Some(!off)
}
