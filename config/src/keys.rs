//! The table of every key that may stand in the file.
//!
//! It refuses what nobody knows and what this version does not have, it tells reload which keys
//! apply live, and tests hold it against the example file and the readers, so that a key cannot be
//! added in one place only. `*` stands for a name that the user chose, `[]` for the elements of an
//! array of sections. A key of a later version stands for everything below it too.

/// Whether a key has a default, or must wait for another version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Presence {
    /// Absent, the default holds.
    Default,
    /// No default: required, or without effect when absent.
    Given,
    /// Known, and refused with "not in this version".
    Later,
}

/// When a changed value takes effect.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Class {
    /// On reload.
    Live,
    /// When the daemon is started again.
    Restart,
    /// Only at a start that finds no state.
    FirstStart,
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Key {
    pub(crate) path: &'static str,
    pub(crate) presence: Presence,
    pub(crate) class: Class,
}

const fn key(path: &'static str, presence: Presence, class: Class) -> Key {
    Key {
        path,
        presence,
        class,
    }
}

const fn live(path: &'static str) -> Key {
    key(path, Presence::Default, Class::Live)
}

const fn restart(path: &'static str) -> Key {
    key(path, Presence::Default, Class::Restart)
}

const fn given(path: &'static str) -> Key {
    key(path, Presence::Given, Class::Restart)
}

const fn later(path: &'static str) -> Key {
    key(path, Presence::Later, Class::Restart)
}

/// All keys, in the order of the example file.
///
/// Live are those that are read anew for each fence, run, session or probe. A restart is needed
/// where a socket is bound, a server or a login is kept, or a bound is built into the gate.
pub(crate) const KEYS: &[Key] = &[
    restart("admin.socket"),
    restart("admin.listen"),
    restart("admin.state_dir"),
    later("admin.tcp"),
    restart("log.format"),
    restart("log.level"),
    live("limits.sessions"),
    live("limits.login_timeout"),
    live("limits.connect_timeout"),
    restart("limits.held"),
    restart("limits.held_bytes"),
    restart("limits.release_burst"),
    restart("limits.moves"),
    live("limits.sessions_per_user"),
    live("limits.sessions_per_database"),
    live("limits.idle_timeout"),
    live("limits.idle_in_transaction_timeout"),
    live("limits.message"),
    restart("tcp.keepalive_idle"),
    restart("tcp.keepalive_interval"),
    restart("tcp.keepalive_probes"),
    restart("tcp.unacknowledged"),
    key("console.admin_users", Presence::Given, Class::Live),
    key("console.stats_users", Presence::Given, Class::Live),
    key("group.*.primary", Presence::Given, Class::FirstStart),
    given("group.*.region.*.postgres"),
    given("group.*.region.*.http"),
    restart("group.*.region.*.http_version"),
    given("group.*.region.*.http_ca"),
    given("group.*.region.*.tcp.*"),
    given("group.*.region.*.user"),
    given("group.*.region.*.passfile"),
    given("group.*.region.*.password_env"),
    restart("group.*.region.*.password_methods"),
    given("group.*.region.*.tls.mode"),
    given("group.*.region.*.tls.ca"),
    given("group.*.region.*.tls.cert"),
    given("group.*.region.*.tls.key"),
    given("group.*.listen.[].kind"),
    given("group.*.listen.[].address"),
    given("group.*.listen.[].auth"),
    restart("group.*.listen.[].sqlstate"),
    given("group.*.listen.[].users_file"),
    given("group.*.listen.[].auth_query"),
    given("group.*.listen.[].cert_map"),
    given("group.*.listen.[].users"),
    given("group.*.listen.[].databases"),
    given("group.*.listen.[].tls.mode"),
    given("group.*.listen.[].tls.cert"),
    given("group.*.listen.[].tls.key"),
    given("group.*.listen.[].tls.client_ca"),
    restart("group.*.listen.[].cors"),
    restart("group.*.listen.[].trusted_proxies"),
    restart("group.*.listen.[].health"),
    restart("group.*.listen.[].connections"),
    restart("group.*.listen.[].streams"),
    restart("group.*.listen.[].header_bytes"),
    restart("group.*.listen.[].header_timeout"),
    restart("group.*.listen.[].body_timeout"),
    restart("group.*.listen.[].idle_timeout"),
    restart("group.*.listen.[].read_timeout"),
    restart("group.*.listen.[].write_deadline"),
    restart("group.*.listen.[].websocket"),
    restart("group.*.listen.[].sse"),
    given("group.*.listen.[].route.[].method"),
    given("group.*.listen.[].route.[].host"),
    given("group.*.listen.[].route.[].path"),
    given("group.*.listen.[].route.[].verdict"),
    given("group.*.listen.[].route.[].reads"),
    given("group.*.listen.[].route.[].body_bytes"),
    given("group.*.listen.[].route.[].answer"),
    given("group.*.listen.[].route.[].write_deadline"),
    given("group.*.listen.[].route.[].websocket"),
    given("group.*.listen.[].route.[].sse"),
    given("group.*.listen.[].service"),
    restart("group.*.listen.[].new"),
    restart("group.*.listen.[].old"),
    live("group.*.sql.track_xid"),
    live("group.*.sql.pass"),
    live("group.*.sql.functions.volatile"),
    restart("group.*.observer.user"),
    restart("group.*.observer.database"),
    given("group.*.observer.passfile"),
    given("group.*.observer.password_env"),
    live("group.*.observer.interval"),
    live("group.*.observer.timeout"),
    restart("group.*.driver.kind"),
    later("group.*.driver.url"),
    later("group.*.driver.command"),
    live("group.*.fence.answer"),
    live("group.*.fence.hold"),
    live("group.*.fence.begin"),
    live("group.*.fence.order"),
    live("group.*.fence.scope"),
    live("group.*.fence.http_deadline"),
    live("group.*.drain.grace"),
    live("group.*.drain.deadline"),
    live("group.*.run.budget"),
    live("group.*.reads.max_lag"),
    live("group.*.reads.away"),
    key("group.*.objectives.rto", Presence::Given, Class::Live),
    key("group.*.objectives.rpo", Presence::Given, Class::Live),
    later("hook"),
    later("check"),
    later("fleet"),
];

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Node {
    /// A key with a value.
    Leaf(Presence),
    /// A section with these entries.
    Section,
    /// A section whose entries have names of the user's choice, each a section.
    Named,
    /// An array of sections.
    Listed,
}

/// Looks up a path written as in the table.
pub(crate) fn node(path: &str) -> Option<Node> {
    if let Some(key) = KEYS.iter().find(|key| key.path == path) {
        return Some(Node::Leaf(key.presence));
    }
    match *entries(path).first()? {
        "*" => Some(Node::Named),
        "[]" => Some(Node::Listed),
        _ => Some(Node::Section),
    }
}

/// The entries of a section, each once, in the table's order; the root's path is empty.
pub(crate) fn entries(path: &str) -> Vec<&'static str> {
    let mut entries = Vec::new();
    for key in KEYS {
        let rest = match path {
            "" => Some(key.path),
            path => key
                .path
                .strip_prefix(path)
                .and_then(|rest| rest.strip_prefix('.')),
        };
        let entry = rest.and_then(|rest| rest.split('.').next());
        entries.extend(entry.filter(|entry| !entries.contains(entry)));
    }
    entries
}
