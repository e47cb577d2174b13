//! Queries, the statements that change rows, and what stands in FROM.
//!
//! The fields of the large nodes are taken apart in full: a field that a later version adds has
//! to be placed here before this compiles.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    CommonTableExpr, DeleteStmt, InsertStmt, JoinExpr, MergeStmt, Node, OnConflictClause,
    RangeTableFunc, RangeTableSample, RangeVar, ReturningClause, SelectStmt, UpdateStmt,
    WithClause,
};

use super::super::finding::{Finding, Verdict};
use super::super::names::Name;
use super::super::rule;
use super::Walk;
use crate::pg::catalog::Event;

/// Whether what stands in FROM may have rows that FOR UPDATE locks. Functions have none; whatever
/// is neither function nor join of functions may be or contain a table.
fn has_rows_to_lock(item: &Node) -> bool {
    match &item.node {
        Some(NodeEnum::RangeFunction(_) | NodeEnum::RangeTableFunc(_)) => false,
        Some(NodeEnum::JoinExpr(join)) => [&join.larg, &join.rarg]
            .into_iter()
            .flatten()
            .any(|side| has_rows_to_lock(side)),
        _ => true,
    }
}

impl Walk<'_> {
    /// Whether the node is one of those this file knows.
    pub(super) fn query(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::SelectStmt(stmt) => self.select(stmt),
            NodeEnum::InsertStmt(stmt) => self.insert(stmt),
            NodeEnum::UpdateStmt(stmt) => self.update(stmt),
            NodeEnum::DeleteStmt(stmt) => self.delete(stmt),
            NodeEnum::MergeStmt(stmt) => self.merge(stmt),
            NodeEnum::MergeWhenClause(when) => {
                self.each([&when.condition]);
                self.all(&when.target_list);
                self.all(&when.values);
            }
            NodeEnum::CommonTableExpr(cte) => self.common_table(cte),
            NodeEnum::ResTarget(target) => {
                self.all(&target.indirection);
                self.each([&target.val]);
            }
            NodeEnum::RangeVar(relation) => self.reads(relation),
            NodeEnum::RangeSubselect(range) => self.each([&range.subquery]),
            NodeEnum::RangeFunction(range) => {
                self.all(&range.functions);
                self.all(&range.coldeflist);
            }
            NodeEnum::RangeTableFunc(range) => self.xml_table(range),
            NodeEnum::RangeTableFuncCol(column) => {
                self.type_name(column.type_name.as_ref());
                self.each([&column.colexpr, &column.coldefexpr]);
            }
            NodeEnum::RangeTableSample(sample) => self.sample(sample),
            NodeEnum::JoinExpr(join) => self.join(join),
            NodeEnum::IndexElem(element) => self.each([&element.expr]),
            _ => return false,
        }
        true
    }

    fn select(&mut self, stmt: &SelectStmt) {
        let SelectStmt {
            distinct_clause,
            into_clause,
            target_list,
            from_clause,
            where_clause,
            group_clause,
            group_distinct: _,
            having_clause,
            window_clause,
            values_lists,
            sort_clause,
            limit_offset,
            limit_count,
            limit_option: _,
            locking_clause,
            with_clause,
            op: _,
            all: _,
            larg,
            rarg,
        } = stmt;
        if let Some(into) = into_clause {
            let name = into.rel.as_ref().map(super::relation);
            self.acts(Finding::new(Verdict::Write, rule::INTO, name));
        }
        if !locking_clause.is_empty() && from_clause.iter().any(has_rows_to_lock) {
            self.acts(self.lens.policy.unless_temporary(rule::ROW_LOCK));
        }
        self.calls(self.lens.implied());
        let scope = self.ctes.len();
        self.with(with_clause.as_ref());
        for list in [
            distinct_clause,
            target_list,
            from_clause,
            group_clause,
            window_clause,
        ] {
            self.all(list);
        }
        self.all(values_lists);
        self.all(sort_clause);
        self.each([where_clause, having_clause, limit_offset, limit_count]);
        for side in [larg, rarg].into_iter().flatten() {
            self.deeper(|walk| walk.select(side));
        }
        self.ctes.truncate(scope);
    }

    fn reads(&mut self, relation: &RangeVar) {
        let cte = relation.schemaname.is_empty() && self.ctes.contains(&relation.relname);
        if !cte {
            self.calls(self.lens.relation(relation));
        }
    }

    fn insert(&mut self, stmt: &InsertStmt) {
        let InsertStmt {
            relation,
            cols,
            select_stmt,
            on_conflict_clause,
            returning_clause,
            with_clause,
            r#override: _,
        } = stmt;
        let scope = self.ctes.len();
        self.changes(relation.as_ref(), Some(Event::Insert));
        self.with(with_clause.as_ref());
        self.all(cols);
        self.each([select_stmt]);
        if let Some(conflict) = on_conflict_clause {
            self.conflict(conflict);
        }
        self.returning(returning_clause.as_ref());
        self.ctes.truncate(scope);
    }

    fn conflict(&mut self, clause: &OnConflictClause) {
        if let Some(infer) = &clause.infer {
            self.all(&infer.index_elems);
            self.each([&infer.where_clause]);
        }
        self.all(&clause.target_list);
        self.each([&clause.where_clause]);
    }

    fn update(&mut self, stmt: &UpdateStmt) {
        let UpdateStmt {
            relation,
            target_list,
            where_clause,
            from_clause,
            returning_clause,
            with_clause,
        } = stmt;
        let scope = self.ctes.len();
        self.changes(relation.as_ref(), Some(Event::Update));
        self.with(with_clause.as_ref());
        self.all(target_list);
        self.all(from_clause);
        self.each([where_clause]);
        self.returning(returning_clause.as_ref());
        self.ctes.truncate(scope);
    }

    fn delete(&mut self, stmt: &DeleteStmt) {
        let DeleteStmt {
            relation,
            using_clause,
            where_clause,
            returning_clause,
            with_clause,
        } = stmt;
        let scope = self.ctes.len();
        self.changes(relation.as_ref(), Some(Event::Delete));
        self.with(with_clause.as_ref());
        self.all(using_clause);
        self.each([where_clause]);
        self.returning(returning_clause.as_ref());
        self.ctes.truncate(scope);
    }

    fn merge(&mut self, stmt: &MergeStmt) {
        let MergeStmt {
            relation,
            source_relation,
            join_condition,
            merge_when_clauses,
            returning_clause,
            with_clause,
        } = stmt;
        let scope = self.ctes.len();
        self.changes(relation.as_ref(), None);
        self.with(with_clause.as_ref());
        self.each([source_relation, join_condition]);
        self.all(merge_when_clauses);
        self.returning(returning_clause.as_ref());
        self.ctes.truncate(scope);
    }

    /// Temporary tables are gone with the session and read-only mode lets them be changed, but
    /// their defaults and triggers may be anything.
    fn changes(&mut self, relation: Option<&RangeVar>, event: Option<Event>) {
        let name = relation.map(super::relation);
        self.acts(match relation {
            Some(relation) if super::may_be_temporary(relation, self.lens.policy) => {
                Finding::new(Verdict::Uncertain, rule::TEMPORARY, name)
            }
            Some(relation) => self.lens.change(relation, event),
            None => Finding::new(Verdict::Write, rule::DML, name),
        });
    }

    /// The names stay in scope until their statement is left.
    fn with(&mut self, clause: Option<&WithClause>) {
        let Some(clause) = clause else { return };
        let name = |node: &Node| match &node.node {
            Some(NodeEnum::CommonTableExpr(cte)) => Some(cte.ctename.clone()),
            _ => None,
        };
        if clause.recursive {
            self.ctes.extend(clause.ctes.iter().filter_map(name));
        }
        for cte in &clause.ctes {
            self.inside(cte);
            if !clause.recursive {
                self.ctes.extend(name(cte));
            }
        }
    }

    fn returning(&mut self, clause: Option<&ReturningClause>) {
        if let Some(clause) = clause {
            self.all(&clause.exprs);
        }
    }

    fn common_table(&mut self, cte: &CommonTableExpr) {
        self.each([&cte.ctequery]);
        if let Some(cycle) = &cte.cycle_clause {
            self.each([&cycle.cycle_mark_value, &cycle.cycle_mark_default]);
        }
    }

    fn join(&mut self, join: &JoinExpr) {
        if join.is_natural || !join.using_clause.is_empty() {
            self.means("=");
        }
        self.each([&join.larg, &join.rarg, &join.quals]);
    }

    fn xml_table(&mut self, range: &RangeTableFunc) {
        self.each([&range.docexpr, &range.rowexpr]);
        self.all(&range.namespaces);
        self.all(&range.columns);
    }

    fn sample(&mut self, sample: &RangeTableSample) {
        match Name::of(&sample.method) {
            Some(method) if matches!(method.local, "system" | "bernoulli") => {}
            Some(method) => self.unknown(rule::FUNCTION, method.to_string()),
            None => self.finding.worsen(Finding::write(rule::SYNTAX)),
        }
        self.each([&sample.relation, &sample.repeatable]);
        self.all(&sample.args);
    }
}
