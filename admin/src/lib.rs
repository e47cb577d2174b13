//! The contract between the daemon and those who operate it.
//!
//! [`api`] holds the only types that cross the admin socket, [`Control`] is what the daemon
//! implements: one method per verb. [`server`] and [`client`] carry both over a Unix socket;
//! [`runbook`] holds the pure part of a run: its steps, its legal moves and its journal's format.
//!
//! Who may call: whoever may open the socket (mode 0600); the peer's credentials reach every
//! method as [`Actor`]. What "done" means: a verb that starts long work is answered as soon as the
//! work is journalled; the [`api::Run`] or [`api::Drain`] document says how far it is.
//! [`audit`] is what operators can check offline.
//! This package knows nothing of PostgreSQL or of the gate, and of files only in `audit`.

pub mod api;
pub mod audit;
pub mod client;
mod control;
pub mod report;
pub mod runbook;
pub mod server;

pub use control::{Actor, Answer, Call, Control, Expect, Wait};
