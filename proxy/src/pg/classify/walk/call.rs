//! Function calls.

use pg_query::NodeEnum;
use pg_query::protobuf::{AConst, FuncCall, Node, a_const::Val};

use super::super::finding::{Finding, Verdict};
use super::super::functions::{self, Known};
use super::super::kind::is_read_only_setting;
use super::super::names::Name;
use super::super::rule;
use super::Walk;

/// The function's name as written.
pub(super) fn name(call: &FuncCall) -> Option<String> {
    Name::of(&call.funcname).map(|name| name.to_string())
}

impl Walk<'_> {
    pub(super) fn call(&mut self, call: &FuncCall) {
        let FuncCall {
            funcname,
            args,
            agg_order,
            agg_filter,
            over,
            agg_within_group,
            agg_star: _,
            agg_distinct: _,
            func_variadic: _,
            funcformat: _,
            location: _,
        } = call;
        match Name::of(funcname) {
            Some(name) => {
                let ordered = if *agg_within_group {
                    agg_order.len()
                } else {
                    0
                };
                self.function(&name, args, args.len() + ordered);
            }
            None => self.finding.worsen(Finding::write(rule::SYNTAX)),
        }
        self.all(args);
        self.all(agg_order);
        self.each([agg_filter]);
        if let Some(window) = over {
            self.window(window);
        }
    }

    fn function(&mut self, name: &Name<'_>, args: &[Node], arguments: usize) {
        match functions::look_up(name) {
            Known::Sequence => {
                let finding = self.lens.policy.unless_temporary(rule::SEQUENCE);
                self.calls(finding.by(name.to_string()));
            }
            Known::SetConfig => self.calls(set_config(name, args)),
            Known::Safe | Known::Effect(_) | Known::Nothing => {
                self.calls(self.lens.function(name, arguments));
                if functions::runs_text(name.local) {
                    for text in args.iter().filter_map(literal) {
                        self.calls(self.lens.code(text, "sql"));
                    }
                }
            }
        }
    }
}

/// A setting named by anything but a plain string may be one wall two stands on.
fn set_config(name: &Name<'_>, args: &[Node]) -> Finding {
    match args.first().and_then(literal) {
        Some(setting) if is_read_only_setting(setting) => Finding::write(rule::WAY_OUT).by(setting),
        Some(setting) => Finding::new(Verdict::Uncertain, rule::FUNCTION, Some(name.to_string()))
            .by(format!("{name} {setting}")),
        None => Finding::write(rule::WAY_OUT).by(name.to_string()),
    }
}

fn literal(node: &Node) -> Option<&str> {
    match &node.node {
        Some(NodeEnum::AConst(AConst {
            val: Some(Val::Sval(string)),
            ..
        })) => Some(&string.sval),
        _ => None,
    }
}
