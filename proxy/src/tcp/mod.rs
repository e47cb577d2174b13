//! The TCP front: relays a protocol that it does not know, and fences it connection by connection.
//!
//! What goes over such a connection cannot be told apart, so the connection as a whole is the write:
//! it holds a permit of the sql lane from before it is opened upstream until the server has ended
//! it. So a drain is `drained` only once every connection has ended, and those that have not are
//! named (A7). Reading order: `listener` (who is let in), `admit` (the gate), `relay` (bytes both
//! ways, and the end), `outcome` (what is known of it then).
//!
//! A fence under `old = "close"` takes nothing more from the client, sends on what was taken and
//! shuts that direction; the server then answers what it has and closes. Under `old = "keep"` it
//! does nothing. It is no proxy for TLS, and looks at no byte.

mod admit;
mod figures;
mod listener;
mod outcome;
mod relay;
#[cfg(test)]
mod tests;

use std::sync::Arc;
use std::time::Duration;

use writefence_config::{NewConnections, OldConnections};

use crate::group::Group;
use crate::upstream::Endpoint;

pub use figures::{TcpFigures, Total};
pub use listener::serve;

/// One listener's settings, resolved.
#[derive(Clone)]
pub struct Front {
    /// What fails over as one.
    pub group: Arc<Group>,
    /// The name of what it leads to.
    pub service: String,
    /// Where that is, by region.
    pub servers: Vec<(String, Endpoint)>,
    /// What a new connection meets while fenced.
    pub new: NewConnections,
    /// What a fence does with open ones.
    pub old: OldConnections,
    /// Connections at a time.
    pub connections: usize,
    /// How long a connect upstream may take.
    pub connect_timeout: Duration,
}

impl Front {
    fn server(&self, region: &str) -> Option<&Endpoint> {
        let (_, server) = self.servers.iter().find(|(name, _)| name == region)?;
        Some(server)
    }
}
