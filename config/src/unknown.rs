//! Refuses what nobody knows: unknown keys and sections, and those of later versions.
//!
//! A key that is passed over in silence is worse than an error: the operator believes in a setting
//! that does not exist, and learns it during the incident it was meant for.

use toml::Spanned;
use toml::de::{DeTable, DeValue};

use crate::error::ProblemKind;
use crate::keys::{self, Node, Presence};
use crate::raw::Findings;
use crate::upstream::Driver;
use crate::value::{Word, Wrong};

/// Edits between two words that still look like one mistyped.
const LIKELY: usize = 2;

/// A table of the file beside its place in the table of keys.
struct Level<'a> {
    table: &'a DeTable<'a>,
    /// As the file has it, with names.
    path: String,
    /// As the table of keys has it.
    pattern: String,
}

/// Reports every key of the file that is not in this version's table.
pub(crate) fn check(root: &DeTable<'_>, found: &mut Findings<'_>) {
    check_level(
        &Level {
            table: root,
            path: String::new(),
            pattern: String::new(),
        },
        found,
    );
}

fn check_level(level: &Level<'_>, found: &mut Findings<'_>) {
    for (name, value) in level.table.iter() {
        let path = join(&level.path, name.get_ref());
        let pattern = join(&level.pattern, name.get_ref());
        let at = name.span().start;
        // A user's key may hold a dot or a star in quotes; such a name is no path.
        let plain = !name.get_ref().contains(['.', '*', '[', ']']);
        match keys::node(&pattern).filter(|_| plain) {
            Some(Node::Leaf(Presence::Later)) => refuse_later(at, path, found),
            Some(Node::Leaf(_)) => {}
            Some(node) => check_node(
                node,
                Level {
                    table: level.table,
                    path,
                    pattern,
                },
                value,
                found,
            ),
            None if belongs_to_later_kind(level) => {}
            None => refuse_unknown(level, at, path, name.get_ref(), found),
        }
    }
}

fn check_node(node: Node, here: Level<'_>, value: &Spanned<DeValue<'_>>, found: &mut Findings<'_>) {
    let Level { path, pattern, .. } = here;
    let wrong = match (node, value.get_ref()) {
        (Node::Section, DeValue::Table(table)) => {
            return check_level(
                &Level {
                    table,
                    path,
                    pattern,
                },
                found,
            );
        }
        (Node::Named, DeValue::Table(table)) => return check_named(table, &path, &pattern, found),
        (Node::Listed, DeValue::Array(array)) => {
            for (n, element) in array.iter().enumerate() {
                let (path, pattern) = (format!("{path}[{n}]"), format!("{pattern}.[]"));
                check_section(path, pattern, element, found);
            }
            return;
        }
        (Node::Listed, _) => Wrong::value("is not a list of sections", format!("[[{path}]]")),
        (_, _) => Wrong::value("is not a section", format!("[{path}]")),
    };
    found.problem(value.span().start, path, ProblemKind::Value, wrong);
}

fn check_named(table: &DeTable<'_>, path: &str, pattern: &str, found: &mut Findings<'_>) {
    let pattern = join(pattern, "*");
    if matches!(keys::node(&pattern), Some(Node::Leaf(_))) {
        return;
    }
    for (name, value) in table.iter() {
        check_section(join(path, name.get_ref()), pattern.clone(), value, found);
    }
}

fn check_section(
    path: String,
    pattern: String,
    value: &Spanned<DeValue<'_>>,
    found: &mut Findings<'_>,
) {
    match value.get_ref() {
        DeValue::Table(table) => check_level(
            &Level {
                table,
                path,
                pattern,
            },
            found,
        ),
        _ => {
            let wrong = Wrong::value("is not a section", format!("[{path}]"));
            found.problem(value.span().start, path, ProblemKind::Value, wrong);
        }
    }
}

fn join(path: &str, name: &str) -> String {
    if path.is_empty() {
        name.to_owned()
    } else {
        format!("{path}.{name}")
    }
}

/// The kind itself is refused as not in this version; what its other keys are is for that version
/// to say.
fn belongs_to_later_kind(level: &Level<'_>) -> bool {
    if level.pattern != "group.*.driver" {
        return false;
    }
    let kind = level
        .table
        .iter()
        .find(|(name, _)| name.get_ref() == "kind");
    let kind = kind.and_then(|(_, value)| value.get_ref().as_str());
    kind.is_some_and(|kind| Driver::LATER.contains(&kind))
}

fn refuse_later(at: usize, path: String, found: &mut Findings<'_>) {
    let wrong = Wrong::later("is not in this version", "a file without it");
    found.problem(at, path, wrong.kind, wrong);
}

fn refuse_unknown(
    level: &Level<'_>,
    at: usize,
    path: String,
    name: &str,
    found: &mut Findings<'_>,
) {
    let entries = keys::entries(&level.pattern);
    let likely = entries.iter().filter(|entry| edits(entry, name) <= LIKELY);
    let what = match likely.min_by_key(|entry| edits(entry, name)) {
        Some(entry) => format!("is unknown; did you mean {entry:?}?"),
        None => match elsewhere(name, level) {
            Some(other) => format!("is unknown here; did you mean {other:?}?"),
            None => "is unknown".to_owned(),
        },
    };
    let wrong = Wrong {
        kind: ProblemKind::Unknown,
        what,
        accepted: accepted(&level.pattern, &entries),
    };
    found.problem(at, path, ProblemKind::Unknown, wrong);
}

/// The entries of a section that this version has.
fn accepted(pattern: &str, entries: &[&str]) -> String {
    let later =
        |entry: &str| keys::node(&join(pattern, entry)) == Some(Node::Leaf(Presence::Later));
    let now: Vec<_> = entries
        .iter()
        .copied()
        .filter(|entry| !later(entry))
        .collect();
    now.join(", ")
}

/// Where a key of this very name belongs, if there is just one such place.
fn elsewhere(name: &str, level: &Level<'_>) -> Option<String> {
    let last = |path: &str| path.rsplit('.').next() == Some(name);
    let mut places = keys::KEYS.iter().filter(|key| last(key.path));
    let place = places.next().filter(|_| places.next().is_none())?.path;
    let group = level
        .path
        .strip_prefix("group.")
        .and_then(|rest| rest.split('.').next());
    let place = place.replacen('*', group.unwrap_or("NAME"), 1);
    Some(place.replace(".[]", "").replace('*', "NAME"))
}

/// Levenshtein's distance, for words no longer than a key may be.
fn edits(a: &str, b: &str) -> usize {
    if a.len().abs_diff(b.len()) > LIKELY {
        return usize::MAX;
    }
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, from) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, to) in b.bytes().enumerate() {
            let swapped = diagonal + usize::from(from != to);
            diagonal = row[j + 1];
            row[j + 1] = swapped.min(diagonal + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}
