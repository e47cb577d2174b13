//! The arrows between the daemon's modules: what may use what, as ARCHITECTURE.md says.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// Module, and what it may use of the daemon's own modules.
const MAY_USE: [(&str, &[&str]); 18] = [
    ("gate", &[]),
    ("upstream", &["gate", "scram", "tls"]),
    ("tls", &["watched"]),
    ("scram", &[]),
    ("watched", &[]),
    ("evidence", &["upstream", "sessions"]),
    ("driver", &["outside", "upstream"]),
    ("outside", &[]),
    ("sessions", &["upstream"]),
    ("unknown", &["gate"]),
    (
        "group",
        &[
            "gate", "http", "pg", "requests", "sessions", "tcp", "unknown", "upstream",
        ],
    ),
    ("requests", &[]),
    (
        "http",
        &[
            "error", "gate", "group", "requests", "shutdown", "tls", "unknown", "watched",
        ],
    ),
    (
        "tcp",
        &[
            "gate", "group", "requests", "shutdown", "unknown", "upstream",
        ],
    ),
    (
        "pg",
        &[
            "clock", "gate", "group", "scram", "sessions", "shutdown", "tls", "unknown",
            "upstream", "watched",
        ],
    ),
    ("fleet", &["clock", "error"]),
    ("clock", &[]),
    ("failpoint", &[]),
];

fn files(at: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(at).expect("the source folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            files(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            found.push(path);
        }
    }
}

/// Top-level modules that the text names behind `crate::`.
fn used(text: &str) -> BTreeSet<String> {
    let mut names = BTreeSet::new();
    for line in text.lines().filter(|l| !l.trim_start().starts_with("//")) {
        for after in line.split("crate::").skip(1) {
            let name: String = after
                .chars()
                .take_while(|c| c.is_ascii_lowercase() || *c == '_')
                .collect();
            if !name.is_empty() {
                names.insert(name);
            }
        }
    }
    names
}

#[test]
fn modules_use_only_what_the_architecture_allows() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("../proxy/src");
    let mut checked = 0;
    for (module, allowed) in MAY_USE {
        let mut of_module = Vec::new();
        let folder = src.join(module);
        if folder.is_dir() {
            files(&folder, &mut of_module);
        } else {
            of_module.push(src.join(format!("{module}.rs")));
        }
        for path in of_module {
            let within = path.strip_prefix(&src).unwrap_or(&path);
            let is_test = within
                .components()
                .any(|c| c.as_os_str() == "tests" || c.as_os_str() == "tests.rs");
            if is_test {
                continue;
            }
            let text = fs::read_to_string(&path).expect("a source file can be read");
            for name in used(&text) {
                let fine = name == module || allowed.contains(&name.as_str());
                assert!(fine, "{}: {module} uses {name}", path.display());
            }
            checked += 1;
        }
    }
    assert!(checked > 60, "only {checked} files were found");
}

#[test]
fn a_forbidden_arrow_is_seen() {
    assert_eq!(
        used("use crate::control::Actor;"),
        BTreeSet::from(["control".to_owned()])
    );
    assert!(used("// crate::control").is_empty());
}
