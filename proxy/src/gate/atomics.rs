//! Which atomics and locks the gate stands on.
//!
//! The standard library's, except in the two proof builds: loom's (feature `loom-gate`) explore
//! memory orderings, shuttle's (feature `shuttle-gate`) explore interleavings. Both features act
//! in test builds only, so a build that serves cannot be switched by them.

#[cfg(all(test, feature = "loom-gate"))]
pub(super) use loom::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(all(test, feature = "shuttle-gate", not(feature = "loom-gate")))]
pub(super) use shuttle::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};
#[cfg(not(all(test, any(feature = "loom-gate", feature = "shuttle-gate"))))]
pub(super) use std::sync::{
    Mutex, MutexGuard,
    atomic::{AtomicU64, Ordering},
};

use std::sync::PoisonError;

/// Locks, also after a panic of another holder: no lock of the gate is held across code that may
/// leave its data half changed, and a fence must work whatever a session did.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
