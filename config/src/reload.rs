//! What a changed file can change in a running daemon.
//!
//! [`diff`] compares two configurations key by key. Each difference says whether it applies on
//! reload, needs a restart, or matters only to a first start; the class of a key stands beside it
//! in `keys`. A group or region that comes or goes needs a restart; of listeners the daemon itself takes
//! those that come or go. The phase of a gate is not in here at all: no file can open or fence anything.

use std::fmt;

use crate::config::Config;
use crate::entries::{Entry, entries};
use crate::keys::{KEYS, Presence};

pub use crate::keys::Class;

/// One key whose value differs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// The key path; listeners are named by their address.
    pub key: String,
    /// When it takes effect.
    pub class: Class,
    /// The value so far, as the file would have it; `None`: not there.
    pub from: Option<String>,
    /// The value from now on.
    pub to: Option<String>,
}

impl fmt::Display for Change {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |value: &Option<String>| value.clone().unwrap_or_else(|| "(none)".to_owned());
        write!(
            f,
            "{}: {} -> {}",
            self.key,
            shown(&self.from),
            shown(&self.to)
        )
    }
}

/// Every key that differs, in the order of the new file and then of what is gone from the old.
pub fn diff(old: &Config, new: &Config) -> Vec<Change> {
    let (old, new) = (entries(old), entries(new));
    let added_or_changed = new.iter().filter_map(|entry| {
        let before = old.iter().find(|known| known.path == entry.path);
        let same = before.is_some_and(|known| known.value == entry.value);
        (!same).then(|| change(entry, before.map(Entry::shown), Some(entry.shown())))
    });
    let gone = old
        .iter()
        .filter(|entry| !new.iter().any(|known| known.path == entry.path));
    let gone = gone.map(|entry| change(entry, Some(entry.shown()), None));
    added_or_changed.chain(gone).collect()
}

fn change(entry: &Entry, from: Option<String>, to: Option<String>) -> Change {
    Change {
        key: entry.path.clone(),
        class: entry.class(),
        from,
        to,
    }
}

/// One key with its value, for people.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Line {
    /// The key path.
    pub key: String,
    /// Its value; secrets are not shown.
    pub value: String,
    /// Its default, where it has one.
    pub default: Option<String>,
    /// When a change of it takes effect.
    pub class: Class,
}

/// The least file there is: everything in it that is not given is at its default.
const LEAST: &str = include_str!("../minimal.toml");

/// Every key of a configuration.
pub fn listing(config: &Config) -> Vec<Line> {
    let least = crate::parse(LEAST, "minimal.toml");
    let defaults = least.map_or_else(|_| Vec::new(), |least| entries(&least.config));
    let default = |entry: &Entry| {
        let has = KEYS.iter().find(|key| key.path == entry.pattern)?.presence == Presence::Default;
        let known = defaults.iter().find(|known| known.pattern == entry.pattern);
        known.filter(|_| has).map(Entry::shown)
    };
    let lines = entries(config).into_iter().map(|entry| Line {
        key: entry.path.clone(),
        value: entry.shown(),
        default: default(&entry),
        class: entry.class(),
    });
    lines.collect()
}
