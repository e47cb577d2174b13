//! Every test that the table of traps names exists, and no trap is without one.

use std::collections::HashSet;
use std::fs;
use std::path::Path;

/// Each table with the number of its rows.
const TABLES: [(&str, usize); 3] = [
    (include_str!("../TRAPS.md"), 28),
    (include_str!("../HTTP-TRAPS.md"), 22),
    (include_str!("../ADVERSITY.md"), 11),
];

/// Names of all functions without parameters below a folder.
fn functions(folder: &Path, found: &mut HashSet<String>) {
    for entry in fs::read_dir(folder).expect("the folder can be read") {
        let path = entry.expect("an entry can be read").path();
        if path.is_dir() {
            functions(&path, found);
        } else if path.extension().is_some_and(|e| e == "rs") {
            let text = fs::read_to_string(&path).expect("a source file can be read");
            let names = text
                .split("fn ")
                .skip(1)
                .filter_map(|after| after.split_once("()"));
            found.extend(names.map(|(name, _)| name.to_owned()));
        }
    }
}

/// The number of a row and the tests it names, and whether something in it is not built.
fn row(line: &str) -> Option<(usize, Vec<&str>, bool)> {
    let mut cells = line.split(" | ");
    let number = cells.next()?.trim_matches(['|', ' ']).parse().ok()?;
    let tests = line.split('`').skip(1).step_by(2).collect();
    Some((number, tests, line.contains("not built")))
}

#[test]
fn every_trap_has_a_test_that_exists() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut exist = HashSet::new();
    for folder in ["tests", "proxy/src", "proxy/tests"] {
        functions(&root.join(folder), &mut exist);
    }
    for (table, n) in TABLES {
        let rows: Vec<_> = table.lines().filter_map(row).collect();
        let numbers: Vec<usize> = rows.iter().map(|row| row.0).collect();
        assert_eq!(numbers, (1..=n).collect::<Vec<_>>());
        for (number, tests, not_built) in rows {
            assert!(not_built || !tests.is_empty(), "trap {number} has no test");
            for test in tests.into_iter().filter(|test| !test.contains(' ')) {
                // A field or a header is no test.
                let is_test = test.contains('_');
                assert!(
                    !is_test || exist.contains(test),
                    "trap {number}: there is no {test}"
                );
            }
        }
    }
}
