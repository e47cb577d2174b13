//! Rules between keys, warnings, and files that others rely on.

use std::time::Duration;

use super::{MINIMAL, config};
use crate::{Answer, Auth, Listener, parse};

fn warnings(text: &str) -> Vec<String> {
    let loaded = parse(text, "test.toml").expect("this configuration is fine");
    loaded.warnings.iter().map(ToString::to_string).collect()
}

fn warned_keys(more: &str) -> Vec<String> {
    let text = format!("{MINIMAL}{more}");
    let loaded = parse(&text, "test.toml").expect("this configuration is fine");
    loaded
        .warnings
        .into_iter()
        .map(|warning| warning.key)
        .collect()
}

#[test]
fn the_defaults_warn_of_nothing() {
    assert_eq!(warnings(MINIMAL), [""; 0]);
    assert_eq!(warnings(super::EXAMPLE), [""; 0]);
}

#[test]
fn times_that_contradict_each_other_warn() {
    let grace = warned_keys("[group.main.drain]\ngrace = \"9s\"");
    assert_eq!(grace, ["group.main.drain.grace"]);
    let deadline = warned_keys("[group.main.drain]\ndeadline = \"16s\"");
    assert_eq!(deadline, ["group.main.drain.deadline"]);
    let budget = warned_keys("[group.main.run]\nbudget = \"20s\"");
    assert_eq!(budget, ["group.main.run.budget"]);
}

#[test]
fn equal_times_are_no_contradiction_but_for_hold() {
    let equal = "[group.main.drain]\ngrace = \"15s\"\ndeadline = \"15s\"";
    assert_eq!(warned_keys(equal), [""; 0]);
}

#[test]
fn a_long_budget_is_fine_under_reject() {
    let long = "[group.main.fence]\nanswer = \"reject\"\n[group.main.run]\nbudget = \"5m\"";
    assert_eq!(warned_keys(long), [""; 0]);
}

#[test]
fn trust_beyond_this_machine_warns() {
    let text = MINIMAL.replace("127.0.0.1:6432", "0.0.0.0:6432");
    let [warning] = &warnings(&text)[..] else {
        panic!("one warning is expected")
    };
    assert!(warning.contains("group.main.listen[0].auth"), "{warning}");
}

/// Durations of a drill or a test rig: the harness that measures the daemon writes such a file.
fn rig(second_region: &str) -> String {
    format!(
        "[admin]\nsocket = \"/tmp/rig/admin.sock\"\nstate_dir = \"/tmp/rig/state\"\n\n\
         [group.main]\nprimary = \"a\"\n\
         [group.main.region.a]\npostgres = \"host=127.0.0.1 port=5501\"\n{second_region}\n\
         [[group.main.listen]]\nkind = \"postgres\"\naddress = \"127.0.0.1:6432\"\n\
         auth = \"trust\"\n\n\
         [group.main.observer]\nuser = \"bench\"\n\n\
         [group.main.fence]\nanswer = \"hold\"\nhold = \"20s\"\n\
         [group.main.drain]\ngrace = \"0s\"\ndeadline = \"8s\"\n\n"
    )
}

#[test]
fn a_rig_of_one_region_and_one_of_two_load() {
    let one = config(&rig(""));
    assert_eq!(one.groups[0].regions.len(), 1);
    let second = "[group.main.region.b]\npostgres = \"host=127.0.0.1 port=5502\"\n";
    let two = config(&rig(second));
    let group = two.group("main").expect("the group is there");
    assert_eq!(
        group
            .region("b")
            .and_then(|region| Some(region.postgres.as_ref()?.port)),
        Some(5502)
    );
    assert_eq!(group.observer.user, "bench");
    assert_eq!(group.fence.answer, Answer::Hold);
    assert_eq!(group.drain.grace, Duration::ZERO);
    let [Listener::Postgres(listener)] = &group.listeners[..] else {
        panic!("one listener")
    };
    assert_eq!(listener.auth, Auth::Trust);
}

#[test]
fn groups_and_regions_keep_the_order_of_the_file() {
    let text = MINIMAL.replace("main", "z").replace("region.a", "region.y")
        + "[group.z.region.b]\npostgres = \"host=127.0.0.1 port=2\"\n[group.z]\nprimary = \"b\"\n"
        + &MINIMAL.replace("main", "a").replace("6432", "6433");
    let config = config(&text);
    let names: Vec<_> = config
        .groups
        .iter()
        .map(|group| group.name.as_str())
        .collect();
    assert_eq!(names, ["z", "a"]);
    let regions: Vec<_> = config.groups[0]
        .regions
        .iter()
        .map(|one| one.name.as_str())
        .collect();
    assert_eq!(regions, ["y", "b"]);
}

#[test]
fn metrics_can_be_switched_off() {
    for off in ["off", ""] {
        let text = format!("[admin]\nlisten = \"{off}\"\n{MINIMAL}");
        assert_eq!(config(&text).admin.listen, None);
    }
}

/// A group whose regions have nothing but HTTP origins.
fn origins(more: &str) -> String {
    format!(
        "[group.api]\nprimary = \"a\"\n\
         [group.api.region.a]\nhttp = \"http://127.0.0.1:8101\"\n\
         [group.api.region.b]\nhttp = \"http://127.0.0.1:8102\"\n\
         [[group.api.listen]]\nkind = \"http\"\naddress = \"127.0.0.1:8080\"\n{more}"
    )
}

#[test]
fn a_group_may_have_http_origins_alone() {
    let config = config(&origins(""));
    let group = config.group("api").expect("the group is there");
    assert!(!group.has_database());
    assert_eq!(warnings(&origins("")), [""; 0]);
    assert!(super::config(&rig("")).groups[0].has_database());
}
