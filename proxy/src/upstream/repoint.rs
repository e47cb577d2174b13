//! What must be true of a server before it becomes the target: the check, and its proof.
//!
//! `CheckedTarget` exists only as the result of a check of a fresh observation. It compares; it
//! never asks the server itself, so the same rules can be tested as a table.

use super::error::Mismatch;
use super::probe::{Observation, Role};
use super::timeline::Timeline;
use super::{History, Identity, Lsn, Target};
use crate::gate::Drained;

/// Proof that no write is in flight towards the target that is left. A trait, because a drain of
/// this process is not the only such proof: a fleet's certificate is another.
pub trait NothingInFlight {}

impl NothingInFlight for Drained {}

/// Whether the operator has accepted that acknowledged writes may be missing.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Loss {
    /// The new primary must be shown to have everything up to the fence.
    Refused,
    /// It need not; the gap is measured and reported.
    Accepted,
}

/// As what a server is to be accepted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wanted {
    /// The group's first primary: nothing to compare with.
    First,
    /// The primary in force, reopened: the same identity.
    Same(Identity),
    /// A server promoted in place of the primary in force.
    Successor {
        /// The identity in force.
        of: Identity,
        /// Everything acknowledged lies before it; `None` when the old primary could not be asked.
        fence_lsn: Option<Lsn>,
        /// Whether a gap is acceptable.
        loss: Loss,
    },
}

impl Wanted {
    /// The identity in force that this wish starts from.
    pub const fn old(&self) -> Option<Identity> {
        match self {
            Self::First => None,
            Self::Same(identity) | Self::Successor { of: identity, .. } => Some(*identity),
        }
    }
}

/// A target whose observation passed the check; `Targets` puts nothing else in force.
#[derive(Debug)]
pub struct CheckedTarget {
    wanted: Wanted,
    target: Target,
    identity: Option<Identity>,
}

impl CheckedTarget {
    /// A region without a database: nothing there tells who it is, so there is nothing to compare,
    /// and it gets no identity. Only the seam of groups without databases asks for this.
    pub fn without_database(target: &Target) -> Self {
        Self {
            wanted: Wanted::First,
            target: target.clone(),
            identity: None,
        }
    }

    /// Compares a fresh observation of `target` with what is wanted. `history` is the history of
    /// the observed timeline, `None` when it could not be read.
    ///
    /// # Errors
    /// The first thing that does not fit, with what was found and what was wanted.
    pub fn check(
        target: &Target,
        seen: &Observation,
        history: Option<&History>,
        wanted: Wanted,
    ) -> Result<Self, Mismatch> {
        if seen.endpoint != target.endpoint {
            let (found, wanted) = (seen.endpoint.clone(), target.endpoint.clone());
            return Err(Mismatch::OtherServer { found, wanted });
        }
        match seen.role {
            Some(Role::Primary) => {}
            Some(Role::Standby) => return Err(Mismatch::InRecovery),
            None => return Err(Mismatch::RoleUnknown),
        }
        let identity = Identity {
            system_identifier: seen.system_identifier.ok_or(Mismatch::IdentifierUnknown)?,
            timeline: seen.timeline.ok_or(Mismatch::TimelineUnknown)?,
            fork_lsn: history.and_then(History::start),
        };
        match wanted {
            Wanted::First => {}
            Wanted::Same(old) => check_same(old, identity)?,
            Wanted::Successor {
                of,
                fence_lsn,
                loss,
            } => {
                check_system(of, identity)?;
                check_higher(of, identity, loss)?;
                check_fork(of.timeline, history, fence_lsn, loss)?;
            }
        }
        match seen.default_read_only() {
            Some(false) => Ok(Self {
                wanted,
                target: target.clone(),
                identity: Some(identity),
            }),
            Some(true) => Err(Mismatch::ReadOnly),
            None => Err(Mismatch::ReadOnlyUnknown),
        }
    }

    /// The identity that was found; none where there is no database.
    pub const fn identity(&self) -> Option<Identity> {
        self.identity
    }

    /// The target that was checked.
    pub const fn target(&self) -> &Target {
        &self.target
    }

    pub(super) fn into_parts(self) -> (Wanted, Target, Option<Identity>) {
        (self.wanted, self.target, self.identity)
    }
}

fn check_system(old: Identity, new: Identity) -> Result<(), Mismatch> {
    let (found, wanted) = (new.system_identifier, old.system_identifier);
    if found == wanted {
        Ok(())
    } else {
        Err(Mismatch::SystemIdentifier { found, wanted })
    }
}

fn check_same(old: Identity, new: Identity) -> Result<(), Mismatch> {
    check_system(old, new)?;
    if new.timeline != old.timeline {
        return Err(Mismatch::Timeline {
            found: new.timeline,
            wanted: old.timeline,
        });
    }
    match (new.fork_lsn, old.fork_lsn) {
        (Some(found), Some(wanted)) if found != wanted => Err(Mismatch::Fork { found, wanted }),
        _ => Ok(()),
    }
}

/// A returning old primary is refused here. With accepted loss an equal number is let through if
/// the fork points differ: after the loss of the newer primary, the older one promoted again takes
/// the same number and is nevertheless another primary.
fn check_higher(old: Identity, new: Identity, loss: Loss) -> Result<(), Mismatch> {
    let forked_anew = match (new.fork_lsn, old.fork_lsn) {
        (Some(found), Some(was)) => found != was,
        (None, _) | (_, None) => false,
    };
    let twin = loss == Loss::Accepted && new.timeline == old.timeline && forked_anew;
    if new.timeline > old.timeline || twin {
        return Ok(());
    }
    Err(Mismatch::TimelineNotHigher {
        found: new.timeline,
        old: old.timeline,
    })
}

/// Without accepted loss the new timeline must descend from the old one, and must have left it at
/// or after the fence LSN.
fn check_fork(
    old: Timeline,
    history: Option<&History>,
    fence_lsn: Option<Lsn>,
    loss: Loss,
) -> Result<(), Mismatch> {
    if loss == Loss::Accepted {
        return Ok(());
    }
    let Some(history) = history else {
        return fence_lsn.map_or(Ok(()), |wanted| Err(Mismatch::ForkUnknown { wanted }));
    };
    let found = history
        .left(old)
        .ok_or(Mismatch::OtherLineage { wanted: old })?;
    match fence_lsn {
        Some(wanted) if found < wanted => Err(Mismatch::ForkBeforeFence { found, wanted }),
        _ => Ok(()),
    }
}
