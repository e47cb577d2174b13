//! A configuration written out again, key by key: what reload compares and a person reads.
//!
//! The list is complete, which a test holds against the table of keys. Passwords are in it so that
//! a changed one is noticed, and print as `(secret)` or as the path of their file.

use std::fmt::Display;
use std::path::PathBuf;

use crate::config::Config;
use crate::group::Group;
use crate::http::{HttpListener, Route};
use crate::keys::{Class, KEYS};
use crate::listen::Listener;
use crate::moment::{Check, Hook, Means};
use crate::passfile::Password;
use crate::pattern::Pattern;
use crate::pg::PgListener;
use crate::tcp::TcpListener;
use crate::tls::ServerTls;
use crate::units::{show_duration, show_size};
use crate::upstream::{Driver, DriverMeans, Observer, Region};
use crate::value::Word;

/// One key with its value.
#[derive(Debug)]
pub(crate) struct Entry {
    /// As in the table of keys.
    pub(crate) pattern: String,
    /// With the names of this file; listeners are named by their address.
    pub(crate) path: String,
    pub(crate) value: Value,
}

/// A value to compare and to show.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Value {
    Plain(String),
    Password(Password),
}

impl Entry {
    /// The value as the file would have it.
    pub(crate) fn shown(&self) -> String {
        match &self.value {
            Value::Plain(text) => text.clone(),
            Value::Password(Password::File(file)) => file.path().display().to_string(),
            Value::Password(Password::Value(_) | Password::None) => "(secret)".to_owned(),
        }
    }

    /// When a change of it takes effect.
    pub(crate) fn class(&self) -> Class {
        let key = KEYS.iter().find(|key| key.path == self.pattern);
        key.expect("every entry has its row in the table of keys")
            .class
    }
}

/// Entries below one path.
struct Part<'o> {
    out: &'o mut Vec<Entry>,
    pattern: String,
    path: String,
}

impl<'o> Part<'o> {
    fn new(out: &'o mut Vec<Entry>, name: &str) -> Self {
        Self {
            out,
            pattern: name.to_owned(),
            path: name.to_owned(),
        }
    }

    /// A listener's name is its address, which has dots of its own, so it stands in brackets.
    fn listed(&mut self, key: &str, name: &str) -> Part<'_> {
        let pattern = format!("{}.{key}.[]", self.pattern);
        let path = format!("{}.{key}[{name}]", self.path);
        Part {
            out: self.out,
            pattern,
            path,
        }
    }

    fn below(&mut self, pattern: &str, path: &str) -> Part<'_> {
        let pattern = format!("{}.{pattern}", self.pattern);
        let path = format!("{}.{path}", self.path);
        Part {
            out: self.out,
            pattern,
            path,
        }
    }

    fn section(&mut self, name: &str) -> Part<'_> {
        self.below(name, name)
    }

    fn put(&mut self, key: &str, value: impl Display) {
        self.put_value(key, Value::Plain(value.to_string()));
    }

    /// A key that the user named.
    fn put_named(&mut self, name: &str, value: impl Display) {
        self.out.push(Entry {
            pattern: format!("{}.*", self.pattern),
            path: format!("{}.{name}", self.path),
            value: Value::Plain(value.to_string()),
        });
    }

    fn put_some(&mut self, key: &str, value: Option<impl Display>) {
        if let Some(value) = value {
            self.put(key, value);
        }
    }

    fn put_password(&mut self, password: &Password) {
        let key = match password {
            Password::None => return,
            Password::Value(_) => "password_env",
            Password::File(_) => "passfile",
        };
        self.put_value(key, Value::Password(password.clone()));
    }

    fn put_value(&mut self, key: &str, value: Value) {
        let pattern = format!("{}.{key}", self.pattern);
        let path = format!("{}.{key}", self.path);
        self.out.push(Entry {
            pattern,
            path,
            value,
        });
    }
}

/// Every key of a configuration, in the order of the table of keys.
pub(crate) fn entries(config: &Config) -> Vec<Entry> {
    let mut out = Vec::new();
    process(config, &mut out);
    for group in &config.groups {
        let (pattern, path) = ("group.*".to_owned(), format!("group.{}", group.name));
        self::group(
            group,
            &mut Part {
                out: &mut out,
                pattern,
                path,
            },
        );
    }
    for hook in &config.hooks {
        self::hook(hook, &mut root(&mut out, "hook", &hook.name));
    }
    for check in &config.checks {
        self::check(check, &mut root(&mut out, "check", &check.name));
    }
    out
}

fn root<'o>(out: &'o mut Vec<Entry>, key: &str, name: &str) -> Part<'o> {
    Part {
        out,
        pattern: format!("{key}.[]"),
        path: format!("{key}[{name}]"),
    }
}

fn means(means: &Means, to: &mut Part<'_>) {
    match means {
        Means::Command(program) => to.put("command", program.join(" ")),
        Means::Http(url) => to.put("http", url),
        Means::Sql(sql) => to.put("sql", sql),
    }
}

fn hook(hook: &Hook, to: &mut Part<'_>) {
    to.put("name", &hook.name);
    to.put_some("group", hook.group.as_ref());
    to.put("at", hook.at.word());
    means(&hook.means, to);
    to.put("timeout", show_duration(hook.timeout));
    to.put("retries", hook.retries);
    to.put("on_failure", hook.on_failure.word());
}

fn check(check: &Check, to: &mut Part<'_>) {
    to.put("name", &check.name);
    to.put_some("group", check.group.as_ref());
    to.put("at", check.at.word());
    means(&check.means, to);
    to.put("of", check.of.word());
    to.put_some("most", check.most.map(show_duration));
    to.put("keeps", check.keeps);
    to.put_some("p99", check.p99.map(show_duration));
    to.put("times", check.times);
    to.put("every", show_duration(check.every));
    to.put("fails", check.fails);
    to.put("timeout", show_duration(check.timeout));
    to.put("on_failure", check.on_failure.word());
}

fn process(config: &Config, out: &mut Vec<Entry>) {
    let Config {
        admin,
        log,
        limits,
        tcp,
        console,
        groups: _,
        hooks: _,
        checks: _,
    } = config;
    let mut to = Part::new(out, "admin");
    to.put("socket", admin.socket.display());
    to.put(
        "listen",
        admin
            .listen
            .map_or("off".to_owned(), |listen| listen.to_string()),
    );
    to.put("state_dir", admin.state_dir.display());
    let mut to = Part::new(out, "log");
    to.put("format", log.format.word());
    to.put("level", log.level.word());
    let mut to = Part::new(out, "limits");
    to.put("sessions", limits.sessions);
    to.put("login_timeout", show_duration(limits.login_timeout));
    to.put("connect_timeout", show_duration(limits.connect_timeout));
    to.put("held", limits.held);
    to.put("held_bytes", show_size(limits.held_bytes));
    to.put("release_burst", limits.release_burst);
    to.put("moves", limits.moves);
    to.put("sessions_per_user", limits.sessions_per_user);
    to.put("sessions_per_database", limits.sessions_per_database);
    to.put("idle_timeout", show_duration(limits.idle_timeout));
    to.put(
        "idle_in_transaction_timeout",
        show_duration(limits.idle_in_transaction_timeout),
    );
    to.put("message", show_size(limits.message));
    let mut to = Part::new(out, "tcp");
    to.put("keepalive_idle", show_duration(tcp.keepalive_idle));
    to.put("keepalive_interval", show_duration(tcp.keepalive_interval));
    to.put("keepalive_probes", tcp.keepalive_probes);
    to.put("unacknowledged", show_duration(tcp.unacknowledged));
    let mut to = Part::new(out, "console");
    to.put("admin_users", console.admin_users.join(", "));
    to.put("stats_users", console.stats_users.join(", "));
}

fn group(group: &Group, to: &mut Part<'_>) {
    to.put("primary", &group.primary);
    for one in &group.regions {
        region(one, &mut to.section("region").below("*", &one.name));
    }
    for one in &group.listeners {
        listener(one, &mut to.listed("listen", &one.address().to_string()));
    }
    let mut sql = to.section("sql");
    sql.put("track_xid", group.sql.track_xid);
    sql.put(
        "pass",
        group
            .sql
            .pass
            .iter()
            .map(|effect| effect.word())
            .collect::<Vec<_>>()
            .join(", "),
    );
    sql.section("functions")
        .put("volatile", group.sql.volatile.word());
    observer(&group.observer, &mut to.section("observer"));
    driver(&group.driver, &mut to.section("driver"));
    let mut evidence = to.section("evidence");
    evidence.put_some(
        "stopped",
        group.evidence.stopped.as_ref().map(|p| p.join(" ")),
    );
    evidence.put_some(
        "stonith",
        group.evidence.stonith.as_ref().map(|p| p.join(" ")),
    );
    evidence.put("timeout", show_duration(group.evidence.timeout));
    times(group, to);
}

fn driver(driver: &Driver, to: &mut Part<'_>) {
    to.put("kind", driver.kind().word());
    match &driver.means {
        DriverMeans::Postgres => {}
        DriverMeans::Patroni(urls) => to.put("url", urls.join(", ")),
        DriverMeans::Command(program) => to.put("command", program.join(" ")),
    }
    to.put("timeout", show_duration(driver.timeout));
}

fn region(region: &Region, to: &mut Part<'_>) {
    to.put_some("postgres", region.postgres.as_ref());
    to.put_some("http", region.http.as_ref());
    to.put("http_version", region.http_version.word());
    to.put_some(
        "http_ca",
        region.http_ca.as_ref().map(|path| path.display()),
    );
    for (name, endpoint) in &region.tcp {
        to.section("tcp").put_named(name, endpoint);
    }
    to.put_some("user", region.user.as_ref());
    to.put_some("member", region.member.as_ref());
    to.put_password(&region.password);
    let methods = region.password_methods.iter().map(|method| method.word());
    to.put("password_methods", methods.collect::<Vec<_>>().join(", "));
    let mut tls = to.section("tls");
    tls.put("mode", region.tls.mode.word());
    tls.put_some("ca", region.tls.ca.as_ref().map(|path| path.display()));
    let identity = region.tls.identity.as_ref();
    tls.put_some("cert", identity.map(|(cert, _)| cert.display()));
    tls.put_some("key", identity.map(|(_, key)| key.display()));
}

fn listener(listener: &Listener, to: &mut Part<'_>) {
    to.put("kind", listener.kind().word());
    to.put("address", listener.address());
    match listener {
        Listener::Postgres(listener) => postgres(listener, to),
        Listener::Http(listener) => http(listener, to),
        Listener::Tcp(listener) => tcp(listener, to),
    }
}

fn postgres(listener: &PgListener, to: &mut Part<'_>) {
    to.put("auth", listener.auth.word());
    to.put("sqlstate", listener.sqlstate.word());
    let file = |path: &Option<PathBuf>| path.as_ref().map(|path| path.display().to_string());
    let names = |names: &Option<Vec<String>>| names.as_ref().map(|names| names.join(", "));
    to.put_some("users_file", file(&listener.users_file));
    to.put_some("auth_query", listener.auth_query.as_ref());
    to.put_some("cert_map", file(&listener.cert_map));
    to.put_some("users", names(&listener.users));
    to.put_some("databases", names(&listener.databases));
    if let Some(tls) = &listener.tls {
        server_tls(tls, &mut to.section("tls"));
    }
}

fn server_tls(tls: &ServerTls, to: &mut Part<'_>) {
    to.put("mode", tls.mode.word());
    to.put("cert", tls.cert.display());
    to.put("key", tls.key.display());
    to.put_some(
        "client_ca",
        tls.client_ca.as_ref().map(|path| path.display()),
    );
}

fn http(listener: &HttpListener, to: &mut Part<'_>) {
    if let Some(tls) = &listener.tls {
        let mut to = to.section("tls");
        to.put("cert", tls.cert.display());
        to.put("key", tls.key.display());
        to.put_some(
            "client_ca",
            tls.client_ca.as_ref().map(|path| path.display()),
        );
    }
    to.put("cors", listener.cors.word());
    to.put("trusted_proxies", joined(&listener.trusted_proxies));
    to.put("health", listener.health.as_deref().unwrap_or("off"));
    to.put("connections", listener.connections);
    to.put("streams", listener.streams);
    to.put("header_bytes", show_size(listener.header_bytes));
    to.put("header_timeout", show_duration(listener.header_timeout));
    to.put("body_timeout", show_duration(listener.body_timeout));
    to.put("idle_timeout", show_duration(listener.idle_timeout));
    to.put("read_timeout", show_duration(listener.read_timeout));
    to.put("write_deadline", show_duration(listener.write_deadline));
    to.put("websocket", listener.websocket.word());
    to.put("sse", listener.sse.word());
    for (n, one) in listener.routes.iter().enumerate() {
        route(one, &mut to.listed("route", &n.to_string()));
    }
}

fn route(route: &Route, to: &mut Part<'_>) {
    if !route.methods.is_empty() {
        to.put("method", joined(&route.methods));
    }
    to.put_some("host", route.host.as_ref().map(Pattern::text));
    to.put_some("path", route.path.as_ref().map(Pattern::text));
    to.put("verdict", route.verdict.word());
    if !route.reads.is_empty() {
        to.put("reads", joined(route.reads.iter().map(Pattern::text)));
    }
    to.put("body_bytes", show_size(route.body_bytes));
    to.put_some("answer", route.answer.map(Word::word));
    to.put_some("write_deadline", route.write_deadline.map(show_duration));
    to.put_some("websocket", route.websocket.map(Word::word));
    to.put_some("sse", route.sse.map(Word::word));
}

fn tcp(listener: &TcpListener, to: &mut Part<'_>) {
    to.put("service", &listener.service);
    to.put("new", listener.new.word());
    to.put("old", listener.old.word());
    to.put("connections", listener.connections);
}

fn joined(values: impl IntoIterator<Item = impl Display>) -> String {
    let values: Vec<_> = values.into_iter().map(|value| value.to_string()).collect();
    values.join(", ")
}

fn observer(observer: &Observer, to: &mut Part<'_>) {
    to.put("user", &observer.user);
    to.put("database", &observer.database);
    to.put_password(&observer.password);
    to.put("interval", show_duration(observer.interval));
    to.put("timeout", show_duration(observer.timeout));
}

fn times(group: &Group, to: &mut Part<'_>) {
    let mut fence = to.section("fence");
    fence.put("answer", group.fence.answer.word());
    fence.put("hold", show_duration(group.fence.hold));
    fence.put("begin", group.fence.begin.word());
    fence.put("order", group.fence.order.word());
    fence.put("scope", group.fence.scope.word());
    fence.put("http_deadline", show_duration(group.fence.http_deadline));
    let mut drain = to.section("drain");
    drain.put("grace", show_duration(group.drain.grace));
    drain.put("deadline", show_duration(group.drain.deadline));
    to.section("run")
        .put("budget", show_duration(group.run.budget));
    to.section("preflight")
        .put("interval", show_duration(group.preflight.interval));
    to.section("reads")
        .put("max_lag", show_duration(group.reads.max_lag));
    to.section("reads").put("away", group.reads.away.word());
    let mut objectives = to.section("objectives");
    objectives.put_some("rto", group.objectives.rto.map(show_duration));
    objectives.put_some("rpo", group.objectives.rpo.map(show_duration));
}
