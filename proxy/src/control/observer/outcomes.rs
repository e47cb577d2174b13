//! What became of backends and of their transactions.

use std::time::Duration;

use writefence_admin::api::{ApiError, Code};

use super::super::error::refused;
use super::super::line::Line;
use super::super::servers::{Older, Under};
use super::Observer;
use super::words::not_asked;
use crate::evidence;
use crate::evidence::{BackendFate, Life, Suspect, WriteFate, backend_fates, write_fates};
use crate::upstream::wire::QueryError;
use crate::upstream::wire::rows::value;
use crate::upstream::{Region, ServerTime};

impl Observer {
    pub(super) async fn running(
        &self,
        region: &Region,
        which: Older,
        age: Duration,
    ) -> Result<Vec<i32>, ApiError> {
        let line = self.line(region)?;
        let before = self.server_time(line, age).await?;
        let mut held = line.work().await?;
        let asked = match which {
            Older::Listed(pids) => evidence::still_alive(held.client(), &pids, before).await,
            Older::Any => running_clients(held.client(), before).await,
        };
        asked.map_err(|e| not_asked(region, &e))
    }

    pub(super) async fn suspects(
        &self,
        region: &Region,
        lost: Vec<(i32, Duration)>,
    ) -> Result<Vec<i32>, ApiError> {
        let line = self.line(region)?;
        let now = self.server_time(line, Duration::ZERO).await?;
        let suspects: Vec<Suspect> = lost
            .iter()
            .map(|(pid, age)| Suspect {
                pid: *pid,
                seen_at: Some(before(now, *age)),
            })
            .collect();
        let mut held = line.work().await?;
        let fates = backend_fates(held.client(), &suspects).await;
        let fates = fates.map_err(|e| not_asked(region, &e))?;
        let there = lost
            .iter()
            .zip(fates)
            .filter(|(_, fate)| *fate != BackendFate::Gone);
        Ok(there.map(|((pid, _), _)| *pid).collect())
    }

    pub(super) async fn looked_up(
        &self,
        region: &Region,
        under: Under,
        xids: Vec<u64>,
    ) -> Result<Vec<WriteFate>, ApiError> {
        let mut held = self.line(region)?.work().await?;
        let next = match under {
            Under::Successor(next) => next,
            Under::SameLife(life) => {
                let now = Life::read(held.client()).await;
                match now.map_err(|e| not_asked(region, &e))? {
                    Some((now, next)) if now == life => next,
                    Some(_) => return Ok(vec![WriteFate::Unresolvable; xids.len()]),
                    None => {
                        let text = format!("region {region} cannot tell: it is no primary");
                        return Err(refused(Code::Precondition, text));
                    }
                }
            }
        };
        // The same connection as above, so the same life.
        let fates = write_fates(held.client(), next, &xids).await;
        fates.map_err(|e| not_asked(region, &e))
    }

    /// The server's clock so long ago.
    async fn server_time(&self, line: &Line, ago: Duration) -> Result<ServerTime, ApiError> {
        let mut held = line.work().await?;
        let row = held
            .client()
            .row("SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::int8")
            .await
            .map_err(|e| not_asked(&line.region, &e))?;
        let now: i64 = value(&row, 0)
            .ok_or_else(|| refused(Code::TargetUnreachable, "the server does not tell its time"))?;
        let ago = i64::try_from(ago.as_micros()).unwrap_or(i64::MAX);
        Ok(ServerTime::from_micros(now.saturating_sub(ago)))
    }
}

/// Client sessions older than `before` that run something or are within a transaction. An idle one
/// cannot begin anything: its client's machine is the one that went down.
async fn running_clients(
    client: &mut crate::upstream::wire::Client,
    before: ServerTime,
) -> Result<Vec<i32>, QueryError> {
    let sql = format!(
        "SELECT pid FROM pg_stat_activity WHERE pid <> pg_backend_pid() \
         AND coalesce(backend_type, 'client backend') = 'client backend' \
         AND coalesce(state, 'unknown') <> 'idle' \
         AND coalesce((extract(epoch FROM backend_start) * 1000000)::int8 < {}, true)",
        before.micros()
    );
    let rows = client.query(&sql).await?;
    Ok(rows.iter().filter_map(|row| value(row, 0)).collect())
}

fn before(now: ServerTime, age: Duration) -> ServerTime {
    let age = i64::try_from(age.as_micros()).unwrap_or(i64::MAX);
    ServerTime::from_micros(now.micros().saturating_sub(age))
}
