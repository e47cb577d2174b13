//! Sessions of an earlier incarnation of this daemon that still run on the server.
//!
//! In-flight counts die with the process. After an unclean stop a statement of the predecessor may
//! still run, although nobody here counts it; so no drain may say `drained` before these functions
//! return nothing, or the barrier has ended them.

use super::lost::{BackendFate, Suspect, backend_fates};
use crate::upstream::ServerTime;
use crate::upstream::wire::rows::value;
use crate::upstream::wire::{Client, QueryError};

/// Which of the backends known to have been ours before `before` are still there. One that cannot
/// be seen well enough counts as there.
///
/// # Errors
/// See [`QueryError`].
pub async fn still_alive(
    client: &mut Client,
    pids: &[i32],
    before: ServerTime,
) -> Result<Vec<i32>, QueryError> {
    let suspect = |pid: &i32| Suspect {
        pid: *pid,
        seen_at: Some(before),
    };
    let suspects: Vec<_> = pids.iter().map(suspect).collect();
    let fates = backend_fates(client, &suspects).await?;
    let pairs = pids.iter().zip(fates);
    Ok(pairs
        .filter(|(_, fate)| *fate != BackendFate::Gone)
        .map(|(pid, _)| *pid)
        .collect())
}

/// All client sessions older than `before`, whoever they belong to, without the observer's own
/// connection: for when the predecessor left no list. One whose age cannot be seen counts as older.
///
/// # Errors
/// See [`QueryError`].
pub async fn older_clients(
    client: &mut Client,
    before: ServerTime,
) -> Result<Vec<i32>, QueryError> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND coalesce(backend_type, 'client backend') = 'client backend' \
         AND coalesce((extract(epoch FROM backend_start) * 1000000)::int8 < {}, true)",
        before.micros()
    );
    let rows = client.query(&sql).await?;
    let pids = rows
        .iter()
        .map(|row| value(row, 0))
        .collect::<Option<Vec<_>>>();
    pids.ok_or_else(|| client.answer_error("pid"))
}
