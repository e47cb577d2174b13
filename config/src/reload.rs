//! What a changed file can change in a running daemon.
//!
//! [`diff`] compares two configurations key by key. Each difference says whether it applies on
//! reload, needs a restart, or matters only to a first start; the class of a key stands beside it
//! in `keys`. A group, region or listener that comes or goes needs a restart. The phase of a gate
//! is not in here at all: no file can open or fence anything.

use std::fmt;

use crate::config::Config;
use crate::entries::{Entry, entries};

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
