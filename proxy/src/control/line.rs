//! The observer's connections to one region: our own, never the sessions'.
//!
//! Three, since each would wait behind the others at the wrong moment: one for probes, one for the
//! work of a run, one with the replication protocol for timeline histories. They are opened ahead
//! and kept; a broken one is replaced at its next use. The server may end them at any time, so a
//! connection that turns out dead before anything was sent on it is opened once more.

use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::sync::{Mutex, MutexGuard, Notify};
use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code};
use writefence_config::Secret;

use super::error::chain;
use super::servers::Seen;
use crate::clock;
use crate::driver::{Driven, Driver as _, DriverError, Means, Pinned, Promotion};
use crate::upstream::wire::{Client, Login, LoginError};
use crate::upstream::{Endpoint, Region};

/// What the observer's connections call themselves, before the mark of their daemon.
pub(crate) const OBSERVER: &str = "writefence observer";

/// How the observer logs in.
#[derive(Clone, Debug)]
pub struct ObserverLogin {
    /// Role.
    pub user: String,
    /// Database.
    pub database: String,
    /// Password, where one is needed.
    pub password: Option<Secret<String>>,
    /// For a login and for each answer.
    pub timeout: Duration,
    /// Sets this daemon's connections apart from another writefence's.
    pub mark: String,
}

impl ObserverLogin {
    /// What the connections call themselves.
    pub(crate) fn name(&self) -> String {
        format!("{OBSERVER} {}", self.mark)
    }

    /// The login, for queries or for the replication protocol.
    pub fn login(&self, replication: bool) -> Login {
        let mut params = vec![
            ("user".to_owned(), self.user.clone()),
            ("database".to_owned(), self.database.clone()),
            ("application_name".to_owned(), self.name()),
        ];
        if replication {
            params.push(("replication".to_owned(), "true".to_owned()));
        }
        Login {
            params,
            minor: 0,
            proof: self.password.clone().into(),
            timeout: self.timeout,
        }
    }
}

/// A connection answered within this time is taken to be alive without a question, which would cost
/// a round trip within the write gap.
const FRESH: Duration = Duration::from_millis(300);

/// One connection that is kept.
#[derive(Debug, Default)]
pub(crate) struct Slot {
    client: Mutex<Option<Kept>>,
    pid: AtomicI32,
}

#[derive(Debug)]
struct Kept {
    client: Client,
    used: Instant,
}

/// A region's connections.
#[derive(Debug)]
pub(crate) struct Line {
    pub(crate) region: Region,
    pub(crate) endpoint: Endpoint,
    /// The same name asked for anew, while nobody answers where it led: the observer alone looks
    /// there, and sessions only follow once the same server has answered.
    doubted: ArcSwapOption<Endpoint>,
    how: ObserverLogin,
    pub(crate) probe: Slot,
    pub(crate) work: Slot,
    pub(crate) history: Slot,
    /// The candidate's driver, logged in ahead of a promotion.
    driver: Mutex<Option<Arc<Driven>>>,
    means: Means,
    pub(crate) seen: ArcSwapOption<Seen>,
    /// When the probe that is not answered yet was asked.
    pub(crate) asked: ArcSwapOption<Instant>,
    /// Rung when the next probe is not to wait for its time.
    pub(crate) look_now: Notify,
}

/// A connection in use.
pub(crate) struct Held<'a> {
    slot: MutexGuard<'a, Option<Kept>>,
}

impl Drop for Held<'_> {
    fn drop(&mut self) {
        if let Some(kept) = self.slot.as_mut() {
            kept.used = clock::now();
        }
    }
}

impl Held<'_> {
    /// Ends the connection instead of keeping it.
    pub(crate) fn close(&mut self) {
        *self.slot = None;
    }

    /// Used a moment ago, and the server has not ended it since.
    fn is_fresh(&mut self) -> bool {
        self.slot
            .as_mut()
            .is_some_and(|kept| kept.used.elapsed() < FRESH && kept.client.is_quiet())
    }

    /// The client; there is one as long as this lives.
    pub(crate) fn client(&mut self) -> &mut Client {
        &mut self.slot.as_mut().expect("a held slot has a client").client
    }
}

impl Line {
    pub(crate) fn new(
        region: Region,
        endpoint: Endpoint,
        how: ObserverLogin,
        means: Means,
    ) -> Self {
        Self {
            region,
            endpoint,
            doubted: ArcSwapOption::empty(),
            how,
            probe: Slot::default(),
            work: Slot::default(),
            history: Slot::default(),
            driver: Mutex::default(),
            means,
            seen: ArcSwapOption::empty(),
            asked: ArcSwapOption::empty(),
            look_now: Notify::new(),
        }
    }

    /// The connection of a slot, opened if there is none that works.
    pub(crate) async fn hold<'a>(&'a self, slot: &'a Slot) -> Result<Held<'a>, LoginError> {
        let mut held = slot.client.lock().await;
        let usable = held.as_ref().is_some_and(|kept| kept.client.is_usable());
        if !usable {
            *held = None;
            let replication = std::ptr::eq(slot, &self.history);
            let endpoint = self.doubted.load_full();
            let endpoint = endpoint.as_deref().unwrap_or(&self.endpoint);
            let client = Client::connect(endpoint, &self.how.login(replication)).await?;
            slot.pid.store(client.pid(), Ordering::Relaxed);
            *held = Some(Kept {
                client,
                used: clock::now(),
            });
        }
        Ok(Held { slot: held })
    }

    /// What the last probe showed; of a server that leaves the next one without an answer for all
    /// the time that an answer has, that it does so. The probe itself tries twice.
    pub(crate) fn shown(&self) -> Option<Arc<Seen>> {
        let seen = self.seen.load_full()?;
        let waits = self.asked.load().as_ref().map(|asked| asked.elapsed());
        Some(match waits.filter(|waits| *waits >= self.how.timeout) {
            Some(waits) => seen.overdue(waits),
            None => seen,
        })
    }

    /// Nobody answers where the name led.
    pub(crate) fn doubt(&self) {
        self.doubted.store(Some(Arc::new(self.endpoint.anew())));
    }

    /// The server that answered is the one that was known, wherever the name led to it.
    pub(crate) fn trust(&self) {
        if let Some(anew) = self.doubted.swap(None) {
            self.follow(&anew);
        }
    }

    /// Sessions go where the name leads now.
    pub(crate) fn follow(&self, anew: &Endpoint) {
        let addresses = anew.addresses();
        if *addresses != *self.endpoint.addresses() {
            tracing::info!(region = %self.region, ?addresses, "its name leads elsewhere now");
        }
        self.endpoint.keep(addresses.to_vec());
    }

    /// A connection to wherever the name leads now, kept by nobody.
    pub(crate) async fn anew(&self) -> Result<Client, ApiError> {
        let made = Client::connect(&self.endpoint.anew(), &self.how.login(false)).await;
        made.map_err(|e| self.unreachable(&e))
    }

    /// The connection for a run's work, shown to be alive by a question: a server that was
    /// restarted, or an operator, may have ended it while nobody looked.
    pub(crate) async fn work(&self) -> Result<Held<'_>, ApiError> {
        let mut held = self
            .hold(&self.work)
            .await
            .map_err(|e| self.unreachable(&e))?;
        if held.is_fresh() || held.client().query("SELECT 1").await.is_ok() {
            return Ok(held);
        }
        drop(held);
        self.hold(&self.work)
            .await
            .map_err(|e| self.unreachable(&e))
    }

    /// What this daemon's connections call themselves.
    pub(crate) fn name(&self) -> String {
        self.how.name()
    }

    /// Process ids of the observer's connections other than the working one.
    pub(crate) fn others(&self) -> [i32; 2] {
        [
            self.probe.pid.load(Ordering::Relaxed),
            self.history.pid.load(Ordering::Relaxed),
        ]
    }

    fn driven(&self) -> Driven {
        let (region, endpoint) = (self.region.clone(), self.endpoint.clone());
        Driven::new(region, endpoint, self.means.clone(), self.how.login(false))
    }

    /// Logs the driver in ahead of a promotion.
    pub(crate) async fn warm_driver(&self) -> Result<(), ApiError> {
        let fresh = Arc::new(self.driven());
        fresh.connect().await.map_err(|e| self.not_driven(&e))?;
        *self.driver.lock().await = Some(fresh);
        Ok(())
    }

    /// Promotes through the driver that was logged in ahead, or a new one.
    pub(crate) async fn promote(
        &self,
        pinned: Pinned,
        until: Instant,
    ) -> Result<Promotion, ApiError> {
        let ahead = self.driver.lock().await.take();
        let driver = match ahead {
            Some(driver) => driver,
            None => Arc::new(self.driven()),
        };
        match driver.promote(pinned, until).await {
            // The connection made ahead may have died since; the request is conditional on the
            // server's state, so asking again is harmless.
            Err(DriverError::Query(_)) => {
                let fresh = self.driven();
                fresh
                    .promote(pinned, until)
                    .await
                    .map_err(|e| self.not_driven(&e))
            }
            other => other.map_err(|e| self.not_driven(&e)),
        }
    }

    /// Drops what was opened ahead for a promotion that does not take place.
    pub(crate) async fn cool_driver(&self) {
        *self.driver.lock().await = None;
    }

    pub(crate) fn unreachable(&self, error: &LoginError) -> ApiError {
        let text = format!("region {}: {}", self.region, chain(error));
        ApiError::new(Code::TargetUnreachable, text)
    }

    fn not_driven(&self, error: &DriverError) -> ApiError {
        let code = match error {
            DriverError::Login(_) | DriverError::Query(_) => Code::TargetUnreachable,
            DriverError::OtherServer(_) | DriverError::OtherTimeline { .. } => {
                Code::IdentityMismatch
            }
            DriverError::Privilege { .. }
            | DriverError::Asked(_)
            | DriverError::NotStarted
            | DriverError::StillInRecovery { .. } => Code::PromotionFailed,
        };
        ApiError::new(code, format!("region {}: {}", self.region, chain(error)))
    }
}
