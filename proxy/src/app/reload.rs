//! What a reload takes over while everything runs, and what it says needs a restart.

use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use writefence_admin::api::{ApiError, Code, ReloadReport};
use writefence_config::{self as config, Config, Listener, reload};

use super::groups::front;
use crate::control::{Settings, chain};
use crate::group::{ConfigLine, Group};
use crate::listeners::{self, Bound, Listeners};

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

pub(super) fn reloader(
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
pub(super) fn listing(running: &Mutex<Config>) -> Vec<ConfigLine> {
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
