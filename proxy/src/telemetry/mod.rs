//! What is seen of the daemon from outside: its log, its metrics, its health.
//!
//! Nothing here decides anything. Metrics are read from the counters where they are kept, at the
//! moment of the scrape, so that the busy path pays for none.

mod health;
mod log;
mod metrics;
mod serve;

pub(crate) use health::{Component, Level};
pub use log::start as start_log;
pub use serve::{Ready, router};
