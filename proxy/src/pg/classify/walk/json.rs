//! SQL/JSON constructors and queries, which PostgreSQL has grown since version 16.
//!
//! An older server takes most of their names for functions of the user, so none of them is taken
//! for known here; their parts are looked through all the same.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    JsonAggConstructor, JsonBehavior, JsonFuncExpr, JsonOutput, JsonTable, JsonTableColumn,
    JsonValueExpr,
};

use super::super::rule;
use super::Walk;

impl Walk<'_> {
    /// Whether the node is one of those this file knows.
    pub(super) fn json(&mut self, node: &NodeEnum) -> bool {
        match node {
            NodeEnum::JsonObjectConstructor(json) => {
                self.constructor("json_object", json.output.as_ref());
                self.all(&json.exprs);
            }
            NodeEnum::JsonArrayConstructor(json) => {
                self.constructor("json_array", json.output.as_ref());
                self.all(&json.exprs);
            }
            NodeEnum::JsonArrayQueryConstructor(json) => {
                self.constructor("json_array", json.output.as_ref());
                self.each([&json.query]);
            }
            NodeEnum::JsonObjectAgg(json) => {
                self.aggregate("json_objectagg", json.constructor.as_deref());
                if let Some(pair) = &json.arg {
                    self.each([&pair.key]);
                    self.value(pair.value.as_deref());
                }
            }
            NodeEnum::JsonArrayAgg(json) => {
                self.aggregate("json_arrayagg", json.constructor.as_deref());
                self.value(json.arg.as_deref());
            }
            NodeEnum::JsonKeyValue(pair) => {
                self.each([&pair.key]);
                self.value(pair.value.as_deref());
            }
            NodeEnum::JsonParseExpr(json) => {
                self.constructor("json", json.output.as_ref());
                self.value(json.expr.as_deref());
            }
            NodeEnum::JsonScalarExpr(json) => {
                self.constructor("json_scalar", json.output.as_ref());
                self.each([&json.expr]);
            }
            NodeEnum::JsonSerializeExpr(json) => {
                self.constructor("json_serialize", json.output.as_ref());
                self.value(json.expr.as_deref());
            }
            NodeEnum::JsonIsPredicate(json) => self.each([&json.expr]),
            NodeEnum::JsonValueExpr(json) => self.value(Some(json)),
            NodeEnum::JsonArgument(argument) => self.value(argument.val.as_deref()),
            NodeEnum::JsonFuncExpr(json) => self.json_query(json),
            NodeEnum::JsonTable(table) => self.json_table(table),
            NodeEnum::JsonTableColumn(column) => self.json_column(column),
            _ => return false,
        }
        true
    }

    fn constructor(&mut self, name: &str, output: Option<&JsonOutput>) {
        self.unknown(rule::FUNCTION, name);
        self.type_name(output.and_then(|output| output.type_name.as_ref()));
    }

    fn aggregate(&mut self, name: &str, json: Option<&JsonAggConstructor>) {
        self.constructor(name, json.and_then(|json| json.output.as_ref()));
        let Some(json) = json else { return };
        self.each([&json.agg_filter]);
        self.all(&json.agg_order);
        if let Some(window) = &json.over {
            self.window(window);
        }
    }

    fn value(&mut self, value: Option<&JsonValueExpr>) {
        if let Some(value) = value {
            self.each([&value.raw_expr, &value.formatted_expr]);
        }
    }

    fn behavior(&mut self, behavior: Option<&JsonBehavior>) {
        if let Some(behavior) = behavior {
            self.each([&behavior.expr]);
        }
    }

    fn json_query(&mut self, json: &JsonFuncExpr) {
        self.constructor("json_query", json.output.as_ref());
        self.value(json.context_item.as_deref());
        self.each([&json.pathspec]);
        self.all(&json.passing);
        self.behavior(json.on_empty.as_deref());
        self.behavior(json.on_error.as_deref());
    }

    fn json_table(&mut self, table: &JsonTable) {
        self.unknown(rule::FUNCTION, "json_table");
        self.value(table.context_item.as_deref());
        self.all(&table.passing);
        self.all(&table.columns);
        self.behavior(table.on_error.as_deref());
    }

    fn json_column(&mut self, column: &JsonTableColumn) {
        self.type_name(column.type_name.as_ref());
        self.all(&column.columns);
        self.behavior(column.on_empty.as_deref());
        self.behavior(column.on_error.as_deref());
    }
}
