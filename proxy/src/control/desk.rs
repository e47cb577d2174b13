//! Everything that belongs to the control of one group, in one place for the verbs and the steps.

use std::sync::Arc;

use arc_swap::ArcSwap;
use tokio::sync::{Mutex, watch};
use tokio::time::Instant;
use writefence_admin::api::{ApiError, Code, Run};
use writefence_config::{Check, Hook};

use super::actor::Actor;
use super::book::Book;
use super::checks::Kept;
use super::drains::Drains;
use super::figures::Tally;
use super::leftover::Leftover;
use super::measure::Baseline;
use super::preflight::watch::Board;
use super::servers::{Own, Servers, Ticket};
use super::settings::Settings;
use super::tripwire::Tripwire;
use crate::group::Group;
use crate::sessions::OwnBackend;
use crate::shutdown::Tasks;
use crate::upstream::Region;

/// One group's control.
pub(crate) struct Desk {
    pub(crate) group: Arc<Group>,
    pub(crate) settings: ArcSwap<Settings>,
    /// The user's own hooks and checks for this group, in the order of the file.
    pub(crate) hooks: Vec<Hook>,
    pub(crate) checks: Vec<Check>,
    /// What checks compare with after a move, and of which run it is.
    pub(crate) kept: ArcSwap<(String, Kept)>,
    pub(crate) servers: Arc<dyn Servers>,
    pub(crate) book: Arc<Book>,
    pub(crate) actor: Actor,
    pub(crate) drains: Drains,
    pub(crate) leftover: Arc<Leftover>,
    pub(crate) tasks: Tasks,
    pub(crate) tally: Arc<Tally>,
    /// Whether each candidate could take over, as found last.
    pub(crate) board: Board,
    /// Whether another side takes writes.
    pub(crate) tripwire: Tripwire,
    /// When the target in force changed last.
    pub(crate) moved: ArcSwap<Instant>,
    /// The counts before the fence of the live or the last run.
    pub(crate) baseline: std::sync::Mutex<Option<Baseline>>,
    /// Why the group came up fenced, for status.
    pub(crate) notice: ArcSwap<Option<String>>,
    /// Why the run stands still, where no step's record says it.
    pub(crate) trouble: ArcSwap<Option<ApiError>>,
    /// One verb at a time decides what to do next.
    pub(crate) verbs: Mutex<()>,
    /// Tells the task that advances the run to stop at the next safe point.
    pub(crate) halt: watch::Sender<bool>,
}

impl Desk {
    /// The configured region of this name.
    pub(crate) fn region(&self, name: &str) -> Result<Region, ApiError> {
        let known = self.group.targets.regions();
        if let Some(target) = known.iter().find(|target| target.region.as_str() == name) {
            return Ok(target.region.clone());
        }
        let names: Vec<&str> = known.iter().map(|target| target.region.as_str()).collect();
        Err(ApiError::new(
            Code::WrongRegion,
            format!("group {} has no region {name}", self.group.name),
        )
        .hint(format!("configured are {}", names.join(", "))))
    }

    /// The region of the accepted target.
    pub(crate) fn accepted(&self) -> Region {
        self.group.targets.accepted().region.clone()
    }

    /// When the target in force was last about to change; the start, before it ever was.
    pub(crate) fn moved_at(&self) -> Instant {
        **self.moved.load()
    }

    /// The live or the last run as a document.
    pub(crate) fn run(&self) -> Option<Run> {
        let mut run = self.book.run()?;
        if run.error.is_none() && !run.working && !run.state.is_final() {
            run.error.clone_from(&self.trouble.load());
        }
        Some(run)
    }

    /// On whose behalf servers are touched now.
    pub(crate) fn ticket(&self, run: &str) -> Ticket {
        Ticket {
            run: run.to_owned(),
            epoch: self.actor.epoch().value(),
            identity: self.group.targets.accepted().identity,
        }
    }

    /// Our own logins in a region, asked anew each time the barrier looks.
    pub(crate) fn own(&self, region: &Region) -> Own {
        let (group, region) = (Arc::clone(&self.group), region.clone());
        Arc::new(move || {
            let readers = group.catalogs.readers(&region);
            let mut all = group.sessions.own(&region);
            all.extend(readers.into_iter().map(|pid| OwnBackend {
                pid,
                walled: true,
                ..OwnBackend::default()
            }));
            all
        })
    }

    /// As `own`, with those as walled that were let go on reading and are to be proven once more.
    pub(crate) fn own_let_go(&self, region: &Region) -> Own {
        let own = self.own(region);
        Arc::new(move || {
            let mut all = own();
            for backend in &mut all {
                backend.walled |= backend.let_go;
            }
            all
        })
    }
}
