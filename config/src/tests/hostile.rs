//! Whatever stands in the file, there is an answer and no panic.

use super::EXAMPLE;
use crate::{load, parse};

fn survive(text: &str) {
    if let Err(problems) = parse(text, "hostile.toml") {
        assert!(problems.len() > 0);
        assert!(!problems.to_string().is_empty());
    }
}

#[test]
fn a_file_that_ends_anywhere() {
    for end in (0..EXAMPLE.len()).filter(|end| EXAMPLE.is_char_boundary(*end)) {
        survive(&EXAMPLE[..end]);
    }
}

#[test]
fn a_file_that_lacks_any_line() {
    let lines: Vec<_> = EXAMPLE.lines().collect();
    for gone in 0..lines.len() {
        let left = lines
            .iter()
            .enumerate()
            .filter(|(n, _)| *n != gone)
            .map(|(_, line)| *line);
        survive(&left.collect::<Vec<_>>().join("\n"));
    }
}

#[test]
fn a_file_with_any_byte_replaced() {
    // One replacement for each place, in turn: all of them at all places take seconds and have
    // found nothing more.
    let replacements = [
        b'"', b'[', b'\n', b'=', b'.', b'#', 0, b'0', b']', b'{', b'\\', 0xff,
    ];
    for (n, replacement) in (0..EXAMPLE.len()).zip(replacements.into_iter().cycle()) {
        let mut bytes = EXAMPLE.as_bytes().to_vec();
        bytes[n] = replacement;
        survive(&String::from_utf8_lossy(&bytes));
    }
}

#[test]
fn nesting_without_end() {
    const DEPTH: usize = 100_000;
    survive(&"[".repeat(DEPTH));
    survive(&format!("x = {}", "[".repeat(DEPTH)));
    survive(&format!("x = {}", "{a=".repeat(DEPTH)));
    survive(&format!("{}x = 1", "a.".repeat(DEPTH)));
    survive(&format!("[{}x]\n", "a.".repeat(DEPTH)));
    survive(&format!("[group.main{}]\n", ".region".repeat(DEPTH)));
    survive(&"[a]\n".repeat(DEPTH));
    survive(&"\"\"\"".repeat(DEPTH));
}

#[test]
fn names_that_look_like_the_tables_own_signs() {
    for name in ["*", "[]", "group.*", "a.b", "", "\\u0000", "\\\"", "🙂"] {
        survive(&format!("[group.\"{name}\"]\n"));
        survive(&format!(
            "[group.main.region.\"{name}\"]\npostgres = \"host=a\""
        ));
        survive(&format!("[\"{name}\"]\nx = 1"));
        survive(&format!("[group.main]\n\"{name}\" = 1"));
        survive(&format!("group.\"{name}\" = 1"));
        survive(&format!("group.main.\"listen.[]\" = [\"{name}\"]"));
    }
}

#[test]
fn values_of_every_type_at_the_first_level() {
    for value in [
        "1", "1.5", "inf", "nan", "true", "\"x\"", "[]", "[[]]", "{}", "[{}]", "07:32:00",
    ] {
        for key in [
            "group",
            "admin",
            "limits",
            "hook",
            "fleet",
            "group.main",
            "group.main.listen",
        ] {
            survive(&format!("{key} = {value}"));
        }
    }
}

#[test]
fn files_that_are_no_text() {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("c.toml");
    for (bytes, what) in [
        (vec![0xff, 0xfe, b'a'], "is not UTF-8 from byte 0 on"),
        (vec![b'#'; (1 << 20) + 1], "is too large"),
    ] {
        std::fs::write(&path, bytes).expect("a file can be written");
        let problems = load(&path).expect_err("it is no configuration");
        assert!(problems.to_string().contains(what), "{problems}");
    }
    assert!(load(folder.path()).is_err(), "a folder is no configuration");
    assert!(load(&folder.path().join("absent.toml")).is_err());
}
