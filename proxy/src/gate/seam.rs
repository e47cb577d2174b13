//! The seam through which the proofs plant a fault in the gate.
//!
//! A proof is worth something only if it fails on a wrong gate. So the places where the gate's
//! safety hangs on one decision ask this seam whether that decision is to be taken wrongly. In
//! every build but the gate's own tests the seam is empty, its answer is a constant `false`, and
//! nothing is left of it in the program; the proofs run the very code that serves.

/// A fault that some proof must notice; `super::model` says which.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mutant {
    /// Admission looks at the phase before it counts itself.
    LookBeforeCount,
    /// Acquire and release where the order of two different words matters.
    AcquireRelease,
    /// The drain is told before the count falls.
    NotifyBeforeDecrement,
    /// A held write that was called passes without looking again.
    WokenIsAdmitted,
    /// A permit dropped by a panic is released twice.
    DoubleReleaseOnPanic,
    /// A lost permit leaves the count before it enters `unknown`.
    UncountBeforeUnknown,
    /// A drain reads `unknown` before the count.
    UnknownReadFirst,
    /// A drain says `drained` while outcomes are unknown.
    DrainedIgnoresUnknown,
    /// The gate opens, and that is answered, before the open record is durable.
    OpenAnsweredBeforeFsync,
    /// The fence record is made durable before the gate closes.
    FsyncBeforeFence,
}

/// Asked at each such place; knows no fault unless a test planted one.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Seam {
    #[cfg(test)]
    planted: Option<Mutant>,
}

impl Seam {
    /// With this fault, or with none.
    #[cfg(test)]
    pub(super) const fn with(planted: Option<Mutant>) -> Self {
        Self { planted }
    }

    /// Whether the decision is to be taken wrongly here.
    #[cfg(test)]
    pub(super) fn has(self, mutant: Mutant) -> bool {
        self.planted == Some(mutant)
    }

    /// Never: this build has no faults to plant.
    #[cfg(not(test))]
    #[inline(always)]
    pub(super) const fn has(self, _: Mutant) -> bool {
        false
    }
}

#[cfg(not(test))]
const _: () = assert!(
    size_of::<Seam>() == 0,
    "the seam must leave nothing in the program"
);
