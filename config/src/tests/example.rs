//! example.toml against the defaults, the table of keys and the readers.

use super::{EXAMPLE, MINIMAL, config, problems};
use crate::ProblemKind;
use crate::entries::entries;
use crate::keys::{KEYS, Presence};

/// The `[header]` and `key = value` lines of the example, those without a default included.
/// Yields (line number, path as in the table of keys, whether it is commented out).
fn settings(text: &str) -> Vec<(usize, String, bool)> {
    let mut section = String::new();
    let mut settings = Vec::new();
    for (n, line) in text.lines().enumerate() {
        let commented = line.starts_with('#');
        let line = line.trim_start_matches('#');
        if let Some(header) = line.strip_prefix('[') {
            let header = header.trim_matches(['[', ']']);
            section = header
                .replace("group.main", "group.*")
                .replace("listen", "listen.[]")
                .replace("route", "route.[]");
            if section == "hook" || section == "check" {
                section.push_str(".[]");
            }
            section = section
                .replace("region.a", "region.*")
                .replace("region.b", "region.*");
            settings.push((n, section.clone(), commented));
        } else if let Some((key, _)) = line.split_once(" = ")
            && key
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_' || c == '.')
        {
            // The one name in the example that a user chose for a key.
            let key = key.replace("tcp.redis", "tcp.*");
            settings.push((n, format!("{section}.{key}"), commented));
        }
    }
    settings
}

fn has_default(path: &str) -> bool {
    KEYS.iter()
        .any(|key| key.path == path && key.presence == Presence::Default)
}

#[test]
fn the_example_without_its_defaults_means_the_same() {
    let settings = settings(EXAMPLE);
    let dropped = |n| {
        settings
            .iter()
            .any(|(line, path, _)| *line == n && has_default(path))
    };
    let lines = EXAMPLE.lines().enumerate().filter(|(n, _)| !dropped(*n));
    let bare: Vec<_> = lines.map(|(_, line)| line).collect();
    assert!(
        EXAMPLE.lines().count() - bare.len() >= 30,
        "the defaults are in the example"
    );
    assert_eq!(config(&bare.join("\n")), config(EXAMPLE));
}

#[test]
fn every_key_stands_in_the_example_and_only_those_without_default_are_commented() {
    let settings = settings(EXAMPLE);
    for key in KEYS {
        let below = format!("{}.", key.path);
        let mut here = settings.iter().filter(|(_, path, _)| {
            path == key.path || (key.presence == Presence::Later && path.starts_with(&below))
        });
        match key.presence {
            Presence::Default => {
                assert!(
                    here.any(|(_, _, commented)| !commented),
                    "{} is not set",
                    key.path
                );
            }
            Presence::Given => assert!(here.next().is_some(), "{} is missing", key.path),
            Presence::Later => {
                assert!(here.clone().next().is_some(), "{} is missing", key.path);
                assert!(
                    here.all(|(_, _, commented)| *commented),
                    "{} is set",
                    key.path
                );
            }
        }
    }
}

/// A commented line that were unknown, or accepted, would mislead whoever takes the `#` away.
#[test]
fn the_known_keys_of_later_versions_are_refused_as_such() {
    let start = EXAMPLE
        .find("# Known, and refused")
        .expect("the example has this paragraph");
    let later = EXAMPLE[start..].lines().skip(1);
    let later: Vec<_> = later
        .map(|line| line.strip_prefix('#').unwrap_or(line))
        .collect();
    // A section may be opened only once, so these lines become a file of their own.
    let problems = problems(&later.join("\n"));
    let refused = |problem: &&crate::Problem| problem.kind == ProblemKind::NotInThisVersion;
    let kinds = problems
        .iter()
        .filter(|p| !refused(p))
        .map(|p| (p.kind, p.key.as_str()));
    let others: Vec<_> = kinds.collect();
    assert_eq!(others, [(ProblemKind::Missing, "group")], "{problems}");
    let named: Vec<_> = problems
        .iter()
        .filter(refused)
        .map(|p| p.key.clone())
        .collect();
    for key in KEYS.iter().filter(|key| key.presence == Presence::Later) {
        let last = key.path.rsplit('.').next().unwrap_or_default();
        let found = named
            .iter()
            .any(|name| name.rsplit('.').next() == Some(last));
        assert!(found, "{} is not refused: {named:?}", key.path);
    }
}

/// Every known key is read: a value of the wrong type is noticed at it.
#[test]
fn a_value_of_the_wrong_type_is_noticed_at_every_key() {
    for (n, path, commented) in settings(EXAMPLE) {
        let known = KEYS
            .iter()
            .any(|key| key.path == path && key.presence != Presence::Later);
        if !known {
            continue;
        }
        let broken = EXAMPLE.lines().enumerate().map(|(line, text)| {
            if line == n {
                let key = text.trim_start_matches('#').split(" = ").next();
                format!("{} = 1979-05-27", key.unwrap_or_default())
            } else {
                text.to_owned()
            }
        });
        let broken = broken.collect::<Vec<_>>().join("\n");
        let problems = problems(&broken);
        let there = problems.iter().any(|problem| problem.place.line == n + 1);
        assert!(
            there,
            "{path} (commented out: {commented}) is not read: {problems}"
        );
    }
}

#[test]
fn every_key_of_the_table_is_compared_by_reload() {
    let entries = entries(&config(EXAMPLE));
    for key in KEYS.iter().filter(|key| key.presence == Presence::Default) {
        assert!(
            entries.iter().any(|entry| entry.pattern == key.path),
            "{}",
            key.path
        );
    }
    assert!(
        entries
            .iter()
            .all(|entry| KEYS.iter().any(|key| key.path == entry.pattern))
    );
}

#[test]
fn the_least_file_starts_with_every_default() {
    let (least, example) = (config(MINIMAL), config(EXAMPLE));
    assert_eq!(least.admin, example.admin);
    assert_eq!(least.limits, example.limits);
    let (least, example) = (&least.groups[0], &example.groups[0]);
    assert_eq!(least.primary, "a");
    assert_eq!(least.observer, example.observer);
    assert_eq!(least.fence, example.fence);
    let server = least.regions[0].postgres.as_ref();
    assert_eq!(server.map(|server| server.port), Some(5432));
}
