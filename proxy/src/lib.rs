//! writefence: a proxy that owns the write path to PostgreSQL.
//!
//! Reading order: `gate` (the promise), `upstream` (who is the target), `pg` and `http` (the fronts that ask
//! the gate), `control` (the only one that changes a phase), `app` (how the parts are put together).

pub mod app;
pub mod clock;
pub mod control;
pub mod driver;
pub mod error;
pub mod evidence;
pub mod failpoint;
pub mod fleet;
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing;
pub mod gate;
pub mod group;
pub mod http;
pub mod listeners;
pub mod material;
pub(crate) mod outside;
pub mod pg;
pub mod requests;
pub mod scram;
pub mod sessions;
pub mod shutdown;
pub mod tcp;
pub mod telemetry;
pub mod tls;
pub mod unknown;
pub mod upstream;
pub mod watched;
