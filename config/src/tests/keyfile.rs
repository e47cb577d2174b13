//! Passwords: where they come from, who may read them, and that nobody prints them.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use tempfile::TempDir;

use super::MINIMAL;
use crate::{Config, Password, Problems, Secret, parse};

struct Keyfile {
    _folder: TempDir,
    path: PathBuf,
}

fn keyfile(text: &str, mode: u32) -> Keyfile {
    let folder = tempfile::tempdir().expect("a folder can be made");
    let path = folder.path().join("pgpass");
    fs::write(&path, text).expect("a file can be written");
    fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("its mode can be set");
    Keyfile {
        _folder: folder,
        path,
    }
}

fn with_observer(line: &str) -> Result<Config, Problems> {
    let text = format!("{MINIMAL}\n[group.main.observer]\n{line}\n");
    parse(&text, "test.toml").map(|loaded| loaded.config)
}

fn with_passfile(keyfile: &Keyfile) -> Result<Config, Problems> {
    with_observer(&format!("passfile = {:?}", keyfile.path))
}

fn check(keyfile: &str, asked: (&str, u16, &str, &str), expected: Option<&str>) {
    let config = with_passfile(&self::keyfile(keyfile, 0o600)).expect("it is fine");
    let (host, port, database, user) = asked;
    let found = config.groups[0]
        .observer
        .password
        .lookup(host, port, database, user);
    assert_eq!(
        found.as_ref().map(|secret| secret.expose().as_str()),
        expected,
        "{keyfile}"
    );
}

#[test]
fn the_first_line_that_matches_gives_the_password() {
    let file = "# comment\n\nhost:5432:db:user:one\n*:*:*:user:two\n*:*:*:*:three\n";
    check(file, ("host", 5432, "db", "user"), Some("one"));
    check(file, ("host", 5433, "db", "user"), Some("two"));
    check(file, ("host", 5432, "db", "other"), Some("three"));
}

#[test]
fn a_backslash_takes_the_next_character_as_it_is() {
    check(
        r"a\:b:1:d\\b:u:p\:w\\:rest",
        ("a:b", 1, r"d\b", "u"),
        Some(r"p:w\"),
    );
    check(r"*:1:d:\*:p", ("h", 1, "d", "u"), None);
    check(r"*:1:d:\*:p", ("h", 1, "d", "*"), Some("p"));
}

#[test]
fn lines_with_too_few_fields_are_passed_over() {
    check("*:*:*:user\n*:*:*:user:p", ("h", 1, "d", "user"), Some("p"));
    check("*:*:*:user:", ("h", 1, "d", "user"), None);
}

#[test]
fn a_passfile_that_others_may_read_is_refused() {
    for mode in [0o640, 0o604, 0o660, 0o601] {
        let problems = with_passfile(&keyfile("*:*:*:*:p", mode)).expect_err("it is open");
        assert!(
            problems.to_string().contains("others may"),
            "{mode:o}: {problems}"
        );
    }
    with_passfile(&keyfile("*:*:*:*:p", 0o400)).expect("its owner may read it");
}

#[test]
fn a_password_comes_from_the_environment() {
    // Cargo sets this one for every test.
    let config = with_observer("password_env = \"CARGO_PKG_NAME\"").expect("it is set");
    let found = config.groups[0].observer.password.lookup("h", 1, "d", "u");
    assert_eq!(found, Some(Secret::new("writefence-config".to_owned())));
}

#[test]
fn one_source_of_a_password_is_enough() {
    let keyfile = keyfile("*:*:*:*:p", 0o600);
    let lines = format!(
        "passfile = {:?}\npassword_env = \"CARGO_PKG_NAME\"",
        keyfile.path
    );
    let problems = with_observer(&lines).expect_err("two sources");
    assert!(
        problems.to_string().contains("beside passfile"),
        "{problems}"
    );
}

#[test]
fn no_secret_is_ever_printed() {
    let config = with_passfile(&keyfile("*:*:*:*:hunter2", 0o600)).expect("it is fine");
    assert!(!format!("{config:?}").contains("hunter2"));
    let secret = Password::Value(Secret::new("hunter2".to_owned()));
    assert!(!format!("{secret:?} {}", Secret::new("hunter2")).contains("hunter2"));
}

#[test]
fn a_password_pasted_where_it_does_not_belong_is_not_repeated() {
    for text in [
        MINIMAL.replace("host=127.0.0.1", "host=127.0.0.1 password=hunter2secret"),
        MINIMAL.replace("host=127.0.0.1", "postgres://u:hunter2secret@127.0.0.1"),
        MINIMAL.replace(
            "host=127.0.0.1",
            "host=127.0.0.1\"\npassword_env = \"hunter2secret",
        ),
        MINIMAL.replace(
            "host=127.0.0.1",
            "host=127.0.0.1\"\nhttp = \"http://u:hunter2secret@h",
        ),
        MINIMAL.replace(
            "host=127.0.0.1",
            "host=127.0.0.1\"\npassword = \"hunter2secret",
        ),
        MINIMAL.replace("\"host=127.0.0.1\"", "hunter2secret"),
    ] {
        let problems = parse(&text, "test.toml").expect_err("it does not belong there");
        assert!(!problems.to_string().contains("hunter2"), "{problems}");
    }
}
