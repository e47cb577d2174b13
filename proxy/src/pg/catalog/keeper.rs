//! Keeps the catalogs of a group's databases: read when a database's first session comes, read again
//! from time to time, never on the way of a statement.
//!
//! A change that a session of ours makes is known at once, one made elsewhere at the next reading.

use std::sync::Arc;
use std::time::Duration;

use super::load::{self, Answer};
use super::settle::{Unsettled, settle};
use super::shelf::{Catalog, Catalogs, Proof, Shelf};
use crate::clock;
use crate::gate::{Lane, Phase};
use crate::group::Group;
use crate::pg::classify::with_room;
use crate::pg::replay::chain;
use crate::shutdown::Shutdown;
use crate::upstream::Target;
use crate::upstream::wire::{Client, LoginError, QueryError};

/// Between two readings of a database. Shorter asks more of the server, longer leaves more time in
/// which an object made elsewhere is not known.
const AGAIN: Duration = Duration::from_secs(30);

/// A catalog that could not be read again for so long says nothing any more: three readings missed.
const STALE: Duration = Duration::from_secs(95);

/// Between two readings where nothing is known or something has changed: a migration makes many
/// changes.
const AT_MOST: Duration = Duration::from_millis(500);

/// Between two attempts to read once more behind a fence: a drain waits for it.
const PROOF: Duration = Duration::from_millis(20);

/// Between two looks whether only readers are left behind a fence.
const LOOK: Duration = Duration::from_millis(5);

/// Why a catalog could not be had.
#[derive(Debug, thiserror::Error)]
enum LoadError {
    #[error("the observer could not log in")]
    Login(#[source] LoginError),
    #[error("the observer could not read its tables")]
    Query(#[source] QueryError),
    #[error("nothing could be concluded")]
    Settle(#[source] Unsettled),
    #[error("the reading was broken off")]
    Broken,
}

/// Reads until the daemon stops.
pub async fn keep(group: Arc<Group>, mut stop: Shutdown) {
    loop {
        let mut pause = AT_MOST;
        for (database, shelf) in group.catalogs.all() {
            // Looked at before the reading begins: what is read then is what stands behind the
            // fence.
            let fence = fence(&group);
            // Nothing changes behind a fence, but what it found in flight may need a proof.
            // Behind a fence statements wait for the first reading.
            let hurry = fence.is_some() && shelf.is_awaited();
            let soon = if hurry { PROOF } else { AT_MOST };
            let wanted = fence.and_then(|epoch| shelf.wanted(epoch));
            if wanted.is_some() {
                pause = LOOK;
            }
            let proof = wanted.filter(|_| only_readers(&group));
            let due = match (fence, proof) {
                (Some(_), Some(_)) => shelf.is_due(soon, Some(PROOF)),
                (Some(_), None) => shelf.is_due(soon, None),
                (None, _) => shelf.is_due(AT_MOST, Some(AGAIN)),
            };
            if due {
                tokio::select! {
                    // May be dropped: the connection ends with it.
                    () = read(&group, &database, &shelf, fence, proof) => {}
                    () = stop.stopping() => return,
                }
            }
        }
        tokio::select! {
            // All may be dropped: whoever rings leaves a mark that is looked at above.
            () = group.catalogs.rung() => {}
            () = tokio::time::sleep(pause) => {}
            () = stop.stopping() => return,
        }
    }
}

/// The epoch of the fence that stands.
fn fence(group: &Group) -> Option<u64> {
    let look = group.gate.look(Lane::Sql);
    (look.phase != Phase::Open).then(|| look.epoch.value())
}

/// Whoever may write may commit another definition of what a statement in flight is about to name:
/// it is judged when nobody is left but those that wait to be.
fn only_readers(group: &Group) -> bool {
    // First: behind a fence no permit is made, so each that is counted is a reader's or another's.
    let in_flight = group.gate.in_flight(Lane::Sql);
    let readers = group.sessions.waiting_readers();
    readers.is_some_and(|readers| in_flight <= readers)
}

async fn read(
    group: &Group,
    database: &str,
    shelf: &Shelf,
    fence: Option<u64>,
    proof: Option<Proof>,
) {
    let began = clock::now();
    shelf.reading(began);
    let target = group.targets.accepted();
    match load(&group.catalogs, &target, database, shelf).await {
        Ok(Some(catalog)) => shelf.put(catalog, began),
        Ok(None) => shelf.confirm(began),
        Err(error) => {
            let why = chain(&error);
            tracing::debug!(database, error = %why, "the catalog could not be read");
            let stale = shelf.unread_since(began) > STALE && fence.is_none();
            if stale || shelf.catalog().model().is_none() {
                shelf.empty(&why);
            }
            return;
        }
    }
    if let Some(proof) = proof {
        shelf.proved(proof);
        group.sessions.wake();
    }
}

/// `None`: nothing has changed.
async fn load(
    catalogs: &Catalogs,
    target: &Target,
    database: &str,
    shelf: &Shelf,
) -> Result<Option<Catalog>, LoadError> {
    let how = catalogs.login(target, database);
    let connected = Client::connect(&target.endpoint, &how).await;
    let mut client = connected.map_err(LoadError::Login)?;
    let _reader = catalogs.readers.reads(&target.region, client.pid());
    client.set_timeout(Duration::from_secs(20));
    let answer = load::ask(&mut client).await.map_err(LoadError::Query)?;
    let fingerprint = answer.fingerprint();
    if shelf.holds(fingerprint) {
        return Ok(None);
    }
    conclude(answer, fingerprint).await.map(Some)
}

async fn conclude(answer: Answer, fingerprint: u64) -> Result<Catalog, LoadError> {
    let settled = tokio::task::spawn_blocking(move || with_room(|| settle(&answer.facts())));
    let model = settled.await.ok().flatten().ok_or(LoadError::Broken)?;
    Ok(Catalog::of(model.map_err(LoadError::Settle)?, fingerprint))
}

/// The shelf of a database, read if it is empty; that of one without sessions only for this once.
pub async fn look_up(catalogs: &Catalogs, target: &Target, database: &str) -> Arc<Shelf> {
    let shelf = catalogs
        .find(database)
        .unwrap_or_else(|| Shelf::new(Catalog::missing("it is not read yet")));
    if shelf.catalog().model().is_none() {
        let began = clock::now();
        match load(catalogs, target, database, &shelf).await {
            Ok(Some(catalog)) => shelf.put(catalog, began),
            Ok(None) => {}
            Err(error) => shelf.empty(&chain(&error)),
        }
    }
    shelf
}
