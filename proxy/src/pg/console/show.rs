//! SHOW: PgBouncer 1.25's tables over our sessions.
//!
//! A pool is what one user has in one database; each session has a server connection of its own, as
//! in session pooling. What is not measured here is NULL, never 0.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, SystemTime};

use super::table::{Table, Value, v};
use super::verbs::{invalid, pretended};
use super::{Console, Done, VERSION, refusal};
use crate::gate::{Lane, Phase};
use crate::sessions::{Aside, AsideKind, SessionState, SessionView, Traffic};

const SOCKET: [&str; 21] = [
    "type",
    "user",
    "database",
    "replication",
    "state",
    "addr",
    "port",
    "local_addr",
    "local_port",
    "connect_time",
    "request_time",
    "wait",
    "wait_us",
    "close_needed",
    "ptr",
    "link",
    "remote_pid",
    "tls",
    "application_name",
    "prepared_statements",
    "id",
];

/// Totals, in the order of SHOW STATS since 1.24.
const TOTALS: [&str; 11] = [
    "server_assignment_count",
    "xact_count",
    "query_count",
    "received",
    "sent",
    "xact_time",
    "query_time",
    "wait_time",
    "client_parse_count",
    "server_parse_count",
    "bind_count",
];

/// Columns of SHOW STATS.
const STATS: [&str; 23] = [
    "database",
    "total_server_assignment_count",
    "total_xact_count",
    "total_query_count",
    "total_received",
    "total_sent",
    "total_xact_time",
    "total_query_time",
    "total_wait_time",
    "total_client_parse_count",
    "total_server_parse_count",
    "total_bind_count",
    "avg_server_assignment_count",
    "avg_xact_count",
    "avg_query_count",
    "avg_recv",
    "avg_sent",
    "avg_xact_time",
    "avg_query_time",
    "avg_wait_time",
    "avg_client_parse_count",
    "avg_server_parse_count",
    "avg_bind_count",
];

const HELP: &str = "\n\tSHOW HELP|CONFIG|DATABASES|POOLS|CLIENTS|SERVERS|USERS|VERSION\n\
    \tSHOW LISTS|STATE|DNS_HOSTS\n\
    \tSHOW STATS|STATS_TOTALS|STATS_AVERAGES|TOTALS\n\
    \tRELOAD\n\
    \tPAUSE [<db>]\n\
    \tRESUME [<db>]\n\
    \tRECONNECT [<db>]\n\
    \tKILL [<db>]\n\
    \tKILL_CLIENT <client_id>\n\
    \tWAIT_CLOSE [<db>]";

impl Console {
    pub(super) fn show(&mut self, text: &str, what: Option<&str>) -> Done {
        let what = what.unwrap_or_default();
        if let Some((name, value)) = pretended(what) {
            let mut table = Table::new("s", &[name]);
            table.row(vec![v(value)]);
            return self.answer(&table);
        }
        let table = match what.to_ascii_lowercase().as_str() {
            "help" => {
                self.notice("Console usage", Some(HELP.to_owned()));
                return self.done("SHOW");
            }
            "state" => self.state(),
            "pools" => self.pools(),
            "clients" => self.clients(),
            "servers" => self.servers(),
            "databases" => self.databases(),
            "users" => self.users(),
            "lists" => self.lists(),
            "stats" => self.stats(),
            "stats_totals" => self.per_database(false),
            "stats_averages" => self.per_database(true),
            "totals" => self.totals(),
            "config" => self.config(),
            "dns_hosts" => self.dns_hosts(),
            "version" => {
                let mut table = Table::new("s", &["version"]);
                let own = env!("CARGO_PKG_VERSION");
                table.row(vec![v(format!(
                    "writefence {own} (console of PgBouncer {VERSION})"
                ))]);
                table
            }
            // A single daemon: there are none, which is a true answer.
            "peers" => Table::new("isii", &["peer_id", "host", "port", "pool_size"]),
            "peer_pools" => Table::new(
                "iiiii",
                &[
                    "peer_id",
                    "cl_active_cancel_req",
                    "cl_waiting_cancel_req",
                    "sv_active_cancel",
                    "sv_login",
                ],
            ),
            "dns_zones" => Table::new("sqi", &["zonename", "serial", "count"]),
            "fds" | "mem" | "sockets" | "active_sockets" => {
                let message = format!("SHOW {} is not done here", what.to_ascii_uppercase());
                let hint = "It shows the inside of another program; SHOW CLIENTS and SHOW SERVERS are here.";
                return Err(refusal("0A000", message, Some(hint.to_owned())));
            }
            _ => return Err(invalid(text)),
        };
        self.answer(&table)
    }

    fn answer(&mut self, table: &Table) -> Done {
        table.put(self.client.queue());
        self.done("SHOW")
    }

    fn sessions(&self) -> Vec<SessionView> {
        self.group.sessions.snapshot()
    }

    fn replicas(&self) -> Vec<std::sync::Arc<Aside>> {
        let mut all = self.group.sessions.asides();
        all.retain(|aside| aside.kind() != AsideKind::Console);
        all
    }

    fn is_open(&self) -> bool {
        self.group.gate.look(Lane::Sql).phase == Phase::Open
    }

    fn state(&self) -> Table {
        let mut table = Table::new("ss", &["key", "value"]);
        let yes = |on| v(if on { "yes" } else { "no" });
        table.row(vec![v("active"), yes(self.is_open())]);
        table.row(vec![v("paused"), yes(!self.is_open())]);
        table.row(vec![v("suspended"), yes(false)]);
        table
    }

    fn pools(&self) -> Table {
        let mut table = Table::new(
            "ssiiiiiiiiiiiiiss",
            &[
                "database",
                "user",
                "cl_active",
                "cl_waiting",
                "cl_active_cancel_req",
                "cl_waiting_cancel_req",
                "sv_active",
                "sv_active_cancel",
                "sv_being_canceled",
                "sv_idle",
                "sv_used",
                "sv_tested",
                "sv_login",
                "maxwait",
                "maxwait_us",
                "pool_mode",
                "load_balance_hosts",
            ],
        );
        let mut pools: BTreeMap<(String, String), Pool> = BTreeMap::new();
        for view in self.sessions() {
            let pool = pools.entry((view.database.clone(), view.user.clone()));
            pool.or_default().add(&view);
        }
        for aside in self.replicas() {
            let who = aside.who();
            let pool = pools.entry((who.database.clone(), who.user.clone()));
            let pool = pool.or_default();
            pool.cl_active += 1;
            pool.sv_active += u32::from(aside.backend().is_some());
        }
        for ((database, user), pool) in pools {
            table.row(vec![
                v(database),
                v(user),
                v(pool.cl_active),
                v(pool.cl_waiting),
                v(0),
                v(0),
                v(pool.sv_active),
                v(0),
                v(0),
                v(pool.sv_idle),
                v(0),
                v(0),
                v(pool.sv_login),
                v(pool.longest.as_secs()),
                v(pool.longest.subsec_micros()),
                v("session"),
                None,
            ]);
        }
        let own = self.aside.who().database.clone();
        table.row(
            [v(&own), v(&own), v(1)]
                .into_iter()
                .chain((0..12).map(|_| v(0)))
                .chain([v("statement"), None])
                .collect(),
        );
        table
    }

    fn clients(&self) -> Table {
        let mut table = Table::new("ssssssisissiiississii", &SOCKET);
        for view in self.sessions() {
            let state = match view.state {
                SessionState::Held => "waiting",
                SessionState::Idle => "idle",
                SessionState::LoggingIn
                | SessionState::Executing
                | SessionState::InTransaction
                | SessionState::Chained
                | SessionState::Orphaned
                | SessionState::Moving => "active",
            };
            let waited = match view.state {
                SessionState::Held => view.since,
                _ => Duration::ZERO,
            };
            let link = view.backend.is_some().then(|| format!("s{}", view.id));
            table.row(vec![
                v("C"),
                v(&view.user),
                v(&view.database),
                v("none"),
                v(state),
                v(view.client.ip()),
                v(view.client.port()),
                None,
                None,
                v(time(view.started)),
                v(time(SystemTime::now() - view.since)),
                v(waited.as_secs()),
                v(waited.subsec_micros()),
                v(i32::from(view.close_needed)),
                v(format!("c{}", view.id)),
                v(link.unwrap_or_default()),
                v(0),
                v(""),
                v(&view.application_name),
                None,
                v(view.id),
            ]);
        }
        for aside in self.group.sessions.asides() {
            let who = aside.who();
            table.row(vec![
                v("C"),
                v(&who.user),
                v(&who.database),
                v(aside.kind().replication()),
                v("active"),
                v(who.client.ip()),
                v(who.client.port()),
                None,
                None,
                v(time(aside.started())),
                v(time(aside.started())),
                v(0),
                v(0),
                v(0),
                v(format!("c{}", aside.id())),
                v(aside
                    .backend()
                    .map_or(String::new(), |_| format!("s{}", aside.id()))),
                v(0),
                v(""),
                v(&who.application_name),
                None,
                v(aside.id()),
            ]);
        }
        table
    }

    fn servers(&self) -> Table {
        let mut table = Table::new("ssssssisissiiississii", &SOCKET);
        let sessions = self.sessions().into_iter().filter_map(|view| {
            let (region, pid) = view.backend.clone()?;
            let state = if view.permitted { "active" } else { "idle" };
            let tail = (view.id, view.application_name.clone(), view.close_needed);
            Some((
                view.user,
                view.database,
                "none",
                state,
                region,
                pid,
                view.started,
                tail,
            ))
        });
        let replicas = self.replicas();
        let replicas = replicas.iter().filter_map(|aside| {
            let (region, pid) = aside.backend()?;
            let who = aside.who().clone();
            let kind = aside.kind().replication();
            let tail = (aside.id(), who.application_name, false);
            Some((
                who.user,
                who.database,
                kind,
                "active",
                region,
                pid,
                aside.started(),
                tail,
            ))
        });
        for (user, database, kind, state, region, pid, started, (id, name, close)) in
            sessions.chain(replicas)
        {
            let target = self.group.targets.region(&region).ok();
            let address = target.as_ref().map(|target| {
                let first = target
                    .endpoint
                    .addresses()
                    .first()
                    .map(|a| a.ip().to_string());
                first.unwrap_or_else(|| target.endpoint.host.clone())
            });
            table.row(vec![
                v("S"),
                v(user),
                v(database),
                v(kind),
                v(state),
                address,
                target.map(|target| target.endpoint.port.to_string()),
                None,
                None,
                v(time(started)),
                None,
                v(0),
                v(0),
                v(i32::from(close)),
                v(format!("s{id}")),
                v(format!("c{id}")),
                v(pid),
                v(""),
                v(name),
                None,
                v(id),
            ]);
        }
        table
    }

    /// Databases that somebody uses or has used; the others are not known here.
    fn known(&self) -> BTreeSet<String> {
        let mut names: BTreeSet<String> = self.group.sessions.by_database().into_keys().collect();
        names.extend(self.replicas().iter().map(|a| a.who().database.clone()));
        names
    }

    fn databases(&self) -> Table {
        let mut table = Table::new(
            "ssissiiiissiiiiii",
            &[
                "name",
                "host",
                "port",
                "database",
                "force_user",
                "pool_size",
                "min_pool_size",
                "reserve_pool_size",
                "server_lifetime",
                "pool_mode",
                "load_balance_hosts",
                "max_connections",
                "current_connections",
                "max_client_connections",
                "current_client_connections",
                "paused",
                "disabled",
            ],
        );
        let target = self.group.targets.accepted();
        let bounds = self.group.settings.load().sessions;
        let sessions = self.sessions();
        for name in self.known() {
            let here = || sessions.iter().filter(|view| view.database == name);
            let servers = here().filter(|view| view.backend.is_some()).count();
            table.row(vec![
                v(&name),
                v(&target.endpoint.host),
                v(target.endpoint.port),
                v(&name),
                target.user.clone(),
                v(bounds.per_database),
                v(0),
                v(0),
                v(0),
                v("session"),
                None,
                v(bounds.per_database),
                v(servers),
                v(bounds.per_database),
                v(here().count()),
                v(i32::from(!self.is_open())),
                v(0),
            ]);
        }
        let own = &self.aside.who().database;
        let consoles = self.group.sessions.asides();
        let consoles = consoles.iter().filter(|a| a.kind() == AsideKind::Console);
        table.row(vec![
            v(own),
            None,
            v(target.endpoint.port),
            v(own),
            v(own),
            v(2),
            v(0),
            v(0),
            v(0),
            v("statement"),
            None,
            v(0),
            v(0),
            v(0),
            v(consoles.count()),
            v(0),
            v(0),
        ]);
        table
    }

    fn users(&self) -> Table {
        let mut table = Table::new(
            "ssssiiii",
            &[
                "name",
                "pool_size",
                "reserve_pool_size",
                "pool_mode",
                "max_user_connections",
                "current_connections",
                "max_user_client_connections",
                "current_client_connections",
            ],
        );
        let settings = self.group.settings.load_full();
        let sessions = self.sessions();
        let console = &settings.console;
        let named = console.admin_users.iter().chain(&console.stats_users);
        let mut names: BTreeSet<&str> = sessions.iter().map(|view| view.user.as_str()).collect();
        names.extend(named.map(String::as_str));
        for name in names {
            let here = || sessions.iter().filter(|view| view.user == name);
            table.row(vec![
                v(name),
                v(""),
                v(""),
                None,
                v(settings.sessions.per_user),
                v(here().filter(|view| view.backend.is_some()).count()),
                v(settings.sessions.per_user),
                v(here().count()),
            ]);
        }
        table
    }

    fn lists(&self) -> Table {
        let mut table = Table::new("si", &["list", "items"]);
        let sessions = self.sessions();
        let users: BTreeSet<_> = sessions.iter().map(|view| &view.user).collect();
        let pools: BTreeSet<_> = sessions.iter().map(|s| (&s.database, &s.user)).collect();
        let servers = sessions.iter().filter(|view| view.backend.is_some());
        let login = sessions
            .iter()
            .filter(|s| s.state == SessionState::LoggingIn);
        let regions = self.group.targets.regions();
        let resolved = regions
            .iter()
            .filter(|t| !t.endpoint.addresses().is_empty());
        let clients = sessions.len() + self.group.sessions.asides().len();
        for (list, items) in [
            ("databases", self.known().len() + 1),
            ("users", users.len()),
            ("peers", 0),
            ("pools", pools.len() + 1),
            ("peer_pools", 0),
            ("free_clients", 0),
            ("used_clients", clients),
            ("login_clients", login.count()),
            ("free_servers", 0),
            ("used_servers", servers.count()),
            ("dns_names", resolved.count()),
            ("dns_zones", 0),
            ("dns_queries", 0),
            ("dns_pending", 0),
        ] {
            table.row(vec![v(list), v(items)]);
        }
        table
    }

    fn stats(&self) -> Table {
        let mut table = Table::new(&format!("s{}", "n".repeat(22)), &STATS);
        let averages = self.group.sessions.averages();
        for (database, traffic) in self.group.sessions.by_database() {
            let average = averages.as_ref().map(|all| all.get(&database).copied());
            let mut row = vec![v(&database)];
            row.extend(values(Some(traffic)));
            row.extend(values(average.map(Option::unwrap_or_default)));
            table.row(row);
        }
        table
    }

    fn per_database(&self, averages: bool) -> Table {
        let names = TOTALS.map(|name| match name {
            "received" => "bytes_received",
            "sent" => "bytes_sent",
            other => other,
        });
        let names: Vec<_> = ["database"].into_iter().chain(names).collect();
        let mut table = Table::new(&format!("s{}", "n".repeat(11)), &names);
        let periods = self.group.sessions.averages();
        for (database, total) in self.group.sessions.by_database() {
            let shown = match averages {
                false => Some(total),
                true => periods
                    .as_ref()
                    .map(|all| all.get(&database).copied().unwrap_or_default()),
            };
            let mut row = vec![v(&database)];
            row.extend(values(shown));
            table.row(row);
        }
        table
    }

    fn totals(&self) -> Table {
        let mut table = Table::new("sn", &["name", "value"]);
        let sum = |all: &mut dyn Iterator<Item = Traffic>| {
            all.fold(Traffic::default(), |mut sum, one| {
                sum.add(one);
                sum
            })
        };
        let total = sum(&mut self.group.sessions.by_database().into_values());
        let periods = self.group.sessions.averages();
        let average = periods.map(|all| sum(&mut all.into_values()));
        for (prefix, traffic) in [("total", Some(total)), ("avg", average)] {
            for (name, value) in TOTALS.into_iter().zip(values(traffic)) {
                let name = if prefix == "avg" { short(name) } else { name };
                table.row(vec![v(format!("{prefix}_{name}")), value]);
            }
        }
        table
    }

    fn config(&self) -> Table {
        let mut table = Table::new("ssss", &["key", "value", "default", "changeable"]);
        let lines = self.group.commands.get().map(|control| control.config());
        for line in lines.unwrap_or_default() {
            table.row(vec![
                v(line.key),
                v(line.value),
                line.default,
                v(if line.live { "yes" } else { "no" }),
            ]);
        }
        table
    }

    fn dns_hosts(&self) -> Table {
        let mut table = Table::new("sqs", &["hostname", "ttl", "addrs"]);
        for target in self.group.targets.regions() {
            let addresses = target.endpoint.addresses();
            let shown: Vec<_> = addresses.iter().map(ToString::to_string).collect();
            // Kept for the epoch, not for a time.
            table.row(vec![v(&target.endpoint.host), None, v(shown.join(","))]);
        }
        table
    }
}

/// One user's sessions in one database.
#[derive(Default)]
struct Pool {
    cl_active: u32,
    cl_waiting: u32,
    sv_active: u32,
    sv_idle: u32,
    sv_login: u32,
    longest: Duration,
}

impl Pool {
    fn add(&mut self, view: &SessionView) {
        if view.state == SessionState::Held {
            self.cl_waiting += 1;
            self.longest = self.longest.max(view.since);
        } else {
            self.cl_active += 1;
        }
        let logging_in = matches!(view.state, SessionState::LoggingIn | SessionState::Moving);
        match view.backend {
            None if logging_in => self.sv_login += 1,
            None => {}
            Some(_) if view.permitted => self.sv_active += 1,
            Some(_) => self.sv_idle += 1,
        }
    }
}

/// Counts in the order of [`TOTALS`]; times and the tracking of prepared statements are not measured.
fn values(traffic: Option<Traffic>) -> impl Iterator<Item = Value> {
    let known = |pick: fn(Traffic) -> u64| traffic.map(|t| pick(t).to_string());
    [
        None,
        known(|t| t.transactions),
        known(|t| t.queries),
        known(|t| t.received),
        known(|t| t.sent),
        None,
        None,
        None,
        None,
        None,
        None,
    ]
    .into_iter()
}

/// Averages have short names for bytes.
fn short(name: &'static str) -> &'static str {
    match name {
        "received" => "recv",
        other => other,
    }
}

/// As PgBouncer writes a time.
fn time(at: SystemTime) -> String {
    let text = humantime::format_rfc3339_seconds(at).to_string();
    format!("{} UTC", text.trim_end_matches('Z').replace('T', " "))
}
