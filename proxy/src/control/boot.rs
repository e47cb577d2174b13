//! Builds the control of a group from what its state directory holds, and brings it to its phase.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::sync::Mutex;
use tokio::time::sleep;
use writefence_admin::api::{ApiError, Code, RunState};
use writefence_admin::runbook::{Fact, Record, RunFacts, after_restart as run_after_restart, fold};
use writefence_config::{Check, Hook};

use super::actor::{Actor, of_record};
use super::book::Book;
use super::desk::Desk;
use super::drains::Drains;
use super::error::chain;
use super::figures::Tally;
use super::leftover::Leftover;
use super::line::ObserverLogin;
use super::observer::{Observer, watch};
use super::origins::{self, Origins, OriginsPlan};
use super::preflight::watch as readiness;
use super::preflight::watch::Board;
use super::servers::Servers;
use super::settings::Settings;
use super::start::{self, Begin, FirstStart};
use super::steps::Asked;
use super::trail::Trail;
use super::tripwire::{self, Tripwire};
use super::work::{Job, launch};
use super::{nearby, unknown};
use crate::clock;
use crate::driver::Means;
use crate::fleet::{Found, Incarnation, Predecessor, Store, StoreError, StoredPhase};
use crate::gate::Epoch;
use crate::group::Group;
use crate::shutdown::{Shutdown, Tasks};
use crate::upstream::{Identity, Region, Role, Target, Wanted};

/// Each start raises the epoch by this much: one for the phase it comes up in, and one that an
/// answer of the predecessor may have used without the disk knowing.
const START_RAISES: u64 = 2;

/// How long an open daemon waits for its primary before it opens without having seen it.
const FIRST_LOOK: Duration = Duration::from_secs(2);

/// Between two looks at a first start that not all regions have answered.
const ASK_AGAIN: Duration = Duration::from_millis(200);

/// Why a group cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum BootError {
    /// The state directory cannot be used.
    #[error("the state directory cannot be used")]
    Store(#[from] StoreError),
    /// The state names a region that the configuration does not have.
    #[error(
        "the state of group {group} says that region {region} is the primary, and the \
         configuration has no such region; put it back into the file"
    )]
    UnknownRegion {
        /// The group.
        group: String,
        /// The region in the state.
        region: String,
    },
}

/// What is known of a group before it is built.
pub struct Boot {
    name: String,
    found: Found,
    lost: Option<String>,
    primary: Region,
    identity: Option<Identity>,
    epoch: Epoch,
    last: Option<(RunFacts, Vec<Record>)>,
}

impl Boot {
    /// Reads a group's state. `configured` is the primary of a first start.
    ///
    /// # Errors
    /// The journals cannot be read at all; a damaged one keeps the group fenced instead.
    pub fn read(store: &dyn Store, name: &str, configured: &str) -> Result<Self, BootError> {
        let mut lost = None;
        let (mut primary, mut identity, mut epoch) = (Region::new(configured), None, 0);
        let found = store.load(name);
        match &found {
            Found::FirstStart(reached) => epoch = reached.unwrap_or(0),
            Found::Lost(why) => lost = Some(why.clone()),
            Found::Record(record) => {
                epoch = record.epoch;
                match of_record(record) {
                    Ok((region, known)) => (primary, identity) = (region, known),
                    Err(why) => lost = Some(why),
                }
            }
        }
        let mut last: Option<(RunFacts, Vec<Record>)> = None;
        for (run, lines) in store.journals()? {
            match read_journal(&run, &lines) {
                Ok((facts, records)) if facts.started.group == name => {
                    epoch = epoch.max(facts.fence.map_or(0, |(_, fence)| fence.epoch));
                    if last
                        .as_ref()
                        .is_none_or(|(before, _)| follows(&facts, before))
                    {
                        last = Some((facts, records));
                    }
                }
                // Without its first record nothing was done in its name.
                Ok(_) => {}
                Err(_) if lines.is_empty() => {}
                Err(why) => {
                    lost = Some(format!(
                        "the journal of run {run} is damaged ({why}); the group stays fenced: look \
                         at both regions, then `writefencectl open-writes --primary R` decides"
                    ));
                }
            }
        }
        let (name, epoch) = (name.to_owned(), Epoch::new(epoch));
        Ok(Self {
            name,
            found,
            lost,
            primary,
            identity,
            epoch,
            last,
        })
    }

    /// The region and identity that the group starts with.
    #[must_use]
    pub fn accepted(&self) -> (&Region, Option<Identity>) {
        (&self.primary, self.identity)
    }

    /// The epoch to start the gate at.
    #[must_use]
    pub fn epoch(&self) -> Epoch {
        Epoch::new(self.epoch.value() + START_RAISES - 1)
    }

    /// Whether the accepted region is among these.
    ///
    /// # Errors
    /// [`BootError::UnknownRegion`] for a group whose primary left the configuration.
    pub fn check_regions(&self, regions: &[Target]) -> Result<(), BootError> {
        if regions.iter().any(|target| target.region == self.primary) {
            return Ok(());
        }
        Err(BootError::UnknownRegion {
            group: self.name.clone(),
            region: self.primary.to_string(),
        })
    }
}

/// What a group is built from beside its state.
pub struct GroupParts {
    /// The group with its gate at the boot's epoch.
    pub group: Arc<Group>,
    /// Where its state is kept.
    pub store: Arc<dyn Store>,
    /// Where its epochs are comparable: names barriers at the servers.
    pub scope: String,
    /// Times of fences and runs.
    pub settings: Settings,
    /// The user's hooks for this group.
    pub hooks: Vec<Hook>,
    /// The user's checks for this group.
    pub checks: Vec<Check>,
    /// The log of own backends.
    pub log: Arc<Incarnation>,
    /// What the predecessor left.
    pub left: Predecessor,
    /// The audit.
    pub trail: Trail,
    /// Everything started here is waited for at the end.
    pub tasks: Tasks,
    /// The end.
    pub stop: Shutdown,
}

/// A group whose control runs.
#[derive(Clone)]
pub struct Opened(pub(super) Arc<Desk>);

impl Opened {
    /// The group's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.0.group.name
    }

    /// Puts other settings in force, for the next fence and the next run.
    pub fn set_settings(&self, settings: Settings) {
        self.0.settings.store(Arc::new(settings));
    }
}

/// Starts a group's control: probes, then the phase that its state asks for.
///
/// # Errors
/// The phase cannot be stored.
pub async fn open(
    parts: GroupParts,
    mut boot: Boot,
    login: impl Fn(&Target) -> ObserverLogin,
    means: impl Fn(&Target) -> Means,
) -> Result<Opened, BootError> {
    let targets = Arc::clone(&parts.group.targets);
    let observer = Arc::new(Observer::new(parts.scope.clone(), targets, login, means));
    let desk = desk(&parts, &mut boot, Arc::clone(&observer) as Arc<dyn Servers>);
    for line in observer.lines() {
        let (own, other) = (Arc::clone(&desk), Arc::clone(&desk));
        let interval = move || own.settings.load().interval;
        let suspected = move || {
            other
                .group
                .sessions
                .totals
                .unexpected_read_only
                .load(Ordering::Relaxed)
        };
        parts.tasks.spawn(watch(
            Arc::clone(line),
            interval,
            suspected,
            parts.stop.clone(),
        ));
    }
    begin(&desk, boot, &parts).await?;
    Ok(Opened(desk))
}

/// The same for a group without a database.
///
/// # Errors
/// The phase cannot be stored.
pub async fn open_origins(
    parts: GroupParts,
    mut boot: Boot,
    plan: OriginsPlan,
) -> Result<Opened, BootError> {
    let targets = Arc::clone(&parts.group.targets);
    let servers = Arc::new(Origins::new(plan, targets));
    let desk = desk(&parts, &mut boot, Arc::clone(&servers) as Arc<dyn Servers>);
    for place in servers.places() {
        let own = Arc::clone(&desk);
        let interval = move || own.settings.load().interval;
        let watched = origins::watch(
            Arc::clone(&servers),
            Arc::clone(place),
            interval,
            parts.stop.clone(),
        );
        parts.tasks.spawn(watched);
    }
    begin(&desk, boot, &parts).await?;
    Ok(Opened(desk))
}

/// Builds the desk; nothing runs yet.
pub(crate) fn desk(parts: &GroupParts, boot: &mut Boot, servers: Arc<dyn Servers>) -> Arc<Desk> {
    let group = Arc::clone(&parts.group);
    let regions: Vec<Region> = group
        .targets
        .regions()
        .iter()
        .map(|target| target.region.clone())
        .collect();
    let book = Book::new(
        Arc::clone(&parts.store),
        parts.trail.clone(),
        boot.last.take(),
    );
    let leftover = Arc::new(Leftover::new(
        parts.left.clone(),
        &regions,
        Arc::clone(&parts.log),
    ));
    let decided = match &boot.found {
        Found::Record(_) => boot.lost.is_none(),
        Found::FirstStart(_) | Found::Lost(_) => false,
    };
    let tasks = parts.tasks.clone();
    let actor = Actor::new(
        Arc::clone(&group),
        Arc::clone(&parts.store),
        Arc::clone(&book),
        tasks.clone(),
        decided,
    );
    let tally = Arc::<Tally>::default();
    let drains = Drains::new(
        Arc::clone(&group),
        Arc::clone(&leftover),
        Arc::clone(&servers),
        tasks.clone(),
        Arc::clone(&tally),
    );
    Arc::new(Desk {
        group,
        settings: ArcSwap::from_pointee(parts.settings.clone()),
        hooks: parts.hooks.clone(),
        checks: parts.checks.clone(),
        kept: ArcSwap::default(),
        servers,
        book,
        actor,
        drains,
        leftover,
        tasks,
        tally,
        board: Board::default(),
        tripwire: Tripwire::default(),
        moved: ArcSwap::from_pointee(clock::now()),
        baseline: std::sync::Mutex::default(),
        notice: ArcSwap::from_pointee(None),
        trouble: ArcSwap::from_pointee(None),
        verbs: Mutex::default(),
        halt: tokio::sync::watch::Sender::new(false),
    })
}

/// Brings the group to its first phase and starts what watches over it.
///
/// # Errors
/// The phase cannot be stored.
pub(crate) async fn begin(
    desk: &Arc<Desk>,
    boot: Boot,
    parts: &GroupParts,
) -> Result<(), BootError> {
    let first = Epoch::new(boot.epoch.value() + START_RAISES);
    mark_interrupted(desk).await;
    let live = desk.book.live();
    if let Some(why) = &boot.lost {
        tracing::error!(group = %boot.name, why, "state lost, fenced");
        desk.notice.store(Arc::new(Some(why.clone())));
        // Nothing is written over what is damaged: a person may still want to read it.
        desk.group.gate.set_epoch_at_least(first);
    } else {
        match &boot.found {
            Found::FirstStart(_) => {
                desk.group.gate.set_epoch_at_least(first);
                desk.actor.store_start(StoredPhase::New, first).await?;
                watch_first_start(desk, parts);
            }
            Found::Record(record) => match start::after_restart(record, live.as_ref()) {
                Begin::Open => open_again(desk, first).await,
                Begin::Fenced(why) => {
                    desk.group.gate.set_epoch_at_least(first);
                    desk.actor.store_start(StoredPhase::Fenced, first).await?;
                    desk.notice.store(Arc::new(why));
                }
            },
            Found::Lost(_) => {}
        }
    }
    watch_over(desk, parts);
    if desk
        .book
        .live()
        .is_some_and(|facts| facts.state == RunState::Aborting)
    {
        // Decided before the restart: a successor that finds it goes on with it.
        launch(desk, Job::Back, Asked::default(), vec![]);
    }
    Ok(())
}

/// A run that was under way waits for its operator.
async fn mark_interrupted(desk: &Desk) {
    let Some(live) = desk.book.live() else { return };
    let Some(state) = run_after_restart(live.state) else {
        return;
    };
    if let Err(error) = desk.book.note(Fact::State { state, error: None }).await {
        tracing::error!(run = %live.run, %error, "the interrupted run cannot be marked");
    }
}

/// Opens where it was open, unless another server answers there by now. One that does not answer
/// is no reason to stay fenced: nothing can be written to it.
async fn open_again(desk: &Arc<Desk>, first: Epoch) {
    desk.group
        .gate
        .set_epoch_at_least(Epoch::new(first.value() - 1));
    let accepted = desk.group.targets.accepted();
    let (region, wanted) = (
        &accepted.region,
        accepted.identity.map_or(Wanted::First, Wanted::Same),
    );
    let looked =
        tokio::time::timeout(FIRST_LOOK, desk.servers.check(region, wanted, None, None)).await;
    if let Ok(Err(error)) = looked
        && error.code == Code::IdentityMismatch
    {
        refuse_server(desk, &error).await;
        return;
    }
    if let Err(error) = desk.actor.open_again().await {
        tracing::error!(group = %desk.group.name, %error, "not opened");
        desk.notice.store(Arc::new(Some(error.message)));
    }
}

async fn refuse_server(desk: &Desk, error: &ApiError) {
    let text = format!("{error}; writes stay fenced, `open-writes --primary R` decides");
    tracing::error!(group = %desk.group.name, text, "not the accepted primary");
    desk.notice.store(Arc::new(Some(text)));
    let why = error.to_string();
    if let Err(error) = desk.actor.trip(&why).await {
        tracing::error!(group = %desk.group.name, %error, "the fence is not durable");
    }
}

/// Asks all regions until they have all answered once, and opens if they agree.
fn watch_first_start(desk: &Arc<Desk>, parts: &GroupParts) {
    let (desk, mut stop) = (Arc::clone(desk), parts.stop.clone());
    parts.tasks.spawn(async move {
        loop {
            if desk.actor.is_decided() || desk.book.live().is_some() {
                return;
            }
            match try_first_start(&desk).await {
                FirstStart::Open => return,
                FirstStart::NotYet(text) => desk.notice.store(Arc::new(Some(text))),
                FirstStart::Never(text) => {
                    tracing::error!(group = %desk.group.name, text, "fenced");
                    desk.notice.store(Arc::new(Some(text)));
                    return;
                }
            }
            // Both arms may be dropped: a sleep and a look at a flag.
            tokio::select! {
                () = sleep(ASK_AGAIN) => {}
                () = stop.stopping() => return,
            }
        }
    });
}

async fn try_first_start(desk: &Arc<Desk>) -> FirstStart {
    // An operator's `open-writes` may be deciding at this moment.
    let _verbs = desk.verbs.lock().await;
    let primary = desk.accepted();
    let targets = desk.group.targets.regions();
    let asked = targets.iter().map(|target| async {
        (
            target.region.clone(),
            desk.servers.observe(&target.region).await.ok(),
        )
    });
    let seen = futures_util::future::join_all(asked).await;
    let verdict = match desk.servers.has_database() {
        true => start::first_start(&primary, &seen),
        false => {
            let told = desk.servers.driver().is_some();
            start::first_start_of_origins(&primary, &seen, told)
        }
    };
    if verdict != FirstStart::Open || desk.actor.is_decided() || desk.book.live().is_some() {
        return verdict;
    }
    let own = seen.iter().find(|(region, _)| *region == primary);
    if let Some((_, Some(own))) = own {
        unknown::note_life(desk, &primary, own);
    }
    let opened = async {
        let checked = desk
            .servers
            .check(&primary, Wanted::First, None, None)
            .await?;
        desk.actor.open_first(checked).await
    };
    match opened.await {
        Ok(_) => {
            desk.notice.store(Arc::new(None));
            tracing::info!(group = %desk.group.name, primary = %primary, "first start: writes pass");
            FirstStart::Open
        }
        Err(error) => FirstStart::NotYet(format!("first start: {error}")),
    }
}

/// Starts what lasts as long as the daemon.
fn watch_over(desk: &Arc<Desk>, parts: &GroupParts) {
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { unknown::watch(&own, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { unknown::sample(&own, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { nearby::keep(&own, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { own.leftover.watch(&*own.servers, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { watch_identity(&own, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { readiness::watch(&own, stop).await });
    let (own, stop) = (Arc::clone(desk), parts.stop.clone());
    parts
        .tasks
        .spawn(async move { tripwire::watch(&own, stop).await });
}

/// Fences when another server answers in the accepted region: one that was never accepted must not
/// be written to, whoever put it there.
async fn watch_identity(desk: &Arc<Desk>, mut stop: Shutdown) {
    while !stop.is_stopping() {
        // Both arms may be dropped: a sleep and a look at a flag.
        tokio::select! {
            () = sleep(ASK_AGAIN) => {}
            () = stop.stopping() => return,
        }
        let accepted = desk.group.targets.accepted();
        let Some(identity) = accepted.identity else {
            continue;
        };
        if desk.actor.is_fenced() || desk.book.is_working() {
            continue;
        }
        let Some(seen) = desk.servers.seen(&accepted.region) else {
            continue;
        };
        let Some(known) = seen.known().filter(|o| o.role == Some(Role::Primary)) else {
            continue;
        };
        let other_system = known
            .system_identifier
            .is_some_and(|id| id != identity.system_identifier);
        let other_timeline = known.timeline.is_some_and(|t| t != identity.timeline);
        if !other_system && !other_timeline {
            continue;
        }
        // Asked once more, by the same rules by which it was accepted: the probe may have been made
        // while the target changed.
        let _verbs = desk.verbs.lock().await;
        let again = desk
            .servers
            .check(&accepted.region, Wanted::Same(identity), None, None)
            .await;
        let unchanged = desk.group.targets.accepted().identity == Some(identity);
        if let Err(error) = again
            && error.code == Code::IdentityMismatch
            && unchanged
            && !desk.book.is_working()
        {
            refuse_server(desk, &error).await;
        }
    }
}

/// Which of two runs is the one that counts: a live one before any that has ended, then the later.
/// Run ids do not decide: two of one moment differ only by chance.
fn follows(run: &RunFacts, before: &RunFacts) -> bool {
    let rank = |facts: &RunFacts| (!facts.state.is_final(), facts.started_at);
    rank(run) > rank(before)
}

/// A journal's lines as facts and records.
pub(crate) fn read_journal(run: &str, lines: &[String]) -> Result<(RunFacts, Vec<Record>), String> {
    let mut records = Vec::new();
    for (n, line) in lines.iter().enumerate() {
        let record = serde_json::from_str::<Record>(line);
        records.push(record.map_err(|e| format!("line {}: {e}", n + 1))?);
    }
    let facts = fold(&records).map_err(|e| chain(&e))?;
    if facts.run == run {
        Ok((facts, records))
    } else {
        Err(format!("it is of run {}", facts.run))
    }
}
