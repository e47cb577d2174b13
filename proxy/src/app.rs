//! The daemon put together, in one visible order, and taken apart again.
//!
//! State first (lock, phases, journals), then the gates at their epochs, then control, then the
//! admin socket, so that an operator can look before any client comes; the fronts last. The end
//! goes the other way round.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;

use arc_swap::{ArcSwap, ArcSwapOption};
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::Semaphore;
use writefence_admin::api::{ApiError, Code, ReloadReport};
use writefence_admin::audit::{Entry, Event, Log};
use writefence_config::{self as config, Config, Listener, Loaded, Volatile, reload};

use crate::clock;
use crate::control::{
    Boot, Daemon, GroupParts, ObserverLogin, OriginsPlan, Settings, Trail, chain, serve_consoles,
};
use crate::driver::Means;
use crate::error::StartError;
use crate::fleet::{Incarnation, LocalStore, Predecessor, Start, Store};
use crate::gate::{Gate, Limits};
use crate::group::{self, ConfigLine, Group, Logins};
use crate::http;
use crate::listeners::{self, Bound, Listeners};
use crate::material::{self, Ask, Parts, mock_secret};
use crate::pg::catalog::{Catalogs, keeper};
use crate::pg::classify::{Effect, Policy};
use crate::pg::idle;
use crate::pg::params::Params;
use crate::sessions::{Bounds, Sessions};
use crate::shutdown::{Shutdown, Tasks, pair};
use crate::telemetry::{Ready, router, start_log};
use crate::unknown::{UnknownLedger, UnknownWrite, now_rfc3339, outcome};
use crate::upstream::{Endpoint, Link, Region, Target, Targets};
use crate::watched::{self, Files};

/// How long sessions, runs and calls get to come to rest at the end.
const REST: Duration = Duration::from_secs(8);

/// How long a statement waits for a server that cannot be reached. Longer than a server's restart,
/// shorter than most clients' patience.
const REACH: Duration = Duration::from_secs(10);

/// What a refused client is told to wait.
const RETRY_AFTER: Duration = Duration::from_secs(5);

/// Serves until SIGTERM or SIGINT.
///
/// # Errors
/// What keeps the daemon from starting.
pub async fn serve(path: PathBuf, loaded: Loaded) -> Result<(), StartError> {
    let config = loaded.config;
    start_log(&config.log);
    for warning in &loaded.warnings {
        tracing::warn!(%warning, "configuration");
    }
    raise_file_limit();
    let _too_large = survive_file_limit()?;
    let (stopper, stop) = pair();
    let tasks = Tasks::default();
    let names: Vec<String> = config
        .groups
        .iter()
        .map(|group| group.name.clone())
        .collect();
    let (store, start) = LocalStore::open(&config.admin.state_dir, &names)?;
    let store = Arc::new(store);
    let trail = trail(&store, &start, &tasks)?;

    let mock = mock_secret(&config.admin.state_dir).map_err(|source| StartError::System {
        what: "keep a secret in the state directory",
        source,
    })?;
    let files = Arc::new(Files::default());
    let own = mark(&store);
    let asks = move |observer: &config::Observer| ask(observer, own.clone());
    let listeners = Arc::new(Listeners::new(
        tasks.clone(),
        stop.clone(),
        Arc::clone(&files),
        mock,
        Box::new(asks),
    ));
    // Before anything is begun: a file that cannot be used keeps the daemon from starting.
    let mut parts = Parts::new();
    let mut doors = Vec::new();
    for section in &config.groups {
        for listener in section.listeners.iter().filter_map(Listener::postgres) {
            doors.push(listeners.load(section, listener)?);
        }
    }
    let mut doors = doors.into_iter();
    let mut groups = Vec::new();
    let mut desks = Vec::new();
    for section in &config.groups {
        let built = build(&config, section, &store, &start, &mut parts)?;
        let parts = GroupParts {
            group: Arc::clone(&built.group),
            store: Arc::clone(&store) as Arc<dyn Store>,
            scope: format!("{}/{}", store.id(), section.name),
            settings: Settings::from(section),
            hooks: for_group(&config.hooks, &section.name, |hook| hook.group.as_deref()),
            checks: checks(&config, section),
            log: Arc::clone(&built.log),
            left: built.left,
            trail: trail.clone(),
            tasks: tasks.clone(),
            stop: stop.clone(),
        };
        let login = observer_login(section.observer.clone(), mark(&store));
        tasks.spawn(keeper::keep(Arc::clone(&built.group), stop.clone()));
        tasks.spawn(idle::watch(Arc::clone(&built.group), stop.clone()));
        let opened = match section.has_database() {
            true => crate::control::open(parts, built.boot, login, means(section)).await,
            false => {
                let plan = origins(section, &built.group);
                crate::control::open_origins(parts, built.boot, plan).await
            }
        };
        let failed = |source| StartError::Group {
            group: section.name.clone(),
            source,
        };
        desks.push(opened.map_err(failed)?);
        groups.push((built.group, built.log));
    }
    let running = Arc::new(Mutex::new(config.clone()));
    let fronts: Vec<Arc<Group>> = groups.iter().map(|(group, _)| Arc::clone(group)).collect();
    let reloader = reloader(
        path,
        Arc::clone(&running),
        &desks,
        fronts,
        Arc::clone(&listeners),
    );
    let daemon = Arc::new(Daemon::new(
        desks,
        Arc::clone(&store) as Arc<dyn Store>,
        Box::new(reloader),
    ));
    serve_consoles(&daemon, Box::new(move || listing(&running)));

    let socket =
        writefence_admin::server::bind(&config.admin.socket).map_err(StartError::Socket)?;
    let (control, mut ended) = (Arc::clone(&daemon), stop.clone());
    tasks.spawn(async move {
        writefence_admin::server::serve(socket, control, async move { ended.stopping().await })
            .await;
    });
    let started = Arc::new(AtomicBool::new(false));
    if let Some(address) = config.admin.listen {
        let ready = Ready {
            started: Arc::clone(&started),
            stop: stop.clone(),
        };
        watch_page(&tasks, address, Arc::clone(&daemon), ready, stop.clone()).await?;
    }
    files.add(&parts);
    for (section, (group, _)) in config.groups.iter().zip(&groups) {
        for front in &section.listeners {
            let door = front.postgres().and_then(|_| doors.next());
            listeners.start(listeners.bound(&config, section, front, group, door)?);
        }
    }
    let mut ended = stop.clone();
    tasks.spawn(watched::watch(files, async move { ended.stopping().await }));
    started.store(true, Ordering::Relaxed);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), incarnation = %start.incarnation, "started");

    until_told(&daemon).await?;
    tracing::info!("stopping");
    stopper.stop();
    let left = tasks.ended(REST).await;
    finish(&store, &groups, left, &trail);
    let _ = std::fs::remove_file(&config.admin.socket);
    Ok(())
}

/// Marks the stop as clean if nothing of this life is left anywhere.
fn finish(
    store: &LocalStore,
    groups: &[(Arc<Group>, Arc<Incarnation>)],
    left: usize,
    trail: &Trail,
) {
    let settled = groups.iter().all(|(group, log)| {
        group.sessions.is_empty()
            && group.connections.is_empty()
            && group.gate.unknown() == 0
            && log.is_settled()
    });
    let word = match settled && left == 0 {
        true => "stopped",
        false => "stopped_with_work_left",
    };
    trail.append(Entry::new(Event::Daemon, word));
    // The last thing of this life that is synced; without it the next start signs.
    if let Some(Err(error)) = trail.log().map(Log::sync) {
        tracing::error!(error = %chain(&error), "the audit's end is not on disk");
    }
    if !settled || left > 0 {
        tracing::warn!(
            tasks = left,
            "stopped with work left: the next start looks for it"
        );
        return;
    }
    match store.stopped_clean() {
        Ok(()) => tracing::info!("stopped"),
        Err(error) => tracing::error!(error = %chain(&error), "the stop is not marked as clean"),
    }
}

/// Opens the audit and begins it with this life of the daemon.
fn trail(store: &LocalStore, start: &Start, tasks: &Tasks) -> Result<Trail, StartError> {
    let (dir, key) = store.audit_paths();
    let name = format!("writefence/{}", store.id());
    let log = Log::open(&dir, &key, &name, clock::boot_ms).map_err(StartError::Audit)?;
    let trail = Trail::new(log, tasks.clone());
    trail.append(
        Entry::new(Event::Daemon, "started")
            .fact("version", env!("CARGO_PKG_VERSION"))
            .fact("incarnation", &start.incarnation)
            .fact("pid", std::process::id())
            .fact("predecessor_stopped_clean", start.clean)
            .fact("machine_restarted", start.rebooted),
    );
    trail.sync_soon();
    Ok(trail)
}

/// SIGHUP reloads, SIGTERM and SIGINT end the wait.
async fn until_told(daemon: &Daemon) -> Result<(), StartError> {
    let on = |kind| {
        signal(kind).map_err(|source| StartError::System {
            what: "listen for signals",
            source,
        })
    };
    let mut hangup = on(SignalKind::hangup())?;
    let mut terminate = on(SignalKind::terminate())?;
    let mut interrupt = on(SignalKind::interrupt())?;
    loop {
        // Every arm may be dropped: a signal that is not received here stays pending.
        tokio::select! {
            _ = hangup.recv() => match daemon.reload_now() {
                Ok(report) => tracing::info!(
                    applied = ?report.applied,
                    needs_restart = ?report.needs_restart,
                    "reloaded"
                ),
                Err(error) => tracing::error!(%error, "not reloaded"),
            },
            _ = terminate.recv() => return Ok(()),
            _ = interrupt.recv() => return Ok(()),
        }
    }
}

struct Built {
    group: Arc<Group>,
    boot: Boot,
    log: Arc<Incarnation>,
    left: Predecessor,
}

fn build(
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
fn for_group<T: Clone>(all: &[T], name: &str, group: impl Fn(&T) -> Option<&str>) -> Vec<T> {
    let mine = all
        .iter()
        .filter(|one| group(one).is_none_or(|group| group == name));
    mine.cloned().collect()
}

/// The checks of a group; a query that names no group is for those that have a database.
fn checks(config: &Config, section: &config::Group) -> Vec<config::Check> {
    let mut all = for_group(&config.checks, &section.name, |check| {
        check.group.as_deref()
    });
    let is_query = |check: &config::Check| matches!(check.means, config::Means::Sql(_));
    all.retain(|check| section.has_database() || !is_query(check));
    all
}

/// What is behind a group that has no database.
fn origins(section: &config::Group, group: &Group) -> OriginsPlan {
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
fn means(section: &config::Group) -> impl Fn(&Target) -> Means {
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
fn mark(store: &LocalStore) -> String {
    store.id().chars().take(8).collect()
}

fn observer_login(observer: config::Observer, mark: String) -> impl Fn(&Target) -> ObserverLogin {
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
fn ask(observer: &config::Observer, mark: String) -> Ask {
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

fn front(config: &Config, section: &config::Group) -> group::Settings {
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

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

async fn watch_page(
    tasks: &Tasks,
    address: SocketAddr,
    daemon: Arc<Daemon>,
    ready: Ready,
    mut stop: Shutdown,
) -> Result<(), StartError> {
    let listener = bind(address).await?;
    let page = router(daemon, ready);
    tasks.spawn(async move {
        let stopping = async move { stop.stopping().await };
        // It is only looked at: a client that keeps its connection open must not hold up the end.
        tokio::select! {
            served = axum::serve(listener, page) => if let Err(error) = served {
                tracing::error!(%error, "metrics and health are gone");
            },
            () = stopping => {}
        }
    });
    Ok(())
}

/// Keys that control reads anew for each fence, run or probe, and the fronts for each session or
/// statement. Others that a file may change are built in at the start, and are said to need a
/// restart.
fn applies(key: &str) -> bool {
    let parts = [
        "fence.",
        "drain.",
        "run.",
        "reads.",
        "objectives.",
        "preflight.",
        "evidence.",
        "observer.interval",
        "sql.",
    ];
    if key.starts_with("limits.") || key.starts_with("console.") {
        return true;
    }
    let Some((_, rest)) = key
        .strip_prefix("group.")
        .and_then(|key| key.split_once('.'))
    else {
        return false;
    };
    parts.iter().any(|part| rest.starts_with(part))
}

fn reloader(
    path: PathBuf,
    running: Arc<Mutex<Config>>,
    desks: &[crate::control::Opened],
    fronts: Vec<Arc<Group>>,
    listeners: Arc<Listeners>,
) -> impl Fn() -> Result<ReloadReport, ApiError> + Send + Sync + use<> {
    let desks = desks.to_vec();
    move || {
        let new = load(&path)?;
        let mut running = running.lock().unwrap_or_else(PoisonError::into_inner);
        let mut report = ReloadReport {
            applied: Vec::new(),
            needs_restart: Vec::new(),
        };
        let moves = Moves::plan(&running, &new, &fronts, &listeners)?;
        for change in reload::diff(&running, &new) {
            if moves.covers(&change.key) {
                continue;
            }
            match change.class {
                reload::Class::Live if applies(&change.key) => report.applied.push(change.key),
                reload::Class::Live | reload::Class::Restart => {
                    report.needs_restart.push(change.key);
                }
                // Means nothing to a group that has its state.
                reload::Class::FirstStart => {}
            }
        }
        apply(&mut running, &new);
        report
            .applied
            .extend(moves.make(&mut running, &fronts, &listeners));
        for desk in &desks {
            if let Some(section) = running.group(desk.name()) {
                desk.set_settings(Settings::from(section));
            }
        }
        for group in &fronts {
            if let Some(section) = running.group(&group.name) {
                group.settings.store(Arc::new(front(&running, section)));
            }
        }
        Ok(report)
    }
}

/// Listeners that a reload brings and takes away.
struct Moves {
    /// Bound already; each with its group, as the configuration has it.
    come: Vec<(Bound, String, Listener)>,
    gone: Vec<(String, SocketAddr)>,
}

impl Moves {
    /// Binds what is new. An address that is listened on already, with other keys or for another
    /// group, is a change that takes a restart.
    fn plan(
        running: &Config,
        new: &Config,
        groups: &[Arc<Group>],
        listeners: &Listeners,
    ) -> Result<Self, ApiError> {
        let mut come = Vec::new();
        let mut gone = Vec::new();
        for group in groups {
            let (Some(was), Some(is)) = (running.group(&group.name), new.group(&group.name)) else {
                continue;
            };
            let stays = |address| {
                let all = new.groups.iter().flat_map(|group| &group.listeners);
                all.into_iter().any(|one| one.address() == address)
            };
            let own = was.listeners.iter().map(Listener::address);
            let own = own.filter(|address| !stays(*address));
            gone.extend(own.map(|address| (group.name.clone(), address)));
            for listener in is.listeners.iter().filter(|l| !listeners.has(l.address())) {
                let failed = |why: String| {
                    let address = listener.address();
                    let key = format!("group.{}.listen[{address}]", group.name);
                    ApiError::new(Code::BadConfig, format!("{key} cannot be added: {why}"))
                        .hint("nothing was applied, and every listener is as it was")
                };
                if let Some(why) = listeners::lacks(was, listener) {
                    return Err(failed(why));
                }
                let bound = listeners.bound(new, was, listener, group, None);
                let bound = bound.map_err(|error| failed(chain(&error)))?;
                come.push((bound, group.name.clone(), listener.clone()));
            }
        }
        Ok(Self { come, gone })
    }

    /// Whether a key is one of a listener that comes or goes.
    fn covers(&self, key: &str) -> bool {
        self.keys().any(|own| key.starts_with(&format!("{own}.")))
    }

    fn keys(&self) -> impl Iterator<Item = String> {
        let come = self
            .come
            .iter()
            .map(|(_, group, one)| (group, one.address()));
        let gone = self.gone.iter().map(|(group, address)| (group, *address));
        come.chain(gone)
            .map(|(group, address)| format!("group.{group}.listen[{address}]"))
    }

    /// Serves what has come, then lets go of what is gone. Says which.
    fn make(
        self,
        running: &mut Config,
        groups: &[Arc<Group>],
        listeners: &Listeners,
    ) -> Vec<String> {
        let keys = self.keys().collect();
        for (bound, name, listener) in self.come {
            listeners.start(bound);
            if let Some(section) = running.groups.iter_mut().find(|one| one.name == name) {
                section.listeners.push(listener);
            }
        }
        for (name, address) in self.gone {
            if let Some(group) = groups.iter().find(|group| group.name == name) {
                listeners.stop(group, address);
            }
            if let Some(section) = running.groups.iter_mut().find(|one| one.name == name) {
                section.listeners.retain(|one| one.address() != address);
            }
        }
        keys
    }
}

/// Takes over what applies live. What needs a restart stays on the list until there is one.
fn apply(running: &mut Config, new: &Config) {
    let built_in = running.limits.clone();
    running.limits = config::Limits {
        held: built_in.held,
        held_bytes: built_in.held_bytes,
        release_burst: built_in.release_burst,
        moves: built_in.moves,
        ..new.limits.clone()
    };
    running.console = new.console.clone();
    for (was, is) in running.groups.iter_mut().filter_map(|was| {
        let is = new.groups.iter().find(|is| is.name == was.name)?;
        Some((was, is))
    }) {
        (was.fence, was.drain, was.run) = (is.fence.clone(), is.drain.clone(), is.run.clone());
        (was.reads, was.objectives) = (is.reads.clone(), is.objectives.clone());
        (was.preflight, was.evidence) = (is.preflight.clone(), is.evidence.clone());
        was.sql = is.sql.clone();
        was.observer.interval = is.observer.interval;
    }
}

/// The configuration in force, for the console.
fn listing(running: &Mutex<Config>) -> Vec<ConfigLine> {
    let running = running.lock().unwrap_or_else(PoisonError::into_inner);
    let line = |line: reload::Line| ConfigLine {
        live: line.class == reload::Class::Live && applies(&line.key),
        key: line.key,
        value: line.value,
        default: line.default,
    };
    reload::listing(&running).into_iter().map(line).collect()
}

fn load(path: &Path) -> Result<Config, ApiError> {
    let loaded = config::load(path);
    loaded.map(|loaded| loaded.config).map_err(|problems| {
        ApiError::new(Code::BadConfig, problems.to_string())
            .hint("nothing was applied; `writefence check --config FILE` shows the same")
    })
}

/// A limit on the size of files (`ulimit -f`) is a full disk: the write fails and is told. Without
/// an ear for its signal it would end the process, and with it the fence.
fn survive_file_limit() -> Result<tokio::signal::unix::Signal, StartError> {
    let kind = SignalKind::from_raw(rustix::process::Signal::XFSZ.as_raw());
    signal(kind).map_err(|source| StartError::System {
        what: "listen for signals",
        source,
    })
}

/// Each session needs two descriptors, and each move a third.
fn raise_file_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    let limit = getrlimit(Resource::Nofile);
    let raised = Rlimit {
        current: limit.maximum,
        maximum: limit.maximum,
    };
    if setrlimit(Resource::Nofile, raised).is_err() {
        tracing::warn!(current = ?limit.current, "the limit of open files stays");
    }
}
