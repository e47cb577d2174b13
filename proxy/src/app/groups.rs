//! A group put together of its section of the configuration and of its state on disk.

use std::sync::{Arc, OnceLock};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::sync::Semaphore;
use writefence_config::{self as config, Config, Listener, Volatile};

use crate::control::{Boot, ObserverLogin, OriginsPlan};
use crate::driver::Means;
use crate::error::StartError;
use crate::fleet::{Incarnation, LocalStore, Predecessor, Start};
use crate::gate::{Gate, Limits};
use crate::group::{self, Group, Logins};
use crate::http;
use crate::material::{self, Ask, Parts};
use crate::pg::catalog::Catalogs;
use crate::pg::classify::{Effect, Policy};
use crate::pg::params::Params;
use crate::sessions::{Bounds, Sessions};
use crate::unknown::{UnknownLedger, UnknownWrite, now_rfc3339, outcome};
use crate::upstream::{Endpoint, Link, Region, Target, Targets};

/// How long a statement waits for a server that cannot be reached. Longer than a server's restart,
/// shorter than most clients' patience.
const REACH: Duration = Duration::from_secs(10);

/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

pub(super) struct Built {
    pub(super) group: Arc<Group>,
    pub(super) boot: Boot,
    pub(super) log: Arc<Incarnation>,
    pub(super) left: Predecessor,
}

pub(super) fn build(
    config: &Config,
    section: &config::Group,
    store: &Arc<LocalStore>,
    start: &Start,
    parts: &mut Parts,
) -> Result<Built, StartError> {
    let name = &section.name;
    let failed = |source| StartError::Group {
        group: name.clone(),
        source,
    };
    let boot = Boot::read(&**store, name, &section.primary).map_err(failed)?;
    let regions = section.regions.iter().map(|region| {
        let link = material::link(name, region, parts)?;
        Ok(target(region, link, config.tcp))
    });
    let regions = regions.collect::<Result<Vec<_>, StartError>>()?;
    boot.check_regions(&regions).map_err(failed)?;
    let (primary, identity) = boot.accepted();
    let targets = Targets::new(regions, primary, identity)
        .expect("the accepted region was looked for among these");
    let limits = Limits {
        held: config.limits.held,
        held_bytes: config.limits.held_bytes,
        release_burst: config.limits.release_burst,
    };
    let gate = Gate::new(limits, boot.epoch());
    let path = store.unknown_path(name);
    let unknown = UnknownLedger::open(&path).map_err(|source| StartError::Unknown {
        path: path.display().to_string(),
        source,
    })?;
    let inherited = unknown.inherit(&gate);
    if inherited > 0 {
        tracing::warn!(group = %name, inherited, "writes of unknown outcome block the next drain");
    }
    let (log, left) = store.incarnation(name, start)?;
    let log = Arc::new(log);
    if !start.clean && !section.has_database() {
        left_by_crash(&unknown, &gate, &boot);
    }
    let group = Arc::new(Group {
        name: name.clone(),
        gate,
        targets: Arc::new(targets),
        sessions: Arc::new(Sessions::default()),
        connections: Arc::default(),
        nearby: ArcSwapOption::empty(),
        rules: ArcSwap::default(),
        requests: Arc::default(),
        http: Arc::default(),
        tcp: Arc::default(),
        catalogs: catalogs(&section.observer, mark(store)),
        params: Params::default(),
        lives: Default::default(),
        unknown: Arc::new(unknown),
        settings: ArcSwap::from_pointee(front(config, section)),
        moves: Arc::new(Semaphore::new(config.limits.moves)),
        logins: Box::new(Backends(Arc::clone(&log))),
        commands: OnceLock::new(),
    });
    Ok(Built {
        group,
        boot,
        log,
        left,
    })
}

/// What a daemon that did not stop cleanly had in flight at servers that no database speaks for: nobody
/// can show that it has ended, so an operator has to look and acknowledge.
fn left_by_crash(unknown: &UnknownLedger, gate: &Arc<Gate>, boot: &Boot) {
    const DIGEST: &str = "what the daemon before this one may have had in flight when it ended";
    let known = unknown.open_ones();
    if known
        .iter()
        .any(|write| write.digest.as_deref() == Some(DIGEST))
    {
        return;
    }
    let (region, _) = boot.accepted();
    unknown.record(
        gate.inherit_unknown(),
        UnknownWrite {
            id: 0,
            at: now_rfc3339(),
            region: region.to_string(),
            // No backend: nothing that PostgreSQL shows can end it.
            pid: 0,
            user: String::new(),
            database: String::new(),
            client: String::new(),
            digest: Some(DIGEST.to_owned()),
            idempotency_key: None,
            request: None,
            xid: None,
            single: false,
            timeline: None,
            generation: None,
            outcome: outcome::UNKNOWN.to_owned(),
        },
    );
}

/// Tells the log of own backends what the sessions do.
struct Backends(Arc<Incarnation>);

impl Logins for Backends {
    fn opened(&self, region: &str, pid: i32) {
        self.0.opened(region, pid);
    }

    fn closed(&self, region: &str, pid: i32) {
        self.0.closed(region, pid);
    }
}

fn target(region: &config::Region, link: Link, tcp: config::Tcp) -> Target {
    // One that has no server at all is refused with the configuration.
    let (host, port) = servers_of(region).into_iter().next().unwrap_or_default();
    Target {
        region: Region::new(region.name.as_str()),
        endpoint: Endpoint::with_tcp(host, port, tcp).over(link),
        user: region.user.clone(),
        passwords: region.password.clone(),
        identity: None,
        serial: 0,
    }
}

/// What names this group, or none.
pub(super) fn for_group<T: Clone>(
    all: &[T],
    name: &str,
    group: impl Fn(&T) -> Option<&str>,
) -> Vec<T> {
    let mine = all
        .iter()
        .filter(|one| group(one).is_none_or(|group| group == name));
    mine.cloned().collect()
}

/// The checks of a group; a query that names no group is for those that have a database.
pub(super) fn checks(config: &Config, section: &config::Group) -> Vec<config::Check> {
    let mut all = for_group(&config.checks, &section.name, |check| {
        check.group.as_deref()
    });
    let is_query = |check: &config::Check| matches!(check.means, config::Means::Sql(_));
    all.retain(|check| section.has_database() || !is_query(check));
    all
}

/// What is behind a group that has no database.
pub(super) fn origins(section: &config::Group, group: &Group) -> OriginsPlan {
    let servers = section.regions.iter().map(|region| {
        let all = servers_of(region).into_iter();
        let all = all.map(|(host, port)| Endpoint::new(host, port));
        (Region::new(region.name.as_str()), all.collect())
    });
    OriginsPlan {
        group: group.name.clone(),
        servers: servers.collect(),
        program: match &section.driver.means {
            config::DriverMeans::Command(words) => Some(words.clone()),
            config::DriverMeans::Postgres | config::DriverMeans::Patroni(_) => None,
        },
        timeout: section.observer.timeout,
    }
}

/// Every server of a region: its PostgreSQL server first, else its HTTP origin, then the others.
fn servers_of(region: &config::Region) -> Vec<(String, u16)> {
    let of = |server: &config::Endpoint| (server.host.clone(), server.port);
    let postgres = region.postgres.iter().map(of);
    let http = region.http.as_deref().and_then(http::address);
    let tcp = region.tcp.iter().map(|(_, server)| of(server));
    postgres.chain(http).chain(tcp).collect()
}

/// What promotes each region's server.
pub(super) fn means(section: &config::Group) -> impl Fn(&Target) -> Means {
    let section = section.clone();
    move |target| match &section.driver.means {
        config::DriverMeans::Postgres => Means::Postgres,
        config::DriverMeans::Patroni(urls) => Means::Patroni {
            urls: urls.clone(),
            member: section
                .region(target.region.as_str())
                .and_then(|region| region.member.clone()),
        },
        config::DriverMeans::Command(words) => Means::Command {
            words: words.clone(),
            group: section.name.clone(),
        },
    }
}

/// Short enough to leave room in an application_name, long enough to tell two daemons apart.
pub(super) fn mark(store: &LocalStore) -> String {
    store.id().chars().take(8).collect()
}

pub(super) fn observer_login(
    observer: config::Observer,
    mark: String,
) -> impl Fn(&Target) -> ObserverLogin {
    move |target| {
        let (host, port) = (target.endpoint.host.as_str(), target.endpoint.port);
        let password = observer
            .password
            .lookup(host, port, &observer.database, &observer.user);
        ObserverLogin {
            user: observer.user.clone(),
            database: observer.database.clone(),
            password,
            timeout: observer.timeout,
            mark: mark.clone(),
        }
    }
}

/// How a listener's `auth_query` is asked.
pub(super) fn ask(observer: &config::Observer, mark: String) -> Ask {
    let login = observer_login(observer.clone(), mark);
    Box::new(move |target| login(target).login(false))
}

/// Read by the observer, in whatever database it has to be.
fn catalogs(observer: &config::Observer, mark: String) -> Catalogs {
    let home = observer.database.clone();
    let observer = observer.clone();
    let login = move |target: &Target, database: &str| {
        let observer = config::Observer {
            database: database.to_owned(),
            ..observer.clone()
        };
        observer_login(observer, mark.clone())(target).login(false)
    };
    Catalogs::new(&home, Box::new(login))
}

pub(super) fn front(config: &Config, section: &config::Group) -> group::Settings {
    let sqlstate = section
        .listeners
        .iter()
        .find_map(|listener| match listener {
            Listener::Postgres(listener) => Some(listener.sqlstate.code()),
            Listener::Http(_) | Listener::Tcp(_) => None,
        });
    let pass = section
        .sql
        .pass
        .iter()
        .filter_map(|effect| effect.word().parse::<Effect>().ok());
    group::Settings {
        login_timeout: config.limits.connect_timeout,
        startup_timeout: config.limits.login_timeout,
        reach_timeout: REACH,
        policy: Policy {
            pass: pass.collect(),
            strict: section.sql.volatile == Volatile::Refuse,
            temporaries: false,
        },
        track_xid: section.sql.track_xid,
        sqlstate: sqlstate.unwrap_or("25006"),
        sessions: Bounds {
            all: config.limits.sessions,
            per_user: config.limits.sessions_per_user,
            per_database: config.limits.sessions_per_database,
        },
        idle_timeout: config.limits.idle_timeout,
        idle_in_transaction_timeout: config.limits.idle_in_transaction_timeout,
        message: config.limits.message,
        tcp: config.tcp,
        console: config.console.clone(),
        retry_after: RETRY_AFTER,
    }
}
