//! The health document: which component is well, and in a word why not.

use serde::Serialize;

use crate::control::Daemon;
use std::collections::BTreeMap;

/// How a component is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Level {
    Operational,
    Degraded,
    Failed,
}

/// One component.
#[derive(Debug, Serialize)]
pub(crate) struct Component {
    pub(crate) status: Level,
    pub(crate) detail: String,
}

/// `GET /healthz`.
#[derive(Debug, Serialize)]
pub(crate) struct Health {
    status: Level,
    components: BTreeMap<String, Component>,
}

/// The daemon's health as its components are now; the whole is as its worst component, except that
/// it is never failed as long as it answers.
pub(crate) fn health(daemon: &Daemon) -> Health {
    let components = daemon.components();
    let worst = components
        .values()
        .map(|c| c.status)
        .max()
        .unwrap_or(Level::Operational);
    Health {
        status: worst.min(Level::Degraded),
        components,
    }
}
