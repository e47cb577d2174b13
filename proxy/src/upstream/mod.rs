//! Who is the target now, and what a server says about itself.
//!
//! Reading order: `target` (names), `timeline` (positions in PostgreSQL's log), `wire` (the one way
//! to log in), `probe` (what a server answers about its role), `repoint` (what must be true of a
//! new target), `targets` (which one is in force). The data path reads the accepted target through
//! one atomic load and takes no lock. Nothing here decides when to switch: `control` does, and must
//! bring proof that no write is in flight.

mod error;
mod history;
mod link;
mod privilege;
mod probe;
mod repoint;
mod survey;
mod target;
mod targets;
#[cfg(test)]
mod tests;
mod timeline;
pub mod wire;

pub use error::{BadLsn, BadTimeline, Mismatch, RepointError, UnknownRegion};
pub use history::History;
pub use link::{Link, Methods, Security};
pub use privilege::{Need, missing_grants};
pub use probe::{Observation, Prepared, ReadOnlyDefault, Replica, Role, ServerTime, glance, probe};
pub(crate) use probe::{PREPARED, prepared as read_prepared};
pub use repoint::{CheckedTarget, Loss, NothingInFlight, Wanted};
pub use survey::{ServerSession, Slot, Survey, survey};
pub use target::{Endpoint, Identity, Region, Target};
pub use targets::Targets;
pub use timeline::{Lsn, Timeline};
