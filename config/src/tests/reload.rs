//! What reload says about each sort of change.

use super::{EXAMPLE, config};
use crate::reload::{Change, Class, diff};

fn changes(from: &str, to: &str) -> Vec<Change> {
    assert!(EXAMPLE.contains(from), "the example has {from}");
    diff(&config(EXAMPLE), &config(&EXAMPLE.replacen(from, to, 1)))
}

fn check(from: &str, to: &str, class: Class, expected: &str) {
    let changes = changes(from, to);
    let [change] = &changes[..] else {
        panic!("one change is expected: {changes:?}")
    };
    assert_eq!(change.class, class, "{change}");
    assert_eq!(change.to_string(), expected);
}

#[test]
fn a_file_that_means_the_same_changes_nothing() {
    assert_eq!(changes("hold = \"20s\"", "hold = \"20000ms\""), []);
    assert_eq!(changes("# Both times", "# The two times"), []);
}

#[test]
fn times_and_answers_apply_live() {
    let hold = "group.main.fence.hold: 20s -> 30s";
    check("hold = \"20s\"", "hold = \"30s\"", Class::Live, hold);
    let answer = "group.main.fence.answer: hold -> reject";
    check(
        "answer = \"hold\"",
        "answer = \"reject\"",
        Class::Live,
        answer,
    );
    check(
        "#rto = \"60s\"",
        "rto = \"60s\"",
        Class::Live,
        "group.main.objectives.rto: (none) -> 1m",
    );
}

#[test]
fn sockets_servers_and_bounds_of_the_gate_need_a_restart() {
    let socket = "admin.listen: 127.0.0.1:9464 -> off";
    check(
        "listen = \"127.0.0.1:9464\"",
        "listen = \"off\"",
        Class::Restart,
        socket,
    );
    let server = "group.main.region.b.postgres: 127.0.0.1:5502 -> 127.0.0.1:5503";
    check("port=5502", "port=5503", Class::Restart, server);
    check(
        "held = 10000",
        "held = 9",
        Class::Restart,
        "limits.held: 10000 -> 9",
    );
    let code = "group.main.listen[127.0.0.1:6432].sqlstate: 25006 -> 40001";
    check(
        "sqlstate = \"25006\"",
        "sqlstate = \"40001\"",
        Class::Restart,
        code,
    );
}

#[test]
fn the_primary_matters_to_a_first_start_only() {
    let change = "group.main.primary: a -> b";
    check(
        "primary = \"a\"",
        "primary = \"b\"",
        Class::FirstStart,
        change,
    );
}

#[test]
fn what_comes_and_what_goes_is_listed_key_by_key() {
    let more = "[group.main.region.c]\npostgres = \"host=c\"\nhttp = \"http://c\"\n\
                tcp.redis = \"c:1\"\n\n[group.main.sql]";
    let come = changes("[group.main.sql]", more);
    let come: Vec<_> = come.iter().map(ToString::to_string).collect();
    let of_c = |rest: &str| format!("group.main.region.c.{rest}");
    let expected = [
        of_c("postgres: (none) -> c:5432"),
        of_c("http: (none) -> http://c"),
        of_c("http_version: (none) -> auto"),
        of_c("tcp.redis: (none) -> c:1"),
        of_c("password_methods: (none) -> scram-sha-256"),
        of_c("tls.mode: (none) -> prefer"),
    ];
    assert_eq!(come, expected);
    let moved = changes(
        "address = \"127.0.0.1:6432\"",
        "address = \"127.0.0.1:6433\"",
    );
    assert_eq!(moved.len(), 8, "four keys come and four go: {moved:?}");
    assert!(moved.iter().all(|change| change.class == Class::Restart));
}

#[test]
fn a_changed_password_is_noticed_and_not_shown() {
    let with = |variable: &str| {
        config(&EXAMPLE.replacen("#password_env = \"WRITEFENCE_PASSWORD_A\"", variable, 1))
    };
    let old = with("password_env = \"CARGO_PKG_NAME\"");
    let new = with("password_env = \"CARGO_PKG_VERSION\"");
    let changes = diff(&old, &new);
    let [change] = &changes[..] else {
        panic!("one change is expected: {changes:?}")
    };
    let shown = "group.main.region.a.password_env: (secret) -> (secret)";
    assert_eq!(change.to_string(), shown);
}
