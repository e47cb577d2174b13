//! The whole configuration, typed: what the rest of the daemon works with.

use crate::admin::Admin;
use crate::group::Group;
use crate::limits::{Console, Limits, Tcp};
use crate::telemetry::Log;

/// A configuration that has passed every rule. It can be made only by [`crate::load`] and
/// [`crate::parse`], so nobody who is handed one checks anything again.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct Config {
    /// Where the daemon is operated and where its state is kept.
    pub admin: Admin,
    /// What the log looks like.
    pub log: Log,
    /// The bounds of the process.
    pub limits: Limits,
    /// What the kernel does for connections.
    pub tcp: Tcp,
    /// Who may use PgBouncer's console.
    pub console: Console,
    /// At least one, in the order of the file.
    pub groups: Vec<Group>,
}

impl Config {
    /// The group of that name.
    pub fn group(&self, name: &str) -> Option<&Group> {
        self.groups.iter().find(|group| group.name == name)
    }
}
