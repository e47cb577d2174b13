//! Points in time as text: RFC 3339, UTC, milliseconds.
//!
//! Wall-clock time for people and for the audit. No decision is taken by it: durations that
//! decide anything are measured by the daemon with a monotonic clock and sent as `…_ms`.

use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

/// The last second that RFC 3339 can write with a four-digit year: 9999-12-31T23:59:59Z.
const LAST_SECOND: u64 = 253_402_300_799;

/// A point of wall-clock time, written as `2026-03-01T12:00:00.000Z`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Timestamp(SystemTime);

impl Timestamp {
    /// Cuts to whole milliseconds, so that what is written and read back is equal, and clamps a
    /// clock that is out of RFC 3339's range: a wrong clock must not take the status down.
    pub fn new(at: SystemTime) -> Self {
        let since = at.duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
        let seconds = since.as_secs().min(LAST_SECOND);
        let millis = u64::from(since.subsec_millis());
        Self(UNIX_EPOCH + Duration::from_secs(seconds) + Duration::from_millis(millis))
    }

    /// The wall clock's present.
    pub fn now() -> Self {
        Self::new(SystemTime::now())
    }

    /// The time from `earlier` to this one; zero if the clock was set back in between.
    pub fn since(self, earlier: Self) -> Duration {
        self.0.duration_since(earlier.0).unwrap_or(Duration::ZERO)
    }

    /// For callers that compute with the standard library's type.
    pub const fn as_system_time(self) -> SystemTime {
        self.0
    }
}

impl From<SystemTime> for Timestamp {
    fn from(at: SystemTime) -> Self {
        Self::new(at)
    }
}

impl fmt::Display for Timestamp {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&humantime::format_rfc3339_millis(self.0), f)
    }
}

impl Serialize for Timestamp {
    fn serialize<S: Serializer>(&self, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Timestamp {
    fn deserialize<D: Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        let text = String::deserialize(from)?;
        humantime::parse_rfc3339(&text).map(Self::new).map_err(|_| {
            de::Error::custom(format!(
                "{text:?} is not a time; RFC 3339 in UTC is accepted, as 2026-03-01T12:00:00.000Z"
            ))
        })
    }
}
