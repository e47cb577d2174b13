//! Drains as objects that operators can ask about.
//!
//! The gate's drain knows of permits and unknown outcomes of this daemon; here the sessions that a
//! killed predecessor left are added. A drain says `drained` only when both are gone.
//!
//! Prepared transactions are listed when nothing else is left, and do not keep a drain waiting:
//! nobody may end them while writes are fenced, they run nothing, and they move along with the log.

use std::collections::VecDeque;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::{Instant, timeout, timeout_at};
use writefence_admin::api::{self, DrainOutcome, LaneCounts, Straggler, StragglerKind, Timestamp};

use super::figures::Tally;
use super::leftover::Leftover;
use super::servers::Servers;
use crate::gate::{self, Lane};
use crate::group::Group;
use crate::requests::{RequestState, RequestView, Requests};
use crate::shutdown::Tasks;
use crate::upstream::Prepared;

/// How long the list of prepared transactions is waited for: a drain is over without it.
const LIST: Duration = Duration::from_millis(500);

/// Past drains that can still be asked about.
const KEPT: usize = 16;

/// The drains of a group.
pub(crate) struct Drains {
    group: Arc<Group>,
    leftover: Arc<Leftover>,
    servers: Arc<dyn Servers>,
    tasks: Tasks,
    tally: Arc<Tally>,
    list: Mutex<VecDeque<Arc<Draining>>>,
}

/// One drain.
pub(crate) struct Draining {
    drain: Arc<gate::Drain>,
    started: Timestamp,
    deadline: Timestamp,
    outcome: watch::Sender<Option<DrainOutcome>>,
    /// Who was in flight when the time ran out.
    stragglers: Mutex<Vec<Straggler>>,
    /// Prepared transactions when everything else had ended; `None` when the primary did not say.
    prepared: Mutex<Option<Vec<Prepared>>>,
}

impl Drains {
    pub(crate) fn new(
        group: Arc<Group>,
        leftover: Arc<Leftover>,
        servers: Arc<dyn Servers>,
        tasks: Tasks,
        tally: Arc<Tally>,
    ) -> Self {
        Self {
            group,
            leftover,
            servers,
            tasks,
            tally,
            list: Mutex::default(),
        }
    }

    /// Starts a drain of both lanes; the one in force ends as superseded.
    pub(crate) fn start(&self, deadline: Instant) -> Arc<Draining> {
        let drain = self.group.gate.start_drain(None, deadline);
        let started = Timestamp::now();
        let left = deadline.saturating_duration_since(crate::clock::now());
        let draining = Arc::new(Draining {
            drain,
            started,
            deadline: Timestamp::new(started.as_system_time() + left),
            outcome: watch::Sender::new(None),
            stragglers: Mutex::default(),
            prepared: Mutex::default(),
        });
        let mut list = self.list();
        list.push_back(Arc::clone(&draining));
        if list.len() > KEPT {
            list.pop_front();
        }
        drop(list);
        let (told, group) = (Arc::clone(&draining), Arc::clone(&self.group));
        let (leftover, tally) = (Arc::clone(&self.leftover), Arc::clone(&self.tally));
        let servers = Arc::clone(&self.servers);
        self.tasks.spawn(async move {
            let outcome = told.settle(&leftover).await;
            if outcome == DrainOutcome::TimedOut {
                *lock(&told.stragglers) = stragglers(&group);
            }
            if outcome != DrainOutcome::Superseded {
                *lock(&told.prepared) = prepared_now(&group, &*servers).await;
            }
            tally.drain(outcome);
            told.outcome.send_replace(Some(outcome));
        });
        draining
    }

    /// The drain in force, or the last one.
    pub(crate) fn last(&self) -> Option<Arc<Draining>> {
        self.list().back().cloned()
    }

    /// The drain of this id.
    pub(crate) fn find(&self, id: &str) -> Option<Arc<Draining>> {
        self.list().iter().find(|d| d.id() == id).cloned()
    }

    /// A drain as a document.
    pub(crate) fn document(&self, draining: &Draining) -> api::Drain {
        let gate = &self.group.gate;
        let outcome = *draining.outcome.borrow();
        let kept = lock(&draining.stragglers).clone();
        let prepared = draining.prepared().unwrap_or_default();
        let prepared = prepared.into_iter().map(prepared_straggler);
        let over = outcome.is_some() && outcome != Some(DrainOutcome::TimedOut);
        api::Drain {
            id: draining.id(),
            epoch: draining.drain.epoch().value(),
            outcome,
            started: draining.started,
            deadline: Some(draining.deadline),
            lanes: LaneCounts {
                http: if over { 0 } else { gate.in_flight(Lane::Http) },
                sql: if over { 0 } else { gate.in_flight(Lane::Sql) },
            },
            unknown: gate.unknown(),
            stragglers: match outcome {
                Some(DrainOutcome::TimedOut) => kept.into_iter().chain(prepared).collect(),
                Some(_) => prepared.collect(),
                None => stragglers(&self.group),
            },
        }
    }

    fn list(&self) -> MutexGuard<'_, VecDeque<Arc<Draining>>> {
        lock(&self.list)
    }
}

impl Draining {
    /// Its name within the group.
    pub(crate) fn id(&self) -> String {
        self.drain.id().to_string()
    }

    /// Whether it drains this epoch.
    pub(crate) fn is_of(&self, epoch: gate::Epoch) -> bool {
        self.drain.epoch() == epoch
    }

    /// Waits for the outcome. Safe to drop.
    pub(crate) async fn ended(&self) -> DrainOutcome {
        let mut outcome = self.outcome.subscribe();
        match outcome.wait_for(Option::is_some).await {
            Ok(outcome) => (*outcome).unwrap_or(DrainOutcome::Superseded),
            Err(_) => DrainOutcome::Superseded,
        }
    }

    /// Waits for the outcome, at most this long.
    pub(crate) async fn ended_within(&self, at_most: Duration) -> Option<DrainOutcome> {
        timeout(at_most, self.ended()).await.ok()
    }

    /// The outcome, if there is one.
    pub(crate) fn outcome(&self) -> Option<DrainOutcome> {
        *self.outcome.borrow()
    }

    /// Prepared transactions that outlive it, once it has ended; `None` when they are not known.
    pub(crate) fn prepared(&self) -> Option<Vec<Prepared>> {
        lock(&self.prepared).clone()
    }

    /// Unknown outcomes no longer block it.
    pub(crate) fn accept_unknown(&self) {
        self.drain.accept_unknown();
    }

    /// The gate's proof, once the outcome is a good one.
    pub(crate) fn proof(&self) -> Option<gate::Drained> {
        match self.outcome()? {
            DrainOutcome::Drained | DrainOutcome::DrainedWithUnknown => self.drain.proof(),
            DrainOutcome::TimedOut | DrainOutcome::Superseded => None,
        }
    }

    async fn settle(&self, leftover: &Leftover) -> DrainOutcome {
        let outcome = match self.drain.wait().await {
            gate::Outcome::Drained => DrainOutcome::Drained,
            gate::Outcome::DrainedWithUnknown => DrainOutcome::DrainedWithUnknown,
            gate::Outcome::TimedOut => return DrainOutcome::TimedOut,
            gate::Outcome::Superseded => return DrainOutcome::Superseded,
        };
        match timeout_at(self.drain.deadline(), leftover.gone()).await {
            Ok(()) => outcome,
            Err(_) => DrainOutcome::TimedOut,
        }
    }
}

/// A primary that did not answer its last probe is not waited for.
async fn prepared_now(group: &Group, servers: &dyn Servers) -> Option<Vec<Prepared>> {
    let region = group.targets.accepted().region.clone();
    if servers
        .seen(&region)
        .is_none_or(|seen| seen.answer.is_err())
    {
        return None;
    }
    let asked = timeout(LIST, servers.prepared(&region)).await;
    asked.ok().and_then(Result::ok)
}

fn prepared_straggler(prepared: Prepared) -> Straggler {
    Straggler {
        kind: StragglerKind::Prepared,
        id: prepared.gid,
        user: prepared.owner,
        database: prepared.database,
        client: None,
        pid: None,
        age_ms: prepared
            .age
            .and_then(|age| u64::try_from(age.as_millis()).ok()),
        state: Some("prepared".to_owned()),
        digest: None,
    }
}

fn request_straggler(kind: StragglerKind, request: RequestView) -> Straggler {
    Straggler {
        kind,
        id: request.id,
        user: None,
        database: None,
        client: Some(request.client.to_string()),
        pid: None,
        age_ms: u64::try_from(request.age.as_millis()).ok(),
        state: Some(request.state.name().to_owned()),
        digest: Some(request.what),
    }
}

/// Who holds a permit now.
pub(crate) fn stragglers(group: &Group) -> Vec<Straggler> {
    let all = group.sessions.snapshot();
    let holders = all.into_iter().filter(|session| session.permitted);
    let of = |kind, all: &Requests| {
        let all = all.snapshot().into_iter();
        let permitted = all.filter(|one| one.state != RequestState::Held);
        permitted
            .map(move |one| request_straggler(kind, one))
            .collect::<Vec<_>>()
    };
    let requests = of(StragglerKind::Http, &group.requests);
    let connections = of(StragglerKind::Tcp, &group.connections);
    let sessions = holders.map(|s| Straggler {
        kind: StragglerKind::Sql,
        id: s.id.to_string(),
        user: Some(s.user),
        database: Some(s.database),
        client: Some(s.client.to_string()),
        pid: s.backend.map(|(_, pid)| pid),
        age_ms: u64::try_from(s.since.as_millis()).ok(),
        state: Some(s.state.name().to_owned()),
        digest: s.digest,
    });
    sessions.chain(requests).chain(connections).collect()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
