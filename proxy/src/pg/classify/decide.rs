//! From the node at the top of a statement to its kind and verdict.
//!
//! Every statement that is not named here is a write: definition statements are many and grow
//! with each version, reading ones are few and known.

use std::ops::Range;

use pg_query::NodeEnum;
use pg_query::protobuf::{CopyStmt, LockStmt, Node, RangeVar, RawStmt};
use pg_query::protobuf::{
    CreateTableAsStmt, DeclareCursorStmt, ExecuteStmt, PrepareStmt, SelectStmt,
};

use super::finding::{Finding, Verdict};
use super::kind::Kind;
use super::lens::Lens;
use super::policy::Effect;
use super::{Statement, explain, procedure, rule, session, walk};

/// Judges the statements of `text` one by one.
pub(super) fn all(text: &str, raw: Vec<RawStmt>, lens: Lens<'_>) -> Vec<Statement> {
    raw.iter().map(|each| statement(text, each, lens)).collect()
}

fn statement(text: &str, raw: &RawStmt, lens: Lens<'_>) -> Statement {
    let place = place(text, raw);
    let Some(node) = raw.stmt.as_ref().and_then(|stmt| stmt.node.as_ref()) else {
        return Statement::new(place, Kind::Other, Finding::write(rule::SYNTAX));
    };
    let (kind, finding) = top(node, lens);
    let mut statement = Statement::new(place, kind, finding);
    if let Kind::Execute { .. } = statement.kind {
        statement.prepared = Some(arguments(node, lens));
    }
    if let NodeEnum::PrepareStmt(prepare) = node {
        let mut finding = inside(prepare.query.as_deref(), lens);
        // Its parameters are converted at each EXECUTE.
        finding.worsen(walk::arguments(&prepare.argtypes, lens));
        statement.prepared = Some(finding);
    }
    statement
}

/// The parser counts bytes; a length of zero means up to the end of the text.
fn place(text: &str, raw: &RawStmt) -> Range<usize> {
    let at = |offset: i32| usize::try_from(offset).unwrap_or(0).min(text.len());
    let start = at(raw.stmt_location);
    let end = if raw.stmt_len > 0 {
        at(raw.stmt_location.saturating_add(raw.stmt_len))
    } else {
        text.len()
    };
    start..end.max(start)
}

pub(super) fn top(node: &NodeEnum, lens: Lens<'_>) -> (Kind, Finding) {
    if let Some(control) = session::control(node) {
        return control;
    }
    let other = |finding| (Kind::Other, finding);
    let effect = |effect| other(lens.effect(effect));
    match node {
        NodeEnum::SelectStmt(select) => (creates(selected_into(select)), walk::run(node, lens)),
        NodeEnum::InsertStmt(_)
        | NodeEnum::UpdateStmt(_)
        | NodeEnum::DeleteStmt(_)
        | NodeEnum::MergeStmt(_) => other(walk::run(node, lens)),
        NodeEnum::TransactionStmt(stmt) => session::transaction(stmt, lens),
        NodeEnum::VariableSetStmt(stmt) => session::setting(stmt),
        NodeEnum::PrepareStmt(stmt) => prepare(stmt),
        NodeEnum::ExecuteStmt(stmt) => execute(stmt, lens),
        NodeEnum::DeclareCursorStmt(stmt) => declare(stmt, lens),
        NodeEnum::FetchStmt(stmt) => session::fetch(&stmt.portalname),
        NodeEnum::CopyStmt(stmt) => copy(stmt, lens),
        NodeEnum::ExplainStmt(stmt) => explain::explain(stmt, lens),
        NodeEnum::CheckPointStmt(_) => other(Finding::read(rule::CHECKPOINT)),
        NodeEnum::LockStmt(stmt) => other(lock(stmt, lens)),
        NodeEnum::NotifyStmt(stmt) => {
            other(lens.effect(Effect::Notify).by(stmt.conditionname.as_str()))
        }
        NodeEnum::VacuumStmt(_) | NodeEnum::ClusterStmt(_) | NodeEnum::ReindexStmt(_) => {
            effect(Effect::Maintenance)
        }
        NodeEnum::AlterSystemStmt(_) => effect(Effect::AlterSystem),
        NodeEnum::LoadStmt(stmt) => other(lens.effect(Effect::Load).by(stmt.filename.as_str())),
        NodeEnum::DoStmt(stmt) => (Kind::Procedure, procedure::block(stmt, lens)),
        NodeEnum::CallStmt(stmt) => (Kind::Procedure, walk::procedure(stmt, lens)),
        NodeEnum::CreateTableAsStmt(stmt) => (creates(created(stmt)), Finding::write(rule::INTO)),
        NodeEnum::CreateStmt(stmt) => (creates(stmt.relation.as_ref()), Finding::write(rule::DDL)),
        NodeEnum::ViewStmt(stmt) => (creates(stmt.view.as_ref()), Finding::write(rule::DDL)),
        NodeEnum::CreateSeqStmt(stmt) => {
            (creates(stmt.sequence.as_ref()), Finding::write(rule::DDL))
        }
        _ => other(Finding::write(rule::DDL)),
    }
}

fn prepare(stmt: &PrepareStmt) -> (Kind, Finding) {
    let finding = Finding::boundary(rule::SESSION).by(stmt.name.as_str());
    (
        Kind::Prepare {
            name: stmt.name.clone(),
        },
        finding,
    )
}

/// A statement inside another one: PREPARE, DECLARE, COPY.
fn inside(query: Option<&Node>, lens: Lens<'_>) -> Finding {
    match query.and_then(|query| query.node.as_ref()) {
        Some(node) => top(node, lens).1,
        None => Finding::write(rule::SYNTAX),
    }
}

fn execute(stmt: &ExecuteStmt, lens: Lens<'_>) -> (Kind, Finding) {
    let mut finding = Finding::new(Verdict::Uncertain, rule::EXECUTE, Some(stmt.name.clone()));
    finding.worsen(walk::arguments(&stmt.params, lens));
    (
        Kind::Execute {
            name: stmt.name.clone(),
        },
        finding,
    )
}

/// The arguments of an EXECUTE, also of one that is explained.
fn arguments(node: &NodeEnum, lens: Lens<'_>) -> Finding {
    match node {
        NodeEnum::ExecuteStmt(execute) => walk::arguments(&execute.params, lens),
        NodeEnum::ExplainStmt(explain) => {
            let inner = explain.query.as_ref().and_then(|query| query.node.as_ref());
            inner.map_or_else(
                || Finding::write(rule::SYNTAX),
                |inner| arguments(inner, lens),
            )
        }
        _ => Finding::write(rule::SYNTAX),
    }
}

fn declare(stmt: &DeclareCursorStmt, lens: Lens<'_>) -> (Kind, Finding) {
    /// CURSOR_OPT_HOLD in PostgreSQL's parsenodes.h.
    const HOLD: i32 = 0x20;
    let kind = Kind::DeclareCursor {
        hold: stmt.options & HOLD != 0,
    };
    (kind, inside(stmt.query.as_deref(), lens))
}

fn copy(stmt: &CopyStmt, lens: Lens<'_>) -> (Kind, Finding) {
    let kind = if stmt.is_from {
        Kind::CopyFrom
    } else {
        Kind::CopyTo
    };
    let mut finding = match &stmt.relation {
        Some(relation) if stmt.is_from && walk::may_be_temporary(relation, lens.policy) => {
            Finding::new(
                Verdict::Uncertain,
                rule::TEMPORARY,
                Some(walk::relation(relation)),
            )
        }
        Some(relation) if stmt.is_from => {
            Finding::write(rule::COPY_FROM).by(walk::relation(relation))
        }
        Some(relation) => lens.relation(relation),
        None => inside(stmt.query.as_deref(), lens),
    };
    // Reading a server file changes nothing; a program can do anything either way.
    if stmt.is_program || (!stmt.is_from && !stmt.filename.is_empty()) {
        finding.worsen(lens.effect(Effect::ServerFiles).by(stmt.filename.as_str()));
    }
    let filter: Vec<Node> = stmt
        .where_clause
        .iter()
        .map(|node| (**node).clone())
        .collect();
    finding.worsen(walk::arguments(&filter, lens));
    (kind, finding)
}

/// Only ACCESS EXCLUSIVE leaves a trace: it takes a transaction id and is logged, so that hot
/// standbys honour it. The weaker modes live and die in the server's memory.
fn lock(stmt: &LockStmt, lens: Lens<'_>) -> Finding {
    if stmt.mode == pg_query::LockMode::AccessExclusiveLock as i32 {
        return lens.effect(Effect::Lock);
    }
    Finding::new(Verdict::Uncertain, Effect::Lock.word(), None)
}

/// In a union INTO stands in the leftmost part.
fn selected_into(mut select: &SelectStmt) -> Option<&RangeVar> {
    while let Some(left) = &select.larg {
        select = left;
    }
    select
        .into_clause
        .as_ref()
        .and_then(|into| into.rel.as_ref())
}

fn created(stmt: &CreateTableAsStmt) -> Option<&RangeVar> {
    stmt.into.as_ref().and_then(|into| into.rel.as_ref())
}

/// Temporary objects pin their session, whatever the verdict.
fn creates(relation: Option<&RangeVar>) -> Kind {
    match relation {
        Some(relation) if relation.relpersistence == "t" || walk::is_temporary(relation) => {
            Kind::CreateTemp
        }
        Some(_) | None => Kind::Other,
    }
}
