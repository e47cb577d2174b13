//! DO: what can be told of its code without running it.
//!
//! The code is run where PostgreSQL refuses it to write and to end its transaction. What is left to
//! look for are the effects that read-only mode lets pass, in its own words and in the user's
//! objects that it names.

use pg_query::NodeEnum;
use pg_query::protobuf::DoStmt;

use super::finding::{Finding, Verdict};
use super::lens::Lens;
use super::names;
use super::rule;

/// Finding about a DO block.
pub(super) fn block(stmt: &DoStmt, lens: Lens<'_>) -> Finding {
    let mut finding = Finding::new(Verdict::Uncertain, rule::PROCEDURE, None);
    let (mut code, mut language) = ("", "plpgsql");
    for option in &stmt.args {
        let Some(NodeEnum::DefElem(option)) = &option.node else {
            return Finding::write(rule::SYNTAX);
        };
        let Some(text) = option.arg.as_deref().and_then(names::text) else {
            return Finding::write(rule::SYNTAX);
        };
        match option.defname.as_str() {
            "as" => code = text,
            "language" => language = text,
            _ => return Finding::write(rule::SYNTAX),
        }
    }
    finding.worsen(lens.code(code, language));
    finding
}
