//! The order of a phase change and its durable record.
//!
//! Close in memory first, then fsync, then answer; opening is fsync first. So what was answered
//! survives a crash, and memory is never more open than the disk: a daemon that dies at any
//! instant comes up fenced or in a phase that was durable before a single write passed in it.
//! How a record is stored is the caller's matter; when, is fixed here.

use std::sync::Arc;

use futures_util::FutureExt;

use super::{
    Gate,
    epoch::Epoch,
    phase::{Answer, Lane, Phase},
    plan::Plan,
    seam::Mutant,
};

/// What must be durable about the gate.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Record {
    /// Phase of the group: fenced as soon as one lane is, so that a restart errs on that side.
    pub phase: Phase,
    /// Its epoch.
    pub epoch: Epoch,
}

/// A phase change that was not made, or not made durable. The gate is fenced.
#[derive(Debug, thiserror::Error)]
pub enum DurableError<E> {
    /// The record was not stored.
    #[error("the record of {phase:?} at epoch {epoch} was not stored; the gate stays fenced")]
    NotStored {
        /// Phase in the record.
        phase: Phase,
        /// Epoch in the record.
        epoch: Epoch,
        /// What the store said.
        source: E,
    },
    /// While the open record was being stored the gate was fenced again.
    #[error("overtaken by epoch {found} while opening at epoch {epoch}; the gate stays fenced")]
    Overtaken {
        /// Epoch under which the gate was to open.
        epoch: Epoch,
        /// Epoch found.
        found: Epoch,
    },
}

/// Fences `lanes` in memory, then stores the record, then returns. `store` returns when the record
/// is on disk.
///
/// # Errors
/// The record was not stored: the lanes are fenced in memory all the same, but a restart may not
/// know, so the fence must not be reported as standing.
pub async fn fence_durably<F, E>(
    gate: &Arc<Gate>,
    lanes: &[Lane],
    answer: Answer,
    plan: Plan,
    store: impl FnOnce(Record) -> F,
) -> Result<Epoch, DurableError<E>>
where
    F: Future<Output = Result<(), E>>,
{
    let phase = Phase::Fenced(answer);
    if gate.seam.has(Mutant::FsyncBeforeFence) {
        let epoch = gate.epoch().next();
        stored(Record { phase, epoch }, store).await?;
        return Ok(gate.fence(lanes, answer, plan));
    }
    let epoch = gate.fence(lanes, answer, plan);
    stored(Record { phase, epoch }, store).await?;
    Ok(epoch)
}

/// Stores the record of an open gate, then opens all lanes, then returns.
///
/// # Errors
/// The record was not stored, or another phase change came in between; the gate stays fenced.
pub async fn open_durably<F, E>(
    gate: &Arc<Gate>,
    store: impl FnOnce(Record) -> F,
) -> Result<Epoch, DurableError<E>>
where
    F: Future<Output = Result<(), E>>,
{
    let seen = gate.epoch();
    let epoch = seen.next();
    let record = Record {
        phase: Phase::Open,
        epoch,
    };
    if gate.seam.has(Mutant::OpenAnsweredBeforeFsync) {
        let opened = gate.open();
        let _in_the_background = stored(record, store).now_or_never();
        return Ok(opened);
    }
    stored(record, store).await?;
    gate.open_if(seen)
        .map_err(|found| DurableError::Overtaken { epoch, found })
}

async fn stored<F, E>(
    record: Record,
    store: impl FnOnce(Record) -> F,
) -> Result<(), DurableError<E>>
where
    F: Future<Output = Result<(), E>>,
{
    let Record { phase, epoch } = record;
    store(record)
        .await
        .map_err(|source| DurableError::NotStored {
            phase,
            epoch,
            source,
        })
}
