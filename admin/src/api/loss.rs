//! What an unplanned move loses: stated before it, measured after it.

use serde::{Deserialize, Serialize};

use super::Timestamp;

/// What is known to be lost before the candidate is promoted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Loss {
    /// The least: log of the old primary that was seen and that the candidate has not received,
    /// bytes. 0 only where it is shown that nothing can be lost; null where nothing was missing at
    /// the last look, since more may have been written behind it, and where nobody can tell.
    pub at_least_bytes: Option<u64>,
    /// What is missing of that was committed within this time before the last look, milliseconds;
    /// null where nothing is known to be missing, or its time is not.
    pub window_ms: Option<u64>,
    /// When the old primary was last seen; what it wrote since is known to nobody here.
    pub last_seen: Option<Timestamp>,
    /// The same for a tired person.
    pub sentence: String,
}

/// The part of the old primary's log that the new one does not have.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct DivergedLog {
    /// The old primary's region.
    pub region: String,
    /// Its timeline.
    pub timeline: u32,
    /// Where the new timeline left it, by the new primary's own history: the fork LSN.
    pub from_lsn: String,
    /// Its end.
    pub to_lsn: String,
    /// Between the two, bytes. What a server writes when it starts again is a part of it.
    pub bytes: u64,
    /// Whether the end was read when the old primary was there again. Otherwise it is where that was
    /// last seen before, and the least.
    pub seen_again: bool,
}

impl DivergedLog {
    /// For a tired person.
    pub fn sentence(&self) -> String {
        let Self {
            region,
            timeline,
            from_lsn,
            to_lsn,
            bytes,
            seen_again,
        } = self;
        let how = match seen_again {
            true => "as it shows now that it is there again",
            false => "as far as it was seen, so this is the least",
        };
        format!(
            "the log of {region} from {from_lsn} to {to_lsn} of timeline {timeline} ({bytes} bytes) is \
             on no other server, {how}"
        )
    }
}
