//! The barrier: closes a reachable old primary to everybody but our own walled sessions.
//!
//! Read-only by default for every transaction to come, and an end for every foreign session that
//! is there. Neither replicates, so the candidate is not touched, and walsenders are left alone, so
//! it goes on receiving. Raising and lifting may be repeated; each compares the server's identity
//! and the marker of whoever was here before, under a lock (see `marker`, `lock`).
//!
//! What it is not: a session may still ask for READ WRITE by itself. That is why sessions are
//! ended, why the passes go on until no transaction id moves, and why `stands` looks again right
//! before the point of no return.

use std::time::Duration;

use super::clear::{self, Cleared, Foreign, OwnBackend};
use super::error::BarrierError;
use super::lock::{self, Meant, Setting};
use super::lost::NextXid;
use super::marker::{self, Claim, LiftWork, Marker, MarkerState, Token};
use crate::upstream::wire::Client;
use crate::upstream::wire::rows::text;
use crate::upstream::{Identity, Need, PREPARED, Prepared, ServerTime, missing_grants};

/// What a barrier is raised for.
#[derive(Clone, Debug)]
pub struct Plan<'a> {
    /// On whose behalf.
    pub token: &'a Token,
    /// The old primary that is meant.
    pub identity: Identity,
    /// Whether a barrier of another scope may be overruled.
    pub claim: Claim,
    /// Process ids of the observer's other connections; this one is never ended anyway.
    pub observers: &'a [i32],
    /// The bound of each wait: for the lock, for the reload, for the end of foreign sessions.
    pub bound: Duration,
}

/// The evidence: nobody but walled sessions of ours is left.
#[derive(Clone, Debug)]
pub struct Closed {
    /// Since when new sessions are read-only by default.
    pub since: ServerTime,
    /// Sessions that were ended.
    pub ended: Vec<Foreign>,
    /// How often the server was looked through.
    pub passes: u32,
    /// Prepared transactions. They outlive every session and can be committed by nobody for now;
    /// after the promotion they exist on the new primary.
    pub prepared: Vec<Prepared>,
    /// Roles and databases whose own setting stands above the barrier's, as
    /// `role r in database d: setting`. Their sessions are ended like all others, but new ones
    /// could write.
    pub overrides: Vec<String>,
}

/// What a lift found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Lifted {
    /// A barrier stood and is lifted.
    Lifted,
    /// There was none, or it was lifted before.
    Already,
}

/// Raises the barrier and returns when it holds.
///
/// `own` is asked anew in every pass, after the server was looked at, so that a session of ours
/// that has just logged in is known by then.
///
/// # Errors
/// See [`BarrierError`]. After an error the setting may be in force; `lift` undoes it.
pub async fn raise(
    client: &mut Client,
    plan: &Plan<'_>,
    own: &(dyn Fn() -> Vec<OwnBackend> + Send + Sync),
) -> Result<Closed, BarrierError> {
    demand_rights(client).await?;
    let entered = lock::enter(
        client,
        Meant::Primary(plan.identity),
        plan.claim,
        plan.bound,
    )
    .await;
    let raised = match entered {
        Ok(before) => raise_locked(client, plan, &before, own).await,
        Err(error) => Err(error),
    };
    unlock(client, raised).await
}

async fn raise_locked(
    client: &mut Client,
    plan: &Plan<'_>,
    before: &Setting,
    own: &(dyn Fn() -> Vec<OwnBackend> + Send + Sync),
) -> Result<Closed, BarrierError> {
    marker::may_raise(before.marker.as_deref(), plan.token, plan.claim)?;
    let mark = Marker {
        state: MarkerState::Standing,
        token: plan.token.clone(),
    }
    .to_string();
    // The marker first: a crash in between leaves a marker without a barrier, which a lift clears,
    // rather than a closed primary that nobody owns up to.
    let mut statements = Vec::new();
    if before.marker.as_ref() != Some(&mark) {
        statements.extend(mark_statements(&mark));
    }
    statements.push("ALTER SYSTEM SET default_transaction_read_only = on".to_owned());
    statements.extend(lock::RELOAD.map(str::to_owned));
    // While the server does as it is told, others are looked for, and told to end.
    statements.push(OVERRIDES.to_owned());
    let statements: Vec<_> = statements.iter().map(String::as_str).collect();
    let mut cleared = Cleared::default();
    let mut answers = clear::sweep(client, &statements, plan.observers, &mut cleared, own).await?;
    let overrides = answers.pop().unwrap_or_default();
    let loaded = lock::loaded_before(answers);
    let (after, since) = lock::await_reload(client, loaded, plan.bound).await?;
    after.demand(true)?;
    demand_marker(&after, &mark)?;
    let (observers, bound) = (plan.observers, plan.bound);
    clear::foreign_sessions(client, observers, since, bound, &mut cleared, own).await?;
    let prepared = lock::batch(client, &[PREPARED]).await?.pop();
    let prepared = prepared
        .unwrap_or_default()
        .iter()
        .map(crate::upstream::read_prepared)
        .collect::<Option<_>>();
    Ok(Closed {
        since,
        ended: cleared.ended,
        passes: cleared.passes,
        prepared: prepared.ok_or_else(|| client.answer_error("pg_prepared_xacts"))?,
        overrides: overrides
            .iter()
            .filter_map(|row| text(row, 0).map(str::to_owned))
            .collect(),
    })
}

/// Checks that the barrier of `token` still stands: the identity, the
/// marker, the setting, that nobody foreign from before `since` (see [`Closed`]) is left, and that
/// no transaction id was given out after `next_xid` (see [`FenceLsn`](super::FenceLsn)). The last
/// point finds a session that came after the barrier, asked for READ WRITE by itself, and wrote. Who
/// is found late and has written nothing is ended as by `raise`, and looked for again.
///
/// # Errors
/// See [`BarrierError`].
pub async fn stands(
    client: &mut Client,
    plan: &Plan<'_>,
    since: ServerTime,
    next_xid: NextXid,
    own: &(dyn Fn() -> Vec<OwnBackend> + Send + Sync),
) -> Result<(), BarrierError> {
    match stands_now(client, plan, since, next_xid, own).await {
        // A login that had begun when the barrier was raised, and that the server did not show yet.
        Err(BarrierError::Foreign(found)) if found.0.iter().all(|one| one.xid.is_none()) => {
            let (observers, bound, mut late) = (plan.observers, plan.bound, Cleared::default());
            clear::foreign_sessions(client, observers, since, bound, &mut late, own).await?;
            stands_now(client, plan, since, next_xid, own).await
        }
        found => found,
    }
}

async fn stands_now(
    client: &mut Client,
    plan: &Plan<'_>,
    since: ServerTime,
    next_xid: NextXid,
    own: &(dyn Fn() -> Vec<OwnBackend> + Send + Sync),
) -> Result<(), BarrierError> {
    let before = [lock::IDENTITY, lock::SETTING];
    let (answers, pass) =
        clear::look_after(client, &before, plan.observers, since, false, own).await?;
    let [Some(identity), Some(setting)] = [0, 1].map(|n| answers.get(n).and_then(|r| r.first()))
    else {
        return Err(lock::unreadable(client));
    };
    lock::check_identity(identity, plan.identity)?;
    let setting = Setting::parse(setting).ok_or_else(|| lock::unreadable(client))?;
    marker::stands(setting.marker.as_deref(), plan.token)?;
    setting.demand(true)?;
    clear::demand_none(pass, next_xid)
}

/// Lifts the barrier of `token`, or an older one of the same scope. May be repeated.
///
/// # Errors
/// See [`BarrierError`]; after one the barrier may still stand.
pub async fn lift(
    client: &mut Client,
    token: &Token,
    identity: Identity,
    claim: Claim,
    bound: Duration,
) -> Result<Lifted, BarrierError> {
    let entered = lock::enter(client, Meant::Primary(identity), claim, bound).await;
    let lifted = match entered {
        Ok(_) => lift_locked(client, token, claim, bound).await,
        Err(error) => Err(error),
    };
    unlock(client, lifted).await
}

async fn lift_locked(
    client: &mut Client,
    token: &Token,
    claim: Claim,
    bound: Duration,
) -> Result<Lifted, BarrierError> {
    // A holder that died between writing the file and loading it has left more than can be seen.
    let (before, _) = lock::reload(client, &[], bound).await?;
    if marker::may_lift(before.marker.as_deref(), token, claim)? == LiftWork::Nothing {
        return Ok(Lifted::Already);
    }
    let mark = Marker {
        state: MarkerState::Lifted,
        token: token.clone(),
    }
    .to_string();
    // The setting first: a crash in between leaves a standing marker, and the lift is repeated.
    let mut statements = vec!["ALTER SYSTEM RESET default_transaction_read_only"];
    let marking = mark_statements(&mark);
    statements.extend(marking.iter().map(String::as_str));
    let (after, _) = lock::reload(client, &statements, bound).await?;
    after.demand(false)?;
    demand_marker(&after, &mark)?;
    Ok(Lifted::Lifted)
}

/// Makes sure, before a new primary is opened, that its own default lets transactions write. An
/// old postgresql.auto.conf survives a rejoin and is copied by a base backup, so a barrier that
/// once stood elsewhere may be found here: it is lifted if its marker says it is ours.
///
/// # Errors
/// `NotOurs` when the setting is on for another reason; else see [`BarrierError`].
pub async fn ensure_writable_setting(
    client: &mut Client,
    token: &Token,
    identity: Identity,
    claim: Claim,
    bound: Duration,
) -> Result<Lifted, BarrierError> {
    lock::look_at_identity(client, identity).await?;
    let setting = Setting::read(client).await?;
    if !setting.on {
        return Ok(Lifted::Already);
    }
    let lifted = match setting.marker {
        Some(_) => lift(client, token, identity, claim, bound).await?,
        None => Lifted::Already,
    };
    let after = Setting::read(client).await?;
    if after.on {
        return Err(BarrierError::NotOurs {
            from: after.source,
            file: after.file,
        });
    }
    Ok(lifted)
}

/// As `ensure_writable_setting`, on a standby of the cluster `system_identifier` that is about to be
/// promoted, so that lifting is no part of the write gap. It takes no writes until then.
///
/// # Errors
/// See [`BarrierError`]; nothing is lost by one, since the promoted server is looked at again.
pub async fn clear_standby(
    client: &mut Client,
    token: &Token,
    system_identifier: u64,
    claim: Claim,
    bound: Duration,
) -> Result<Lifted, BarrierError> {
    if !Setting::read(client).await?.on {
        return Ok(Lifted::Already);
    }
    let meant = Meant::Standby(system_identifier);
    let entered = lock::enter(client, meant, claim, bound).await;
    let lifted = match entered {
        Ok(Setting { marker: None, .. }) => Ok(Lifted::Already),
        Ok(_) => lift_locked(client, token, claim, bound).await,
        Err(error) => Err(error),
    };
    unlock(client, lifted).await
}

async fn demand_rights(client: &mut Client) -> Result<(), BarrierError> {
    let grants = missing_grants(client, &[Need::Barrier]).await?;
    if grants.is_empty() {
        Ok(())
    } else {
        Err(BarrierError::Privilege { grants })
    }
}

/// Gives the lock back whatever the outcome was. If even that fails the session is broken, and the
/// lock ends with it.
async fn unlock<T>(
    client: &mut Client,
    outcome: Result<T, BarrierError>,
) -> Result<T, BarrierError> {
    let released = client.query(lock::RELEASE).await;
    let value = outcome?;
    released?;
    Ok(value)
}

/// Writes the marker into postgresql.auto.conf. A parameter nobody defined can be altered only
/// where the session knows it, hence SET; RESET lets the session follow the file again.
fn mark_statements(mark: &str) -> [String; 3] {
    [
        "SET writefence.barrier = ''".to_owned(),
        format!("ALTER SYSTEM SET writefence.barrier = '{mark}'"),
        "RESET writefence.barrier".to_owned(),
    ]
}

fn demand_marker(setting: &Setting, mark: &str) -> Result<(), BarrierError> {
    match setting.marker.as_deref() {
        Some(found) if found == mark => Ok(()),
        found => Err(marker::Held {
            marker: found.unwrap_or("none").to_owned(),
        }
        .into()),
    }
}

const OVERRIDES: &str = "SELECT format('role %s in database %s: %s', \
       coalesce(r.rolname, 'any'), coalesce(d.datname, 'any'), c) \
     FROM pg_db_role_setting AS s CROSS JOIN unnest(s.setconfig) AS c \
     LEFT JOIN pg_roles AS r ON r.oid = s.setrole \
     LEFT JOIN pg_database AS d ON d.oid = s.setdatabase \
     WHERE c LIKE 'default_transaction_read_only=%' ORDER BY 1";
