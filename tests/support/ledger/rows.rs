//! What a server holds of one load: its rows, counted per client-made id.

use std::collections::HashMap;
use std::pin::pin;

use anyhow::{Context, Result};
use futures_util::TryStreamExt;

use super::op::Id;
use super::shape::Shape;
use crate::postgres::{Cluster, SUPERUSER};

/// How often each part of each id is there. An id that is absent has no row at all.
#[derive(Debug, Default)]
pub struct Rows(HashMap<Id, Vec<i64>>);

impl Rows {
    /// Reads the rows of load `run` from a server, standby or primary.
    ///
    /// # Errors
    /// The server doesn't answer, or holds a row that no ledger wrote.
    pub async fn read(cluster: &Cluster, run: i32) -> Result<Self> {
        let client = cluster.connect(SUPERUSER, super::DATABASE).await?;
        let sql = "SELECT shape, client, seq, part, count(*) FROM ledger \
                   WHERE run = $1 GROUP BY 1, 2, 3, 4";
        let mut stream = pin!(client.query_raw(sql, [run]).await?);
        let mut rows = Self::default();
        while let Some(row) = stream.try_next().await? {
            let shape = Shape::from_code(row.try_get(0)?).context("a row of an unknown shape")?;
            let id = Id {
                shape,
                client: row.try_get(1)?,
                seq: row.try_get(2)?,
            };
            rows.add(id, row.try_get(3)?, row.try_get(4)?);
        }
        Ok(rows)
    }

    /// Notes `count` rows of one part.
    pub fn add(&mut self, id: Id, part: i16, count: i64) {
        let parts = self.0.entry(id).or_default();
        let index = usize::try_from(part).unwrap_or_default();
        if parts.len() <= index {
            parts.resize(index + 1, 0);
        }
        parts[index] += count;
    }

    /// Whether any row of the id is there.
    #[must_use]
    pub fn has_any(&self, id: &Id) -> bool {
        self.0.contains_key(id)
    }

    /// Whether every part of the id is there.
    #[must_use]
    pub fn has_all(&self, id: &Id) -> bool {
        let wanted = usize::try_from(id.shape.rows()).unwrap_or_default();
        self.0
            .get(id)
            .is_some_and(|parts| parts.iter().filter(|n| **n > 0).count() >= wanted)
    }

    /// Ids of which a part is there more than once.
    pub fn doubled(&self) -> impl Iterator<Item = Id> {
        self.0
            .iter()
            .filter(|(_, parts)| parts.iter().any(|n| *n > 1))
            .map(|(id, _)| *id)
    }

    /// Ids of which some parts are there and some are not.
    pub fn torn(&self) -> impl Iterator<Item = Id> {
        self.0.keys().filter(|id| !self.has_all(id)).copied()
    }
}
