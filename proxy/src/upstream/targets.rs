//! Which target is accepted, which one is the candidate, and which regions there are.
//!
//! Readers take one atomic load and no lock. Writers are few (control, one at a time) and go
//! through a mutex, so that serials cannot be given out twice.

use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use arc_swap::{ArcSwap, ArcSwapOption};

use super::error::{RepointError, UnknownRegion};
use super::repoint::{CheckedTarget, NothingInFlight};
use super::{Identity, Region, Target};

/// The targets of one group.
#[derive(Debug)]
pub struct Targets {
    accepted: ArcSwap<Target>,
    candidate: ArcSwapOption<Target>,
    regions: Vec<Arc<Target>>,
    last_serial: Mutex<u64>,
    version: AtomicU64,
}

impl Targets {
    /// Starts with `accepted` as the target in force, under the identity that durable state holds
    /// (`None` on the first start).
    ///
    /// # Errors
    /// The accepted region is not among the targets.
    pub fn new(
        regions: Vec<Target>,
        accepted: &Region,
        identity: Option<Identity>,
    ) -> Result<Self, UnknownRegion> {
        let regions: Vec<_> = regions.into_iter().map(Arc::new).collect();
        let start = find(&regions, accepted)?;
        let start = Target {
            identity,
            serial: 1,
            ..Target::clone(&start)
        };
        Ok(Self {
            accepted: ArcSwap::from_pointee(start),
            candidate: ArcSwapOption::empty(),
            regions,
            last_serial: Mutex::new(1),
            version: AtomicU64::new(0),
        })
    }

    /// The target in force. One atomic load.
    pub fn accepted(&self) -> Arc<Target> {
        self.accepted.load_full()
    }

    /// The serial of the target in force, without counting a reference.
    pub fn serial(&self) -> u64 {
        self.accepted.load().serial
    }

    /// Rises with every change, so that sessions see with one load whether there was any.
    pub fn version(&self) -> u64 {
        self.version.load(Ordering::SeqCst)
    }

    /// The target that sessions may be logged in to ahead of a promotion.
    pub fn candidate(&self) -> Option<Arc<Target>> {
        self.candidate.load_full()
    }

    /// All regions as configured, in file order; without identity, serial 0.
    pub fn regions(&self) -> &[Arc<Target>] {
        &self.regions
    }

    /// The configured target of a region.
    ///
    /// # Errors
    /// There is no such region.
    pub fn region(&self, region: &Region) -> Result<Arc<Target>, UnknownRegion> {
        find(&self.regions, region)
    }

    /// Names the candidate, or none. Naming the one in force again keeps its serial, so that
    /// sessions already logged in to it stay good.
    ///
    /// # Errors
    /// There is no such region.
    pub fn set_candidate(&self, region: Option<&Region>) -> Result<(), UnknownRegion> {
        let mut last = self
            .last_serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let Some(region) = region else {
            self.candidate.store(None);
            self.changed();
            return Ok(());
        };
        if self
            .candidate
            .load()
            .as_ref()
            .is_some_and(|target| target.region == *region)
        {
            return Ok(());
        }
        let target = find(&self.regions, region)?;
        *last += 1;
        self.candidate.store(Some(Arc::new(Target {
            serial: *last,
            ..Target::clone(&target)
        })));
        self.changed();
        Ok(())
    }

    // After the change itself: who sees the new version sees the change too.
    fn changed(&self) {
        self.version.fetch_add(1, Ordering::SeqCst);
    }

    /// Puts a checked target in force. Only with proof that nothing is in flight towards the old
    /// one: a session that still waits for an answer there would otherwise report a write done
    /// that the new primary does not have.
    ///
    /// The serial stays when nothing changed for sessions: the same primary reopened, or the
    /// candidate they were already logged in to. The candidate is cleared when it was taken.
    ///
    /// # Errors
    /// The target was checked against another identity than the one in force by now.
    pub fn repoint(
        &self,
        _proof: &impl NothingInFlight,
        checked: CheckedTarget,
    ) -> Result<Arc<Target>, RepointError> {
        self.put_in_force(checked)
    }

    /// Gives the target in force its first identity, before any permit could have been issued.
    ///
    /// # Errors
    /// An identity is in force already, or the check was made for another region.
    pub fn establish(&self, checked: CheckedTarget) -> Result<Arc<Target>, RepointError> {
        let old = self.accepted();
        match old.identity {
            Some(identity) => Err(RepointError::Established { identity }),
            None => self.put_in_force(checked),
        }
    }

    fn put_in_force(&self, checked: CheckedTarget) -> Result<Arc<Target>, RepointError> {
        let mut last = self
            .last_serial
            .lock()
            .unwrap_or_else(PoisonError::into_inner);
        let old = self.accepted.load_full();
        let (wanted, target, identity) = checked.into_parts();
        if wanted.old() != old.identity {
            return Err(RepointError::Overtaken {
                checked: wanted.old(),
                now: old.identity,
            });
        }
        let same_place =
            |other: &Target| other.region == target.region && other.endpoint == target.endpoint;
        let unmoved = old
            .identity
            .zip(identity)
            .is_none_or(|(was, is)| was.same_as(&is));
        let candidate = self.candidate.load_full();
        let serial = match candidate
            .as_deref()
            .filter(|candidate| same_place(candidate))
        {
            _ if same_place(&old) && unmoved => old.serial,
            Some(candidate) => candidate.serial,
            None => {
                *last += 1;
                *last
            }
        };
        let taken = candidate.is_some_and(|candidate| same_place(&candidate));
        let new = Arc::new(Target {
            identity,
            serial,
            ..target
        });
        self.accepted.store(Arc::clone(&new));
        // Last, so that a session logged in to the candidate sees it in one of the two places.
        if taken {
            self.candidate.store(None);
        }
        self.changed();
        Ok(new)
    }
}

fn find(regions: &[Arc<Target>], region: &Region) -> Result<Arc<Target>, UnknownRegion> {
    let found = regions.iter().find(|target| target.region == *region);
    found.cloned().ok_or_else(|| UnknownRegion {
        region: region.clone(),
    })
}
