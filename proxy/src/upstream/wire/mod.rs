//! The one way to log in to PostgreSQL; sessions, the observer and replication commands use it.
//!
//! `login` ends exactly at ReadyForQuery and hands the bare socket over, so that the session loop
//! can own every byte after it. `Client` keeps the socket and runs simple queries for the
//! observer. Protocol 3.0 over TLS or not, as the endpoint says; trust, SCRAM-SHA-256 with channel
//! binding, md5 and clear text where they are allowed.
//! Whatever a server sends is bounded in size and in time.

mod auth;
mod cancel;
mod client;
mod error;
mod frame;
mod login;
mod proof;
pub(crate) mod rows;
mod socket;
#[cfg(test)]
mod tests;
mod through;

pub use cancel::cancel;
pub use client::{Answer, Client};
pub use error::{LoginError, ProtocolFault, QueryError, ServerError};
pub use login::{Connected, Login, Told, login, login_through, login_told};
pub use proof::Proof;
pub use rows::{Row, Rows};
pub(crate) use socket::set_times;
pub use writefence_config::Secret;
