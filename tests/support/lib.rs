//! Support for tests, benches and the demo: everything that stands around the daemon.
//!
//! `postgres` makes throw-away clusters, `daemon` runs the real binaries, `network` puts a faulty
//! cable between them, `pki` issues certificates, `ledger` loads them with clients of every shape and proves afterwards
//! that nothing acknowledged is missing. `script` has conversations in the protocol. `eventually` is the only place that waits by sleeping.
//!
//! Whatever is started here ends when its value is dropped: processes by their pid, folders with
//! their content. Nothing here knows how the daemon works inside.

pub mod api;
pub mod daemon;
pub mod eventually;
pub mod frames;
pub mod http;
pub mod ledger;
pub mod network;
pub mod pki;
pub mod ports;
pub mod postgres;
pub mod process;
pub mod redis;
pub mod script;

pub use daemon::{Answer, Daemon, DaemonOptions, HttpOptions};
pub use eventually::eventually;
pub use ledger::{Ledger, Load, Report, Shape};
pub use network::Relay;
pub use postgres::Cluster;
