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

/// Time since the machine's start, suspensions included, milliseconds: for records, since nobody can
/// set it back.
#[must_use]
pub fn boot_ms() -> u64 {
    let at = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let seconds = u64::try_from(at.tv_sec).unwrap_or(0);
    let millis = u64::try_from(at.tv_nsec / 1_000_000).unwrap_or(0);
    seconds.saturating_mul(1000).saturating_add(millis)
}

/// Whole milliseconds since `start`; saturates instead of wrapping.
#[must_use]
pub fn ms_since(start: tokio::time::Instant) -> u64 {
    u64::try_from(start.elapsed().as_millis()).unwrap_or(u64::MAX)
}
