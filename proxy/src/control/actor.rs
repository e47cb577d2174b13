//! The single place through which a phase changes.
//!
//! One change at a time: the turn is held from the comparison to the durable record. Fencing
//! closes in memory first, then stores, then answers; opening stores first. The point of no return
//! and the decision to go back take the same turn, so that a run can never have both.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use tokio::sync::{Mutex, oneshot};
use tokio::time::timeout;
use writefence_admin::api::{ApiError, Code, FenceAnswer};
use writefence_admin::audit::{Entry, Event};
use writefence_admin::runbook::{Fact, Fenced, Opened, Pinned, RunState, check_abort};

use super::book::Book;
use super::error::{chain, internal, refused, storage};
use super::settings::Settings;
use crate::clock;
use crate::fleet::{
    Durability, GateRecord, Store, StoreError, StoredIdentity, StoredPhase, VERSION,
};
use crate::gate::{Answer, DurableError, Epoch, Lane, Phase, Plan, fence_durably, open_durably};
use crate::group::Group;
use crate::shutdown::Tasks;
use crate::upstream::{CheckedTarget, Identity, NothingInFlight, Region};

/// See the module.
pub(crate) struct Actor {
    group: Arc<Group>,
    store: Arc<dyn Store>,
    book: Arc<Book>,
    tasks: Tasks,
    turn: Arc<Mutex<()>>,
    /// False until a first start was decided; the record then says so.
    decided: AtomicBool,
    /// The epoch of an opening that failed: its record may still have reached the disk, so the epoch
    /// is not used again.
    offered: AtomicU64,
}

/// Whether an opening belongs to the live run.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Told {
    ToTheRun,
    ToNobody,
}

/// How a fence is to fall.
#[derive(Clone, Debug)]
pub(crate) struct Fencing {
    pub(crate) answer: Answer,
    pub(crate) hold_ms: Option<u64>,
    pub(crate) plan: Plan,
    /// Fence http first and give it this long, or both at once.
    pub(crate) http_first: Option<std::time::Duration>,
}

/// A fence that stands in memory, and the answer of the disk, which may still be on its way.
#[must_use = "a fence may be answered only once it is durable"]
pub(crate) struct Standing {
    durable: oneshot::Receiver<Result<(), ApiError>>,
}

impl Standing {
    /// Waits until the fence survives a power cut.
    pub(crate) async fn durable(self) -> Result<(), ApiError> {
        self.durable
            .await
            .unwrap_or_else(|_| Err(internal("the fence's record was not written")))
    }
}

impl Actor {
    pub(crate) fn new(
        group: Arc<Group>,
        store: Arc<dyn Store>,
        book: Arc<Book>,
        tasks: Tasks,
        decided: bool,
    ) -> Self {
        let decided = AtomicBool::new(decided);
        Self {
            group,
            store,
            book,
            tasks,
            turn: Arc::default(),
            decided,
            offered: AtomicU64::new(0),
        }
    }

    /// Lifts the gate to the epoch of an opening that failed, so that the next change is above it.
    fn level(&self) {
        self.group
            .gate
            .set_epoch_at_least(Epoch::new(self.offered.load(Ordering::Relaxed)));
    }

    /// Whether the group ever had a primary that was decided upon.
    pub(crate) fn is_decided(&self) -> bool {
        self.decided.load(Ordering::Relaxed)
    }

    /// The group's epoch.
    pub(crate) fn epoch(&self) -> Epoch {
        self.group.gate.look(Lane::Sql).epoch
    }

    /// Fenced in all lanes.
    pub(crate) fn is_fenced(&self) -> bool {
        Lane::ALL
            .into_iter()
            .all(|lane| self.group.gate.look(lane).phase != Phase::Open)
    }

    /// Fences for the live run. The fact that the run was about to fence is durable already (the
    /// step's own record), so the drain may begin while this record is being stored.
    /// A word on `halt` cuts the http stage short: the fence is completed, and the run that was told
    /// to stop finds itself fenced in all lanes, from where there is a way back.
    pub(crate) async fn fence(
        &self,
        mut order: Fencing,
        mut halt: tokio::sync::watch::Receiver<bool>,
    ) -> Result<Standing, ApiError> {
        let turn = Arc::clone(&self.turn).lock_owned().await;
        self.running()?;
        self.level();
        let gate = &self.group.gate;
        if let Some(at_most) = order.http_first {
            let began = clock::now();
            gate.fence(&[Lane::Http], order.answer, order.plan.clone());
            if gate.in_flight(Lane::Http) > 0 {
                // Beyond the deadline the sql lane is fenced all the same, and the drain tells. What
                // is unknown is not waited for: it has no SQL left that we could let pass.
                // Both arms may be dropped: they only wait.
                tokio::select! {
                    _ = timeout(at_most, gate.idle(Lane::Http)) => {}
                    _ = halt.wait_for(|halt| *halt) => {}
                }
            }
            // Transactions have their times from the fence of their own lane.
            let waited = began.elapsed();
            order.plan.grace += waited;
            order.plan.deadline += waited;
        }
        let (group, store) = (Arc::clone(&self.group), Arc::clone(&self.store));
        let record = self.record(StoredPhase::Fenced, None);
        let (answer, plan) = (order.answer, order.plan);
        let mut fencing = Box::pin(async move {
            let put = |made: crate::gate::Record| {
                store.put(GateRecord {
                    epoch: made.epoch.value(),
                    ..record
                })
            };
            fence_durably(&group.gate, &Lane::ALL, answer, plan, put).await
        });
        // The first poll closes the gate and hands the record to the disk; what follows is only
        // waiting for it, and the drain need not.
        let first =
            std::future::poll_fn(|cx| std::task::Poll::Ready(fencing.as_mut().poll(cx))).await;
        let epoch = self.epoch();
        let hold_ms = order.hold_ms;
        let fact = Fact::Fence(Fenced {
            epoch: epoch.value(),
            answer: shown(answer),
            hold_ms,
        });
        self.book.note_with(fact, Durability::Lazy).await?;
        let (done, durable) = oneshot::channel();
        let (book, name) = (Arc::clone(&self.book), self.group.name.clone());
        self.tasks.spawn(async move {
            let stored = match first {
                std::task::Poll::Ready(stored) => stored,
                std::task::Poll::Pending => fencing.await,
            };
            let result = match stored {
                Ok(_) => book.sync().await,
                Err(error) => Err(not_durable(&error)),
            };
            if let Err(error) = &result {
                let (epoch, why) = (epoch.value(), &error.message);
                book.trail()
                    .phase("fenced_in_memory_only", &name, epoch, why);
            }
            drop(turn);
            // Nobody may wait for it any more: the run was asked to stop.
            let _ = done.send(result);
        });
        Ok(Standing { durable })
    }

    /// Passes the point of no return: from here on only forward, on this candidate.
    pub(crate) async fn point_of_no_return(&self, candidate: Pinned) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        let facts = self.running()?;
        let fenced_at = facts.fence.map(|(_, fence)| fence.epoch);
        if !self.is_fenced() || fenced_at != Some(self.epoch().value()) {
            let text = format!("the run's fence of epoch {fenced_at:?} does not stand any more");
            return Err(refused(Code::NotFenced, text).epoch(self.epoch().value()));
        }
        self.book.note(Fact::Pnr { candidate }).await
    }

    /// Turns the run back, unless it is past its point of no return.
    pub(crate) async fn turn_back(&self, actor: &str, reason: &str) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        let facts = self
            .book
            .facts()
            .ok_or_else(|| internal("there is no run to turn back"))?;
        check_abort(&facts)?;
        if facts.state == RunState::Aborting {
            return Ok(());
        }
        let (actor, reason) = (actor.to_owned(), reason.to_owned());
        self.book.note(Fact::Aborting { actor, reason }).await
    }

    /// Puts the checked target in force and opens: readers move first, writes pass once the record
    /// is on disk.
    pub(crate) async fn open(
        &self,
        checked: CheckedTarget,
        proof: &impl NothingInFlight,
    ) -> Result<Epoch, ApiError> {
        let _turn = self.turn.lock().await;
        let put_in_force = self.group.targets.repoint(proof, checked);
        put_in_force.map_err(|e| refused(Code::IdentityMismatch, chain(&e)))?;
        self.group.gate.wake_all();
        self.open_stored(Told::ToTheRun).await
    }

    /// Gives the group its first primary and opens.
    pub(crate) async fn open_first(&self, checked: CheckedTarget) -> Result<Epoch, ApiError> {
        let _turn = self.turn.lock().await;
        let established = self.group.targets.establish(checked);
        established.map_err(|e| refused(Code::IdentityMismatch, chain(&e)))?;
        self.open_stored(Told::ToTheRun).await
    }

    /// Fences without a run: another server answers where the accepted one was.
    pub(crate) async fn trip(&self, why: &str) -> Result<Epoch, ApiError> {
        let _turn = self.turn.lock().await;
        let now = clock::now();
        let (grace, deadline) = (now, now);
        let hold = std::time::Duration::ZERO;
        let plan = Plan {
            grace,
            deadline,
            hold,
            begin: crate::gate::Begin::Auto,
            all: false,
        };
        let record = self.record(StoredPhase::Fenced, None);
        let put = |made: crate::gate::Record| {
            self.store.put(GateRecord {
                epoch: made.epoch.value(),
                ..record
            })
        };
        let fenced = fence_durably(&self.group.gate, &Lane::ALL, Answer::Reject, plan, put).await;
        let (trail, name, epoch) = (self.book.trail(), &self.group.name, self.epoch().value());
        match fenced {
            Ok(epoch) => {
                trail.phase("fenced", name, epoch.value(), why);
                Ok(epoch)
            }
            Err(error) => {
                trail.phase("fenced_in_memory_only", name, epoch, why);
                Err(not_durable(&error))
            }
        }
    }

    /// Opens on the target in force, at the end of a run's way back.
    pub(crate) async fn reopen(&self) -> Result<Epoch, ApiError> {
        let _turn = self.turn.lock().await;
        self.open_stored(Told::ToTheRun).await
    }

    /// Opens on the target in force, as a restart of an open daemon does: no run has a part in it.
    pub(crate) async fn open_again(&self) -> Result<Epoch, ApiError> {
        let _turn = self.turn.lock().await;
        self.open_stored(Told::ToNobody).await
    }

    /// Records in the run that writes pass already: it opened, and the daemon died before it said so.
    pub(crate) async fn note_opened(&self) -> Result<(), ApiError> {
        let _turn = self.turn.lock().await;
        if self.book.live().is_none_or(|run| run.opened.is_some()) {
            return Ok(());
        }
        let region = self.group.targets.accepted().region.to_string();
        self.book
            .note(Fact::Open(Opened {
                region,
                epoch: self.epoch().value(),
            }))
            .await
    }

    /// Stores the phase as it is, under an epoch that is at least `epoch`: what each start does.
    pub(crate) async fn store_start(
        &self,
        phase: StoredPhase,
        epoch: Epoch,
    ) -> Result<(), StoreError> {
        let record = GateRecord {
            epoch: epoch.value(),
            ..self.record(phase, None)
        };
        self.store.put(record).await
    }

    async fn open_stored(&self, told: Told) -> Result<Epoch, ApiError> {
        self.level();
        self.decided.store(true, Ordering::Relaxed);
        let accepted = self.group.targets.accepted();
        let live = self.book.live().filter(|_| told == Told::ToTheRun);
        let record = self.record(StoredPhase::Open, accepted.identity);
        let put = |made: crate::gate::Record| {
            let epoch = made.epoch.value();
            let stored = self.store.put(GateRecord { epoch, ..record });
            let region = accepted.region.to_string();
            let fact = live
                .is_some()
                .then_some(Fact::Open(Opened { region, epoch }));
            async move {
                // The run's own record of the promotion reaches the disk before the first write
                // too, and the audit's of the opening; all at the same time.
                let (stored, synced, audited) =
                    tokio::join!(stored, self.book.sync(), self.book.trail().sync());
                stored.map_err(|e| storage(&e))?;
                synced?;
                audited?;
                match fact {
                    Some(fact) => self.book.note_with(fact, Durability::Lazy).await,
                    None => Ok(()),
                }
            }
        };
        let attempted = self.epoch().next();
        let (trail, name) = (self.book.trail(), &self.group.name);
        let region = self.group.targets.accepted().region.to_string();
        let own = Entry::new(Event::Phase, "opening").fact("region", &region);
        trail.append(Entry {
            group: Some(name.clone()),
            run: live.as_ref().map(|facts| facts.run.clone()),
            epoch: Some(attempted.value()),
            ..own
        });
        let opened = open_durably(&self.group.gate, put).await;
        match &opened {
            // A run's own record says the same.
            Ok(_) if live.is_some() => {}
            Ok(epoch) => trail.phase("opened", name, epoch.value(), ""),
            Err(error) => {
                self.offered.store(attempted.value(), Ordering::Relaxed);
                trail.phase("not_opened", name, attempted.value(), &chain(error));
            }
        }
        opened.map_err(|error| match error {
            DurableError::NotStored { source, .. } => source,
            DurableError::Overtaken { .. } => internal(error.to_string()),
        })
    }

    fn running(&self) -> Result<writefence_admin::runbook::RunFacts, ApiError> {
        let facts = self.book.live().ok_or_else(|| internal("no run is live"))?;
        match facts.state {
            RunState::Running => Ok(facts),
            RunState::Interrupted
            | RunState::Aborting
            | RunState::Done
            | RunState::Aborted
            | RunState::RolledBack
            | RunState::Failed => Err(refused(
                Code::Aborted,
                format!("run {} is {}", facts.run, facts.state),
            )
            .run(facts.run)),
        }
    }

    fn record(&self, phase: StoredPhase, identity: Option<Identity>) -> GateRecord {
        let accepted = self.group.targets.accepted();
        let phase = match phase {
            StoredPhase::Fenced if !self.is_decided() => StoredPhase::New,
            StoredPhase::Fenced | StoredPhase::Open | StoredPhase::New => phase,
        };
        GateRecord {
            version: VERSION,
            group: self.group.name.clone(),
            epoch: 0,
            phase,
            primary: accepted.region.to_string(),
            identity: identity.or(accepted.identity).map(stored_identity),
            run: self.book.live().map(|facts| facts.run),
            at: clock::wall(),
        }
    }
}

/// The region a record names, with its identity.
pub(crate) fn of_record(record: &GateRecord) -> Result<(Region, Option<Identity>), String> {
    let identity = match &record.identity {
        None => None,
        Some(stored) => Some(known_identity(stored)?),
    };
    Ok((Region::new(record.primary.as_str()), identity))
}

fn known_identity(stored: &StoredIdentity) -> Result<Identity, String> {
    let bad = |what: &str| format!("the identity's {what} cannot be read");
    Ok(Identity {
        system_identifier: stored
            .system_identifier
            .parse()
            .map_err(|_| bad("system_identifier"))?,
        timeline: crate::upstream::Timeline::new(stored.timeline).ok_or_else(|| bad("timeline"))?,
        fork_lsn: match &stored.fork_lsn {
            None => None,
            Some(lsn) => Some(lsn.parse().map_err(|_| bad("fork_lsn"))?),
        },
    })
}

fn stored_identity(identity: Identity) -> StoredIdentity {
    StoredIdentity {
        system_identifier: identity.system_identifier.to_string(),
        timeline: identity.timeline.value(),
        fork_lsn: identity.fork_lsn.map(|lsn| lsn.to_string()),
    }
}

fn not_durable(error: &DurableError<StoreError>) -> ApiError {
    ApiError::new(Code::Storage, chain(error)).hint(
        "writes are stopped in memory, a restart would not know; make the state directory \
         writable, then `abort`",
    )
}

pub(crate) const fn shown(answer: Answer) -> FenceAnswer {
    match answer {
        Answer::Hold => FenceAnswer::Hold,
        Answer::Reject => FenceAnswer::Reject,
    }
}

impl Fencing {
    /// A fence by the group's settings, with what the operator asked for instead.
    pub(crate) fn new(settings: &Settings, answer: Option<Answer>, hold_ms: Option<u64>) -> Self {
        let hold = hold_ms.map(std::time::Duration::from_millis);
        Self {
            answer: answer.unwrap_or(settings.answer),
            hold_ms,
            plan: settings.plan(clock::now(), hold),
            http_first: settings.http_first.then_some(settings.http_deadline),
        }
    }
}
