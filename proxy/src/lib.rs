//! writefence: a proxy that owns the write path to PostgreSQL.
//!
//! Reading order: `gate` (the promise), `upstream` (who is the target), `pg` (the front that asks
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
pub(crate) mod outside;
pub mod pg;
pub mod sessions;
pub mod shutdown;
pub mod telemetry;
pub mod tls;
pub mod unknown;
pub mod upstream;
pub mod watched;
