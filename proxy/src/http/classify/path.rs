//! The ways in which one path can be spelled.
//!
//! A route is matched against what we see, and the application against what it makes of it: dots
//! resolved, slashes merged, percent signs decoded. So a path is matched in every spelling that an
//! application may see in it, and the worst verdict counts.

use super::overrides::hex;

/// Decoded more often than this a path is still encoded, and is taken as it is: an application
/// decodes once, a proxy behind us perhaps once more.
const ROUNDS: usize = 3;

/// The spellings of a path, as sent first. One for almost every path.
pub(super) fn spellings(path: &str) -> Vec<String> {
    let mut all = vec![path.to_owned()];
    let mut seen = path.to_owned();
    for _ in 0..ROUNDS {
        let next = decoded(&seen);
        add(&mut all, resolved(&seen));
        if next == seen {
            break;
        }
        add(&mut all, next.clone());
        seen = next;
    }
    // Matrix parameters and a final slash are cut off by many frameworks.
    for at in 0..all.len() {
        let bare: Vec<&str> = all[at]
            .split('/')
            .map(|part| part.split(';').next().unwrap_or_default())
            .collect();
        let bare = bare.join("/");
        let trimmed = bare.trim_end_matches('/').to_owned();
        add(&mut all, resolved(&bare));
        add(&mut all, bare);
        if !trimmed.is_empty() {
            add(&mut all, trimmed);
        }
    }
    all
}

fn add(all: &mut Vec<String>, one: String) {
    if !all.contains(&one) {
        all.push(one);
    }
}

fn decoded(path: &str) -> String {
    if !path.contains(['%', '\\']) {
        return path.to_owned();
    }
    let mut bytes = Vec::with_capacity(path.len());
    let mut rest = path.as_bytes();
    while let Some((&first, after)) = rest.split_first() {
        let code = after.get(..2).and_then(hex).filter(|_| first == b'%');
        let byte = code.unwrap_or(first);
        bytes.push(if byte == b'\\' { b'/' } else { byte });
        rest = if code.is_some() { &after[2..] } else { after };
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

/// Dots resolved and slashes merged.
fn resolved(path: &str) -> String {
    let mut kept: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => {
                kept.pop();
            }
            part => kept.push(part),
        }
    }
    let end = if path.ends_with('/') && !kept.is_empty() {
        "/"
    } else {
        ""
    };
    format!("/{}{end}", kept.join("/"))
}

#[cfg(test)]
mod tests {
    use super::spellings;

    #[test]
    fn a_plain_path_has_one_spelling() {
        assert_eq!(spellings("/orders/7"), ["/orders/7"]);
        assert_eq!(spellings("/"), ["/"]);
    }

    #[test]
    fn every_spelling_that_leads_to_a_path_names_it() {
        for path in [
            "/admin/purge/",
            "//admin/purge",
            "/admin//purge",
            "/./admin/purge",
            "/x/../admin/purge",
            "/admin/%70urge",
            "/admin/%2570urge",
            "/admin%2fpurge",
            "/admin%5Cpurge",
            "/admin\\purge",
            "/x/%2e%2e/admin/purge",
            "/admin/purge;v=1",
            "/admin;a=b/purge",
            "/admin/purge/;",
            "/../admin/purge",
        ] {
            let all = spellings(path);
            assert!(all.contains(&"/admin/purge".to_owned()), "{path}: {all:?}");
        }
    }
}
