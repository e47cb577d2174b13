//! What the observer saw of the servers while all was well, for the moment in which it is not.
//!
//! A session that loses its server knows which backend had its write, but neither the transaction's
//! id nor whether that server has since gone through a crash. Both were seen by the last look, and
//! are worth something only under the conditions kept beside them.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// What the last looks at the servers showed, by region.
#[derive(Debug, Default)]
pub struct Sighted {
    regions: Mutex<HashMap<String, Region>>,
}

#[derive(Debug, Default)]
struct Region {
    generation: Option<i64>,
    xids: HashMap<i32, Xid>,
}

/// A transaction id that a backend of ours was seen to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Xid {
    /// The full id.
    pub xid: u64,
    /// Transactions of that session that had ended before the server was asked. If it has not ended
    /// another since, the id is that of the transaction it is in.
    pub ended_before: u64,
}

impl Sighted {
    /// Notes since when a server has been running without a crash.
    pub fn generation(&self, region: &str, since: Option<i64>) {
        self.regions()
            .entry(region.to_owned())
            .or_default()
            .generation = since;
    }

    /// Notes the ids that our backends had, in place of those of the look before.
    pub fn xids(&self, region: &str, xids: HashMap<i32, Xid>) {
        self.regions().entry(region.to_owned()).or_default().xids = xids;
    }

    /// Since when a server was last known to run without a crash.
    pub fn generation_of(&self, region: &str) -> Option<i64> {
        self.regions().get(region)?.generation
    }

    /// The id of the transaction that this backend's session is in, if it was seen.
    pub fn xid_of(&self, region: &str, pid: i32, ended: u64) -> Option<u64> {
        let regions = self.regions();
        let seen = regions.get(region)?.xids.get(&pid)?;
        (seen.ended_before == ended).then_some(seen.xid)
    }

    fn regions(&self) -> MutexGuard<'_, HashMap<String, Region>> {
        self.regions.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_id_seen_in_an_earlier_transaction_is_not_this_ones() {
        let seen = Sighted::default();
        let xid = Xid {
            xid: 700,
            ended_before: 4,
        };
        seen.xids("a", HashMap::from([(11, xid)]));
        assert_eq!(seen.xid_of("a", 11, 4), Some(700));
        assert_eq!(seen.xid_of("a", 11, 5), None, "that transaction has ended");
        assert_eq!(seen.xid_of("a", 12, 4), None);
        assert_eq!(seen.xid_of("b", 11, 4), None);
        seen.xids("a", HashMap::new());
        assert_eq!(seen.xid_of("a", 11, 4), None, "the last look counts");
    }
}
