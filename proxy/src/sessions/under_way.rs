//! Logins upstream that are under way.
//!
//! A server tells the process id of a login at its end. Until then the barrier knows it by our own
//! end of the connection, which the server shows with it; where something between us and the server
//! changes that address, the login is ended with the foreign ones and tried again.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::{OwnBackend, Sessions};
use crate::upstream::Region;

/// All that are under way.
#[derive(Default)]
pub(super) struct UnderWay(Mutex<HashMap<SocketAddr, Region>>);

impl UnderWay {
    fn all(&self) -> MutexGuard<'_, HashMap<SocketAddr, Region>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A login of a session's, until the session has told its process id.
pub struct LoggingIn {
    sessions: Arc<Sessions>,
    region: Region,
    at: Mutex<Option<SocketAddr>>,
}

impl LoggingIn {
    /// Tells our end of its connection, before anything is sent on it.
    pub fn at(&self, address: SocketAddr) {
        let before = self.slot().replace(address);
        let mut all = self.sessions.under_way.all();
        if let Some(before) = before {
            all.remove(&before);
        }
        all.insert(address, self.region.clone());
    }

    fn slot(&self) -> MutexGuard<'_, Option<SocketAddr>> {
        self.at.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for LoggingIn {
    fn drop(&mut self) {
        if let Some(address) = self.slot().take() {
            self.sessions.under_way.all().remove(&address);
        }
    }
}

impl Sessions {
    /// A login in a region begins.
    pub fn logs_in(self: &Arc<Self>, region: &Region) -> LoggingIn {
        LoggingIn {
            sessions: Arc::clone(self),
            region: region.clone(),
            at: Mutex::default(),
        }
    }

    /// Our own logins in a region, those first that are under way: one that ends in between is told
    /// twice and not missed.
    pub fn own(&self, region: &Region) -> Vec<OwnBackend> {
        let under_way = self.under_way.all();
        let here = under_way.iter().filter(|(_, at)| *at == region);
        let mut all: Vec<_> = here
            .map(|(address, _)| OwnBackend {
                pid: 0,
                login: Some(*address),
                walled: false,
                reading: false,
                let_go: false,
            })
            .collect();
        drop(under_way);
        all.extend(self.backends(region));
        all
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_login_is_known_by_its_address_until_it_is_over() {
        let sessions = Arc::new(Sessions::default());
        let (a, b) = (Region::new("a"), Region::new("b"));
        let first: SocketAddr = "127.0.0.1:1000".parse().expect("an address");
        let second: SocketAddr = "127.0.0.1:1001".parse().expect("an address");
        let known = |region| {
            let own = sessions.own(region).into_iter();
            own.filter_map(|backend| backend.login).collect::<Vec<_>>()
        };
        let login = sessions.logs_in(&a);
        assert!(known(&a).is_empty(), "not connected yet");
        login.at(first);
        assert_eq!((known(&a), known(&b)), (vec![first], Vec::new()));
        // Another attempt.
        login.at(second);
        assert_eq!(known(&a), [second]);
        drop(login);
        assert!(known(&a).is_empty());
    }
}
