//! Groups without a database: HTTP origins and other servers behind the seam of `servers`.
//!
//! Nothing here tells a primary from a standby, so nothing is said of roles, identities and positions
//! but what the driver's program says. A probe is a connection to each of a region's
//! servers that is closed again. There is no barrier: whatever would bar, certify or promote by SQL
//! answers that there is no database, and the steps of a run do not ask for it (`steps::origins`).

use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio::sync::Notify;
use tokio::time::{Instant, sleep, timeout};
use writefence_admin::api::{ApiError, Code};
use writefence_admin::runbook::{FenceLsn, Pinned};

use super::error::{chain, internal, refused};
use super::servers::{Older, Own, Seen, Servers, StillBarred, Ticket, Under, Work};
use crate::clock;
use crate::driver::{DriverError, program};
use crate::evidence::WriteFate;
use crate::shutdown::Shutdown;
use crate::upstream::{
    CheckedTarget, Endpoint, Lsn, Need, Observation, Prepared, Region, Role, Survey, Target,
    Targets, Wanted,
};

/// The shortest time between two probes of a region, whoever asks.
const PROBE_AT_MOST: Duration = Duration::from_secs(1);

/// The same where each probe starts the driver's program.
const PROGRAM_AT_MOST: Duration = Duration::from_secs(3);

/// What a group without a database is built from.
#[derive(Clone, Debug)]
pub struct OriginsPlan {
    /// The group, for the program to know.
    pub group: String,
    /// Each region's servers.
    pub servers: Vec<(Region, Vec<Endpoint>)>,
    /// The driver's program, if there is one.
    pub program: Option<Vec<String>>,
    /// A server that has not answered by then does not answer.
    pub timeout: Duration,
}

/// See the module.
pub(crate) struct Origins {
    plan: OriginsPlan,
    places: Vec<Arc<Place>>,
    targets: Arc<Targets>,
}

/// One region's servers, and what was seen of them.
pub(crate) struct Place {
    region: Region,
    endpoint: Endpoint,
    servers: Vec<Endpoint>,
    timeout: Duration,
    seen: ArcSwapOption<Seen>,
    look_now: Notify,
}

impl Origins {
    pub(crate) fn new(plan: OriginsPlan, targets: Arc<Targets>) -> Self {
        let place = |target: &Arc<Target>| {
            let own = plan.servers.iter().find(|(r, _)| *r == target.region);
            Arc::new(Place {
                region: target.region.clone(),
                endpoint: target.endpoint.clone(),
                servers: own.map(|(_, servers)| servers.clone()).unwrap_or_default(),
                timeout: plan.timeout,
                seen: ArcSwapOption::empty(),
                look_now: Notify::new(),
            })
        };
        let places = targets.regions().iter().map(place).collect();
        Self {
            plan,
            places,
            targets,
        }
    }

    /// The regions, each to be watched by a task of its own.
    pub(crate) fn places(&self) -> &[Arc<Place>] {
        &self.places
    }

    fn place(&self, region: &Region) -> Result<&Arc<Place>, ApiError> {
        let found = self.places.iter().find(|place| place.region == *region);
        found.ok_or_else(|| internal(format!("region {region} has no servers")))
    }

    fn call<'a>(&'a self, words: &'a [String], place: &'a Place) -> program::Call<'a> {
        program::Call {
            words,
            group: &self.plan.group,
            region: &place.region,
            endpoint: &place.endpoint,
        }
    }

    /// What the program says of a region; nothing where there is none.
    async fn said(&self, place: &Place) -> Result<Said, ApiError> {
        let Some(words) = &self.plan.program else {
            return Ok((None, None));
        };
        let said = program::observe(&self.call(words, place)).await;
        let said = said.map_err(|error| not_driven(place, &error))?;
        Ok((said.role(), said.writable()))
    }

    async fn observed(&self, region: &Region) -> Result<Observation, ApiError> {
        let place = self.place(region)?;
        let unreachable = |why| refused(Code::TargetUnreachable, why);
        let mut seen = place.probe().await.map_err(unreachable)?;
        (seen.role, seen.writable) = self.said(place).await?;
        Ok(seen)
    }

    /// There is nothing to compare; the program, if there is one, must not contradict.
    async fn checked(&self, region: &Region) -> Result<CheckedTarget, ApiError> {
        let target = self.targets.region(region);
        let target = target.map_err(|e| refused(Code::WrongRegion, e.to_string()))?;
        let (role, writable) = self.said(self.place(region)?).await?;
        if role == Some(Role::Standby) || writable == Some(false) {
            let text =
                format!("region {region}: the driver's program says that it takes no writes");
            return Err(refused(Code::IdentityMismatch, text));
        }
        Ok(CheckedTarget::without_database(&target))
    }

    async fn promoted(&self, region: &Region, until: Instant) -> Result<Observation, ApiError> {
        let place = self.place(region)?;
        let mut seen = Observation::silent(place.endpoint.clone());
        if let Some(words) = &self.plan.program {
            let said = program::promote_unpinned(&self.call(words, place), until).await;
            let said = said.map_err(|error| not_driven(place, &error))?;
            (seen.role, seen.writable) = (said.role(), said.writable());
        }
        Ok(seen)
    }
}

impl Place {
    /// Whether all of its servers take connections.
    async fn probe(&self) -> Result<Observation, String> {
        for server in &self.servers {
            let connect = TcpStream::connect((server.host.as_str(), server.port));
            let connected = match timeout(self.timeout, connect).await {
                Ok(connected) => connected.map_err(|error| error.to_string()),
                Err(_) => Err(format!("no answer within {:?}", self.timeout)),
            };
            connected.map_err(|why| format!("region {}: {server}: {why}", self.region))?;
        }
        Ok(Observation::silent(self.endpoint.clone()))
    }

    /// `said` is what the driver's program says when it is asked.
    async fn look(&self, said: impl Future<Output = Said>) {
        let at = clock::now();
        let mut answer = self.probe().await;
        if let Ok(seen) = &mut answer {
            (seen.role, seen.writable) = said.await;
        }
        let before = self.seen.load();
        let kept = before
            .as_ref()
            .map(|seen| (seen.last.clone(), seen.last_at));
        let (last, last_at) = match &answer {
            Ok(seen) => (Some(seen.clone()), Some(at)),
            Err(_) => kept.unwrap_or_default(),
        };
        self.seen.store(Some(Arc::new(Seen {
            answer,
            last,
            last_at,
            at,
        })));
    }
}

/// Role, and whether writes are taken, as far as somebody tells.
type Said = (Option<Role>, Option<bool>);

/// Probes a region until the end, every `interval` and when it is asked for.
pub(crate) async fn watch(
    origins: Arc<Origins>,
    place: Arc<Place>,
    interval: impl Fn() -> Duration,
    mut stop: Shutdown,
) {
    let at_most = match origins.plan.program {
        Some(_) => PROGRAM_AT_MOST,
        None => PROBE_AT_MOST,
    };
    while !stop.is_stopping() {
        // A program that fails has said nothing.
        let said = async { origins.said(&place).await.unwrap_or_default() };
        place.look(said).await;
        let looked = clock::now();
        let pause = match origins.plan.program {
            Some(_) => interval().max(PROGRAM_AT_MOST),
            None => interval(),
        };
        while looked.elapsed() < pause {
            // Every arm may be dropped: a sleep, a look at a flag, and a word that stays said.
            tokio::select! {
                () = sleep(at_most.min(pause)) => {}
                () = place.look_now.notified() => break,
                () = stop.stopping() => return,
            }
        }
    }
}

fn not_driven(place: &Place, error: &DriverError) -> ApiError {
    let text = format!("region {}: {}", place.region, chain(error));
    refused(Code::PromotionFailed, text)
}

/// For whatever only a database could do.
fn none<'a, T: Send + 'a>() -> Work<'a, T> {
    let text = "the group has no database that could be asked";
    Box::pin(async move { Err(refused(Code::Precondition, text)) })
}

fn nothing<'a, T: Default + Send + 'a>() -> Work<'a, T> {
    Box::pin(async { Ok(T::default()) })
}

impl Servers for Origins {
    fn has_database(&self) -> bool {
        false
    }

    fn driver(&self) -> Option<String> {
        self.plan.program.as_ref().map(|words| words.join(" "))
    }

    fn seen(&self, region: &Region) -> Option<Arc<Seen>> {
        self.place(region).ok()?.seen.load_full()
    }

    fn observe<'a>(&'a self, region: &'a Region) -> Work<'a, Observation> {
        Box::pin(self.observed(region))
    }

    fn survey<'a>(&'a self, _: &'a Region, _: &'a [Need]) -> Work<'a, Survey> {
        none()
    }

    fn ask<'a>(&'a self, _: &'a Region, _: &'a str) -> Work<'a, Option<String>> {
        none()
    }

    fn observers(&self) -> Option<String> {
        None
    }

    fn warm<'a>(&'a self, _: &'a [Region]) -> Work<'a, ()> {
        nothing()
    }

    fn clear<'a>(&'a self, _: &'a Region, _: &'a Ticket) -> Work<'a, ()> {
        nothing()
    }

    fn check<'a>(
        &'a self,
        region: &'a Region,
        _: Wanted,
        _: Option<&'a Ticket>,
        _: Option<Observation>,
    ) -> Work<'a, CheckedTarget> {
        Box::pin(self.checked(region))
    }

    fn bar<'a>(&'a self, _: &'a Region, _: &'a Ticket, _: Own, _: Instant) -> Work<'a, String> {
        none()
    }

    fn barred<'a>(&'a self, _: &'a Region, _: &'a Ticket, _: Own) -> Work<'a, StillBarred> {
        none()
    }

    fn unbar<'a>(&'a self, _: &'a Region, _: &'a Ticket) -> Work<'a, ()> {
        nothing()
    }

    fn fence_lsn<'a>(&'a self, _: &'a Region, _: &'a Ticket, _: Instant) -> Work<'a, FenceLsn> {
        none()
    }

    fn replayed<'a>(&'a self, _: &'a Region, _: &'a FenceLsn, _: Instant) -> Work<'a, Lsn> {
        none()
    }

    /// A region that does not answer cannot take over.
    fn pin<'a>(&'a self, region: &'a Region) -> Work<'a, Pinned> {
        Box::pin(async move {
            self.observed(region).await?;
            Ok(Pinned {
                region: region.to_string(),
                system_identifier: None,
                timeline: None,
            })
        })
    }

    fn promote<'a>(&'a self, pinned: &'a Pinned, until: Instant) -> Work<'a, Observation> {
        Box::pin(async move {
            let region = Region::new(pinned.region.as_str());
            self.promoted(&region, until).await
        })
    }

    fn older<'a>(&'a self, _: &'a Region, _: Older, _: Duration) -> Work<'a, Vec<i32>> {
        nothing()
    }

    fn alive<'a>(&'a self, _: &'a Region, _: Vec<(i32, Duration)>) -> Work<'a, Vec<i32>> {
        none()
    }

    fn running_xids<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<(i32, u64)>> {
        nothing()
    }

    fn fates<'a>(&'a self, _: &'a Region, _: Under, _: Vec<u64>) -> Work<'a, Vec<WriteFate>> {
        none()
    }

    fn verifiers<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<(String, String)>> {
        nothing()
    }

    fn prepared<'a>(&'a self, _: &'a Region) -> Work<'a, Vec<Prepared>> {
        nothing()
    }

    fn canary<'a>(&'a self, _: &'a Region, _: &'a str) -> Work<'a, Lsn> {
        none()
    }

    fn synchronous(&self, old: &Region, _: &Region) -> Result<String, String> {
        Err(format!("{old} has no database that could be synchronous"))
    }

    fn refresh(&self) {
        for place in &self.places {
            place.look_now.notify_one();
        }
    }
}
