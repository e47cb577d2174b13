//! Expressions: each names its parts, and operators, types and fields say whether they are built
//! in.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AExpr, AExprKind, AIndirection, CaseExpr, ColumnDef, ColumnRef, Node, SortBy, SubLink,
    TypeName, WindowDef, XmlExpr,
};

use super::super::finding::Finding;
use super::super::names::{self, Name};
use super::super::rule;
use super::Walk;

impl Walk<'_> {
    /// Whether the node is one of those this file knows.
    pub(super) fn expression(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::AConst(_)
            | NodeEnum::AStar(_)
            | NodeEnum::CurrentOfExpr(_)
            | NodeEnum::MergeSupportFunc(_)
            | NodeEnum::ParamRef(_)
            | NodeEnum::SetToDefault(_)
            | NodeEnum::SqlvalueFunction(_)
            | NodeEnum::String(_)
            | NodeEnum::Integer(_)
            | NodeEnum::Float(_)
            | NodeEnum::Boolean(_)
            | NodeEnum::BitString(_) => {}
            NodeEnum::ColumnRef(column) => self.reference(column),
            NodeEnum::List(list) => self.all(&list.items),
            NodeEnum::FuncCall(call) => self.call(call),
            NodeEnum::AExpr(expr) => self.operation(expr),
            NodeEnum::TypeCast(cast) => {
                self.each([&cast.arg]);
                self.type_name(cast.type_name.as_ref());
            }
            NodeEnum::TypeName(name) => self.type_name(Some(name)),
            NodeEnum::ColumnDef(column) => self.column(column),
            NodeEnum::CollateClause(collate) => self.each([&collate.arg]),
            NodeEnum::AArrayExpr(array) => self.all(&array.elements),
            NodeEnum::AIndirection(indirection) => self.indirection(indirection),
            NodeEnum::AIndices(indices) => self.each([&indices.lidx, &indices.uidx]),
            NodeEnum::BoolExpr(expr) => self.all(&expr.args),
            NodeEnum::NullTest(test) => self.each([&test.arg]),
            NodeEnum::BooleanTest(test) => self.each([&test.arg]),
            NodeEnum::CaseExpr(case) => self.case(case),
            NodeEnum::CaseWhen(when) => self.each([&when.expr, &when.result]),
            NodeEnum::CoalesceExpr(expr) => self.all(&expr.args),
            NodeEnum::MinMaxExpr(expr) => self.all(&expr.args),
            NodeEnum::RowExpr(row) => self.all(&row.args),
            NodeEnum::NamedArgExpr(named) => self.each([&named.arg]),
            NodeEnum::MultiAssignRef(assign) => self.each([&assign.source]),
            NodeEnum::GroupingFunc(grouping) => self.all(&grouping.args),
            NodeEnum::GroupingSet(set) => self.all(&set.content),
            NodeEnum::SubLink(link) => self.sublink(link),
            NodeEnum::SortBy(sort) => self.sort(sort),
            NodeEnum::WindowDef(window) => self.window(window),
            NodeEnum::XmlExpr(xml) => self.xml(xml),
            NodeEnum::XmlSerialize(xml) => {
                self.each([&xml.expr]);
                self.type_name(xml.type_name.as_ref());
            }
            _ => return false,
        }
        true
    }

    fn operation(&mut self, expr: &AExpr) {
        use AExprKind as E;
        match E::try_from(expr.kind) {
            // Their name is the keyword, not an operator.
            Ok(
                E::AexprBetween | E::AexprNotBetween | E::AexprBetweenSym | E::AexprNotBetweenSym,
            ) => ["<", "<=", ">", ">="]
                .into_iter()
                .for_each(|name| self.means(name)),
            Ok(_) | Err(_) => self.operator(&expr.name, expr.lexpr.is_none()),
        }
        self.each([&expr.lexpr, &expr.rexpr]);
    }

    /// Nothing to say where no operator is written, as in `IN` and `ORDER BY`.
    fn operator(&mut self, parts: &[Node], unary: bool) {
        match Name::of(parts) {
            Some(name) => self.calls(self.lens.operator(&name, unary)),
            None if parts.is_empty() => {}
            None => self.finding.worsen(Finding::write(rule::SYNTAX)),
        }
    }

    /// An operator that a keyword stands for. It is looked up by its name all the same.
    pub(super) fn means(&mut self, operator: &str) {
        self.calls(self.lens.operator(&Name::in_schema("", operator), false));
    }

    /// `a.b`: where there is no column b, a function b of the row a.
    fn reference(&mut self, column: &ColumnRef) {
        if let [_, .., last] = column.fields.as_slice()
            && let Some(field) = names::text(last)
            && self.lens.model.is_some()
        {
            self.calls(self.lens.field(field));
        }
    }

    pub(super) fn type_name(&mut self, name: Option<&TypeName>) {
        let Some(written) = name else { return };
        match Name::of(&written.names) {
            Some(name) if written.pct_type => self.unknown(rule::TYPE, name.to_string()),
            Some(name) => self.calls(self.lens.type_name(&name)),
            None => self.finding.worsen(Finding::write(rule::SYNTAX)),
        }
        self.all(&written.typmods);
    }

    /// Only in a column list of a function in FROM, where nothing but a type and a collation can
    /// stand.
    fn column(&mut self, column: &ColumnDef) {
        self.type_name(column.type_name.as_ref());
        if column.raw_default.is_some() || !column.constraints.is_empty() {
            self.finding.worsen(Finding::write(rule::SYNTAX));
        }
    }

    fn indirection(&mut self, indirection: &AIndirection) {
        self.each([&indirection.arg]);
        for part in &indirection.indirection {
            match names::text(part) {
                Some(field) => self.calls(self.lens.field(field)),
                None => self.inside(part),
            }
        }
    }

    fn case(&mut self, case: &CaseExpr) {
        if case.arg.is_some() {
            self.means("=");
        }
        self.each([&case.arg, &case.defresult]);
        self.all(&case.args);
    }

    fn sublink(&mut self, link: &SubLink) {
        self.operator(&link.oper_name, false);
        if link.testexpr.is_some() && link.oper_name.is_empty() {
            self.means("=");
        }
        self.each([&link.testexpr, &link.subselect]);
    }

    fn sort(&mut self, sort: &SortBy) {
        self.operator(&sort.use_op, false);
        self.each([&sort.node]);
    }

    pub(super) fn window(&mut self, window: &WindowDef) {
        self.all(&window.partition_clause);
        self.all(&window.order_clause);
        self.each([&window.start_offset, &window.end_offset]);
    }

    fn xml(&mut self, xml: &XmlExpr) {
        self.all(&xml.named_args);
        self.all(&xml.args);
    }
}
