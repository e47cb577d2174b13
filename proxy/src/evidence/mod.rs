//! Proof that the old primary takes no more writes, and what became of those it had taken.
//!
//! `barrier` closes a reachable old primary to everybody but our own walled sessions; `fence_lsn`
//! finds the position that lies behind everything acknowledged; `lost` settles writes whose answer
//! never came; `predecessors` asks for sessions of an earlier incarnation of this daemon. All work
//! through the observer's connection, none retries, and none takes a NULL for an absence.

mod barrier;
mod clear;
mod error;
mod fence_lsn;
mod lock;
mod lost;
mod marker;
mod predecessors;
#[cfg(test)]
mod tests;

pub use barrier::{
    Closed, Lifted, Plan, clear_standby, ensure_writable_setting, lift, raise, stands,
};
pub use clear::{Foreign, ForeignWriters, OwnBackend, PATIENCE, WhyStill};
pub use error::{BarrierError, FenceLsnError, NotCaughtUp};
pub use fence_lsn::{Confirmed, FenceLsn, caught_up, fence_lsn};
pub use lost::{
    BackendFate, Life, NextXid, Suspect, WriteFate, backend_fates, running_xids, write_fates,
};
pub use marker::{BadToken, Claim, Held, Marker, MarkerState, Token};
pub use predecessors::{older_clients, still_alive};
