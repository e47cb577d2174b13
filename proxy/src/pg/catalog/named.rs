//! Custom parameters (`app.user`) that the code of a database's routines sets by name.
//!
//! A server lists no custom parameter, it only answers for one that is named. Found are names behind
//! SET and in calls of set_config, also within strings that are run as statements; a name that is put
//! together from pieces is not.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use regex::Regex;

use super::facts::Routine;

/// Most names kept: each is asked for in every session that is about to move.
const MOST: usize = 256;

static NAMED: LazyLock<Regex> = LazyLock::new(|| {
    let name = r"([a-z_][\w$]*(?:\.[a-z_][\w$]*)+)";
    let set = format!(r"\bset\s+(?:session\s+|local\s+)?{name}\s*(?:=|\bto\b)");
    let call = format!(r"set_config\s*\(\s*(?:setting_name\s*(?::=|=>)\s*)?'{name}'");
    Regex::new(&format!("(?i){set}|{call}")).expect("the pattern is a constant")
});

/// The names in these routines.
pub(super) fn parameters(routines: &[Routine]) -> BTreeSet<String> {
    let texts = routines
        .iter()
        .flat_map(|it| std::iter::once(&it.body).chain(&it.standard_body));
    let names = texts.flat_map(|text| {
        NAMED
            .captures_iter(text)
            .filter_map(|found| found.get(1).or_else(|| found.get(2)))
            .map(|name| name.as_str().to_ascii_lowercase())
    });
    let mut all = BTreeSet::new();
    for name in names {
        if all.len() == MOST {
            break;
        }
        all.insert(name);
    }
    all
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_found_behind_set_and_in_calls_and_within_strings() {
        let routine = |body: &str, standard: Option<&str>| Routine {
            body: body.to_owned(),
            standard_body: standard.map(str::to_owned),
            ..Routine::default()
        };
        let found = parameters(&[
            routine("BEGIN EXECUTE format('set app.t1 = %L', t); END", None),
            routine(
                "BEGIN SET LOCAL App.Two TO 'x'; PERFORM set_config( 'app.t3', t, false); END",
                None,
            ),
            routine(
                "",
                Some("SELECT set_config(setting_name => 'app.t4'::text, x, false)"),
            ),
            routine(
                "UPDATE t SET a = 1, b.c = 2; SELECT set_config('app.' || k, v, false)",
                None,
            ),
        ]);
        let found: Vec<&str> = found.iter().map(String::as_str).collect();
        assert_eq!(found, ["app.t1", "app.t3", "app.t4", "app.two"]);
    }
}
