//! The daemon put together, in one visible order, and taken apart again.
//!
//! State first (lock, phases, journals), then the gates at their epochs, then control, then the
//! admin socket, so that an operator can look before any client is served; the fronts last. The end
//! goes the other way round.

mod groups;
mod reload;

use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use writefence_admin::audit::{Entry, Event, Log};
use writefence_config::{self as config, Listener, Loaded};

use crate::clock;
use crate::control::{Daemon, GroupParts, Settings, Trail, chain, serve_consoles};
use crate::error::StartError;
use crate::fleet::{Incarnation, LocalStore, Start, Store};
use crate::group::Group;
use crate::listeners::Listeners;
use crate::material::{Parts, mock_secret};
use crate::pg::catalog::keeper;
use crate::pg::idle;
use crate::shutdown::{Shutdown, Tasks, pair};
use crate::telemetry::{Ready, router, start_log};
use crate::watched::{self, Files};
use groups::{ask, build, checks, for_group, mark, means, observer_login, origins};
use reload::{listing, reloader};

/// How long sessions, runs and calls get to come to rest at the end.
const REST: Duration = Duration::from_secs(8);

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

    // Bound before anybody can be told that writes pass: the connections of those who are wait there.
    let mut fronts = Vec::new();
    for (section, (group, _)) in config.groups.iter().zip(&groups) {
        for front in &section.listeners {
            let door = front.postgres().and_then(|_| doors.next());
            fronts.push(listeners.bound(&config, section, front, group, door)?);
        }
    }

    // The same for those who look at the page, and for who sends a signal: without an ear for it the
    // daemon would end in place of a reload, or without a word.
    let page = match config.admin.listen {
        Some(address) => Some(bind(address).await?),
        None => None,
    };
    let signals = Signals::heard()?;

    let socket =
        writefence_admin::server::bind(&config.admin.socket).map_err(StartError::Socket)?;
    let (control, mut ended) = (Arc::clone(&daemon), stop.clone());
    tasks.spawn(async move {
        writefence_admin::server::serve(socket, control, async move { ended.stopping().await })
            .await;
    });
    let started = Arc::new(AtomicBool::new(false));
    if let Some(listener) = page {
        let ready = Ready {
            started: Arc::clone(&started),
            stop: stop.clone(),
        };
        watch_page(&tasks, listener, Arc::clone(&daemon), ready, stop.clone());
    }
    files.add(&parts);
    fronts.into_iter().for_each(|front| listeners.start(front));
    let mut ended = stop.clone();
    tasks.spawn(watched::watch(files, async move { ended.stopping().await }));
    started.store(true, Ordering::Relaxed);
    tracing::info!(version = env!("CARGO_PKG_VERSION"), incarnation = %start.incarnation, "started");

    until_told(&daemon, signals).await;
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

/// Signals that have a meaning here.
struct Signals {
    hangup: tokio::signal::unix::Signal,
    terminate: tokio::signal::unix::Signal,
    interrupt: tokio::signal::unix::Signal,
}

impl Signals {
    /// From here on none of them ends the process by itself.
    fn heard() -> Result<Self, StartError> {
        let on = |kind| {
            signal(kind).map_err(|source| StartError::System {
                what: "listen for signals",
                source,
            })
        };
        Ok(Self {
            hangup: on(SignalKind::hangup())?,
            terminate: on(SignalKind::terminate())?,
            interrupt: on(SignalKind::interrupt())?,
        })
    }
}

/// SIGHUP reloads, SIGTERM and SIGINT end the wait.
async fn until_told(daemon: &Daemon, mut signals: Signals) {
    loop {
        // Every arm may be dropped: a signal that is not received here stays pending.
        tokio::select! {
            _ = signals.hangup.recv() => match daemon.reload_now() {
                Ok(report) => tracing::info!(
                    applied = ?report.applied,
                    needs_restart = ?report.needs_restart,
                    "reloaded"
                ),
                Err(error) => tracing::error!(%error, "not reloaded"),
            },
            _ = signals.terminate.recv() => return,
            _ = signals.interrupt.recv() => return,
        }
    }
}

async fn bind(address: SocketAddr) -> Result<TcpListener, StartError> {
    let bound = TcpListener::bind(address).await;
    bound.map_err(|source| StartError::Listen { address, source })
}

fn watch_page(
    tasks: &Tasks,
    listener: TcpListener,
    daemon: Arc<Daemon>,
    ready: Ready,
    mut stop: Shutdown,
) {
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
