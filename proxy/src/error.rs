//! What keeps the daemon from starting, each with its place and the way out.

use std::net::SocketAddr;

use writefence_admin::server::BindError;
use writefence_config::Problems;

use crate::control::BootError;
use crate::fleet::StoreError;

/// Why the daemon does not start or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The configuration has problems; all of them.
    #[error("the configuration cannot be used:\n{0}")]
    Config(Problems),
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    Store(#[from] StoreError),
    /// A group cannot be brought up.
    #[error("group {group} cannot be brought up")]
    Group {
        /// The group.
        group: String,
        /// The cause.
        #[source]
        source: BootError,
    },
    /// A file of certificates or users cannot be used.
    #[error("{key} cannot be used")]
    Material {
        /// Where the configuration names it.
        key: String,
        /// The cause.
        #[source]
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// The list of unknown outcomes cannot be read.
    #[error("{path} cannot be read; it names writes whose outcome is not known")]
    Unknown {
        /// The file.
        path: String,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// The audit cannot be kept.
    #[error("the audit cannot be kept")]
    Audit(#[source] writefence_admin::audit::LogError),
    /// The admin socket cannot be had.
    #[error("the admin socket cannot be had")]
    Socket(#[source] BindError),
    /// An address cannot be listened on.
    #[error(
        "cannot listen on {address}; another program may have it, or it is not of this machine"
    )]
    Listen {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
    /// An HTTP listener cannot be served.
    #[error("the HTTP listener {address} cannot be served")]
    Front {
        /// The address.
        address: SocketAddr,
        /// The cause.
        #[source]
        source: crate::http::FrontError,
    },
    /// The system refused something basic.
    #[error("cannot {what}")]
    System {
        /// What was tried.
        what: &'static str,
        /// The cause.
        #[source]
        source: std::io::Error,
    },
}

/// An error with its causes, in one line.
pub(crate) fn chain(error: &(dyn std::error::Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text = format!("{text}: {error}");
        cause = error.source();
    }
    text
}
