//! The one door to time.
//!
//! Decisions take `tokio::time::Instant` as an argument, so that tests can pause and drive it;
//! wall-clock time is only ever shown or recorded, never compared.

use std::time::SystemTime;

/// The monotonic instant that waits and deadlines are counted from.
#[must_use]
pub fn now() -> tokio::time::Instant {
    tokio::time::Instant::now()
}

/// The time of day as RFC 3339 in UTC with milliseconds, for documents and records.
#[must_use]
pub fn wall() -> String {
    humantime::format_rfc3339_millis(SystemTime::now()).to_string()
}

/// Whole milliseconds since `start`; saturates instead of wrapping.
#[must_use]
pub fn ms_since(start: tokio::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
