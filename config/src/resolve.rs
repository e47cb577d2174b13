//! From the file's tree to a [`Config`], with the rules that relate one key to another.
//!
//! The sections read themselves; here stands only what no section can know alone. A rule looks at
//! what could be read and says nothing about the rest, whose problem is already reported.

use std::net::SocketAddr;

use crate::address;
use crate::admin::Admin;
use crate::config::Config;
use crate::error::ProblemKind;
use crate::gate::Answer;
use crate::group::Group;
use crate::limits::{Console, Limits, Tcp};
use crate::listen::ListenerKind;
use crate::moment::{Check, Hook};
use crate::pg::Auth;
use crate::raw::{Findings, Section};
use crate::telemetry::Log;
use crate::units::show_duration;
use crate::upstream::{Away, DriverKind};
use crate::value::{Word, Wrong};

/// Reads the whole tree. `None` if a part that has no default could not be read; whether the
/// result counts is decided by the findings alone.
pub(crate) fn resolve(root: &Section<'_>, found: &mut Findings<'_>) -> Option<Config> {
    let sections = root.named("group");
    if sections.is_empty() {
        missing(
            root,
            "group",
            "[group.NAME] with a region and a listener",
            found,
        );
    }
    let groups: Vec<_> = sections
        .iter()
        .map(|(name, one)| Group::read(name.clone(), one, found))
        .collect();
    for ((_, section), group) in sections.iter().zip(&groups) {
        check_regions(section, found);
        check_primary(section, found);
        check_passthrough(section, found);
        check_databases(section, found);
        check_servers(section, found);
        if let Some(group) = group {
            warn_of_times(group, section, found);
        }
    }
    check_queries(root, &sections, found);
    check_addresses(root, &sections, found);
    Some(Config {
        admin: Admin::read(&root.section("admin"), found),
        log: Log::read(&root.section("log"), found),
        limits: Limits::read(&root.section("limits"), found),
        tcp: Tcp::read(&root.section("tcp"), found),
        console: Console::read(&root.section("console"), found),
        groups: groups.into_iter().collect::<Option<_>>()?,
        hooks: listed(root, "hook", Hook::read, |hook| &hook.name, found)?,
        checks: listed(root, "check", Check::read, |check| &check.name, found)?,
    })
}

/// The sections of a root array, whose names are unique and whose groups exist.
fn listed<T>(
    root: &Section<'_>,
    key: &str,
    read: impl Fn(&Section<'_>, &mut Findings<'_>) -> Option<T>,
    name: impl Fn(&T) -> &String,
    found: &mut Findings<'_>,
) -> Option<Vec<T>> {
    let groups: Vec<String> = root
        .named("group")
        .into_iter()
        .map(|(name, _)| name)
        .collect();
    let mut all: Vec<T> = Vec::new();
    let sections = root.listed(key);
    let n = sections.len();
    for section in &sections {
        let group = section.peek("group", crate::value::text(""));
        if group.is_some_and(|group| !groups.contains(&group)) {
            let what = "is not a group of this file".to_owned();
            conflict(section, "group", what, &groups.join(", "), found);
        }
        let Some(one) = read(section, found) else {
            continue;
        };
        if all.iter().any(|known| name(known) == name(&one)) {
            let what = "is the name of another one too".to_owned();
            conflict(section, "name", what, "a name of its own for each", found);
        }
        all.push(one);
    }
    (all.len() == n).then_some(all)
}

fn missing(section: &Section<'_>, key: &str, accepted: &str, found: &mut Findings<'_>) {
    let wrong = Wrong::value("must be given", accepted);
    found.problem(
        section.start(),
        section.path(key),
        ProblemKind::Missing,
        wrong,
    );
}

fn conflict(
    section: &Section<'_>,
    key: &str,
    what: String,
    accepted: &str,
    found: &mut Findings<'_>,
) {
    let wrong = Wrong::value(what, accepted);
    found.problem(
        section.at(key),
        section.path(key),
        ProblemKind::Conflict,
        wrong,
    );
}

/// A group needs regions and listeners, and two regions on one server would be a switchover from
/// a server to itself.
fn check_regions(group: &Section<'_>, found: &mut Findings<'_>) {
    if !group.is_given("listen") {
        missing(group, "listen", "at least one [[group.NAME.listen]]", found);
    }
    let regions = group.named("region");
    if regions.is_empty() && !group.is_given("region") {
        missing(
            group,
            "region",
            "at least one [group.NAME.region.NAME]",
            found,
        );
    }
    let mut seen = Vec::new();
    for (name, region) in &regions {
        let Some(server) = region.peek("postgres", address::postgres) else {
            continue;
        };
        match seen.iter().find(|(_, known)| *known == server) {
            Some((other, _)) => {
                let what = format!("is the same server as that of region {other:?}");
                conflict(
                    region,
                    "postgres",
                    what,
                    "a server of its own for each region",
                    found,
                );
            }
            None => seen.push((name, server)),
        }
    }
}

/// Who settles the login with the server itself cannot be logged in as somebody else.
fn check_passthrough(group: &Section<'_>, found: &mut Findings<'_>) {
    let passes = |listener: &Section<'_>| {
        listener.peek("auth", <Auth as Word>::read) == Some(Auth::Passthrough)
    };
    if !group.listed("listen").iter().any(passes) {
        return;
    }
    for (_, region) in group.named("region") {
        if region.is_given("user") {
            let what = "cannot be beside a listener with auth = \"passthrough\"".to_owned();
            conflict(&region, "user", what, "each session's own user", found);
        }
    }
}

/// Either every region has a PostgreSQL server or none has: a group can be moved only as a whole. What
/// rests on one means nothing without it, and is refused rather than passed over.
fn check_databases(group: &Section<'_>, found: &mut Findings<'_>) {
    let listeners = group.listed("listen");
    let kind = |one: &Section<'_>| one.peek("kind", ListenerKind::read);
    let others = [Some(ListenerKind::Http), Some(ListenerKind::Tcp)];
    let only_others = !listeners.is_empty() && listeners.iter().all(|l| others.contains(&kind(l)));
    let regions = group.named("region");
    let is_any = regions.iter().any(|(_, one)| one.is_given("postgres"));
    if is_any || !only_others {
        let without = regions.iter().filter(|(_, one)| !one.is_given("postgres"));
        for (_, region) in without {
            missing(region, "postgres", "\"host=NAME port=5432\"", found);
        }
        return;
    }
    let needs = |section: &Section<'_>, key: &str, found: &mut Findings<'_>| {
        let what = "needs a PostgreSQL server, and no region of this group has one".to_owned();
        conflict(section, key, what, "`postgres` in each region", found);
    };
    let driver = group.section("driver");
    if driver.peek("kind", DriverKind::read) == Some(DriverKind::Patroni) {
        needs(&driver, "kind", found);
    }
    let reads = group.section("reads");
    if reads.peek("away", Away::read) == Some(Away::Other) {
        needs(&reads, "away", found);
    }
}

/// A query names the group that it is for, and that group has no database to ask. One that names none
/// is for those that have.
fn check_queries(root: &Section<'_>, groups: &[(String, Section<'_>)], found: &mut Findings<'_>) {
    for check in root.listed("check").iter().filter(|c| c.is_given("sql")) {
        let Some(named) = check.peek("group", crate::value::text("")) else {
            continue;
        };
        let Some((_, group)) = groups.iter().find(|(name, _)| *name == named) else {
            continue;
        };
        let regions = group.named("region");
        if !regions.iter().any(|(_, one)| one.is_given("postgres")) {
            let what = format!("asks a PostgreSQL server, and group {named} has none");
            conflict(check, "sql", what, "command or http", found);
        }
    }
}

/// A listener leads to a server in whichever region is the primary, so every region has one.
fn check_servers(group: &Section<'_>, found: &mut Findings<'_>) {
    let listeners = group.listed("listen");
    let kind = |one: &Section<'_>, kind| one.peek("kind", ListenerKind::read) == Some(kind);
    let http = listeners.iter().any(|one| kind(one, ListenerKind::Http));
    let tcp = listeners.iter().filter(|one| kind(one, ListenerKind::Tcp));
    let mut services: Vec<_> = tcp
        .filter_map(|one| one.peek("service", crate::value::text("")))
        .collect();
    services.sort();
    services.dedup();
    for (_, region) in group.named("region") {
        if http && !region.is_given("http") {
            missing(
                &region,
                "http",
                "a URL, since the group has an HTTP listener",
                found,
            );
        }
        let servers = region.section("tcp");
        for service in services.iter().filter(|name| !servers.is_given(name)) {
            missing(
                &servers,
                service,
                "a host and a port, for the group's TCP listener",
                found,
            );
        }
    }
}

/// With one region the primary is plain; with several it must be said, since guessing it on the
/// first start could open the gate to the wrong side.
fn check_primary(group: &Section<'_>, found: &mut Findings<'_>) {
    let regions = group.named("region");
    let names: Vec<_> = regions
        .iter()
        .map(|(name, _)| format!("{name:?}"))
        .collect();
    let names = names.join(", ");
    match group.peek("primary", crate::value::text("")) {
        Some(primary) if !regions.iter().any(|(name, _)| *name == primary) => {
            conflict(
                group,
                "primary",
                "is not one of the group's regions".to_owned(),
                &names,
                found,
            );
        }
        None if !group.is_given("primary") && regions.len() > 1 => {
            missing(group, "primary", &names, found);
        }
        _ => {}
    }
}

/// Two listeners on one address cannot both be bound, be they of one group, of two, or the
/// daemon's own.
fn check_addresses(root: &Section<'_>, groups: &[(String, Section<'_>)], found: &mut Findings<'_>) {
    let admin = root.section("admin");
    let admin_listen = match admin.is_given("listen") {
        true => admin.peek("listen", address::listen),
        false => Some(crate::defaults::ADMIN_LISTEN),
    };
    let mut seen: Vec<(String, SocketAddr)> = Vec::new();
    seen.extend(admin_listen.map(|address| (admin.path("listen"), address)));
    for listener in groups.iter().flat_map(|(_, group)| group.listed("listen")) {
        let Some(address) = listener.peek("address", address::listen) else {
            continue;
        };
        match seen.iter().find(|(_, known)| overlap(*known, address)) {
            Some((other, _)) => {
                let what = format!("is taken by {other}");
                conflict(
                    &listener,
                    "address",
                    what,
                    "an address of its own for each",
                    found,
                );
            }
            None => seen.push((listener.path("address"), address)),
        }
    }
}

/// Whether two addresses cannot be listened on at once. `[::]` takes IPv4 as well, unless the
/// system was told otherwise.
fn overlap(a: SocketAddr, b: SocketAddr) -> bool {
    let covers = |a: SocketAddr, b: SocketAddr| {
        a.ip().is_unspecified() && (a.is_ipv6() || a.is_ipv4() == b.is_ipv4())
    };
    a.port() == b.port() && (a.ip() == b.ip() || covers(a, b) || covers(b, a))
}

/// Times that contradict each other end a run badly, yet a longer move may want them so.
fn warn_of_times(group: &Group, section: &Section<'_>, found: &mut Findings<'_>) {
    let (drain, run, fence) = (&group.drain, &group.run, &group.fence);
    let mut warn = |section: &str, key: &str, root: &Section<'_>, what: String| {
        let section = root.section(section);
        found.warning(section.at(key), section.path(key), what);
    };
    let (grace, deadline) = (show_duration(drain.grace), show_duration(drain.deadline));
    let (budget, hold) = (show_duration(run.budget), show_duration(fence.hold));
    if drain.grace > drain.deadline {
        let what =
            format!("{grace} is after the drain's deadline of {deadline}, so it never comes");
        warn("drain", "grace", section, what);
    }
    if drain.deadline > run.budget {
        let what = format!(
            "{deadline} is more than the run's budget of {budget}, so a switchover rolls back first"
        );
        warn("drain", "deadline", section, what);
    }
    if fence.answer == Answer::Hold && run.budget >= fence.hold {
        let what = format!(
            "{budget} is not less than fence.hold of {hold}, so held writes are refused before a \
             switchover has rolled back; use answer = \"reject\" for longer moves"
        );
        warn("run", "budget", section, what);
    }
}
