//! The ledger: clients of every shape that write down what they were told, and the proof
//! afterwards that it was true.
//!
//! Each write carries an id made by its client, in a table without a key, so that a doubled one
//! shows. Nothing is retried. After a move the checker compares: acknowledged ⊆ rows, no
//! duplicates, refused ∩ rows = ∅, nothing acknowledged only on the old primary. Gaps are what
//! clients saw, so they include everything between them and the database.

mod api;
mod client;
mod driver;
mod gap;
mod judge;
mod load;
mod op;
mod raw;
mod report;
mod rows;
mod session;
mod shape;
mod stateful;
#[cfg(test)]
mod tests;
mod wire;

use std::sync::atomic::{AtomicI32, Ordering};

use anyhow::Result;

pub use gap::{Gaps, Window, gaps, longest, ms};
pub use judge::{Findings, judge};
pub use load::{History, Load, Plan};
pub use op::{Failure, Id, Op, Outcome, Sent};
pub use report::{Report, ShapeReport, text_ms};
pub use rows::Rows;
pub use session::Endpoint;
pub use shape::Shape;

use crate::postgres::{Cluster, SUPERUSER};

/// The application's login: no superuser, so that nothing works only because it is one.
pub const USER: &str = "app";
/// The application's database.
pub const DATABASE: &str = "app";

/// The role that a client of shape `settings` writes in.
pub(crate) const WRITER: &str = "app_writer";

/// The tables on a cluster, and a count of the loads that ran on them.
#[derive(Debug)]
pub struct Ledger {
    runs: AtomicI32,
}

impl Ledger {
    /// Makes login, database and tables on a primary.
    ///
    /// # Errors
    /// The server refused.
    pub async fn create(primary: &Cluster) -> Result<Self> {
        // Each alone: CREATE DATABASE does not run in the transaction that several form.
        primary.query(&format!("CREATE ROLE {USER} LOGIN")).await?;
        primary
            .query(&format!("CREATE DATABASE {DATABASE} OWNER {USER}"))
            .await?;
        primary.query(&format!("CREATE ROLE {WRITER}")).await?;
        primary.query(&format!("GRANT {WRITER} TO {USER}")).await?;
        let client = primary.connect(SUPERUSER, DATABASE).await?;
        client
            .batch_execute(&format!(
                "SET ROLE {USER}; SET search_path = public;
                 RESET ROLE; GRANT ALL ON SCHEMA public TO {USER}; SET ROLE {USER};
                 CREATE TABLE ledger (run int4, shape int2, client int2, seq int4, part int2);
                 GRANT INSERT ON ledger TO {WRITER};
                 CREATE TABLE ledger_page (id int4 PRIMARY KEY, body text);
                 INSERT INTO ledger_page SELECT i, repeat('x', 100) FROM generate_series(0, 9) i"
            ))
            .await?;
        Ok(Self {
            runs: AtomicI32::new(0),
        })
    }

    /// Where the clients log in, through `port`.
    #[must_use]
    pub fn endpoint(port: u16) -> Endpoint {
        Endpoint {
            port,
            api: None,
            user: USER.to_owned(),
            database: DATABASE.to_owned(),
        }
    }

    /// Starts a load.
    ///
    /// # Errors
    /// Its thread can't be started.
    pub fn load(&self, plan: &Plan) -> Result<Load> {
        // A counter and nothing else: no other memory hangs on it.
        Load::start(plan, self.runs.fetch_add(1, Ordering::Relaxed) + 1)
    }

    /// Compares what the clients of a load were told with what the new primary holds, and with
    /// what only the old one holds, if it can still be asked.
    ///
    /// # Errors
    /// A server doesn't answer.
    pub async fn check(
        &self,
        history: &History,
        window: Window,
        new: &Cluster,
        old: Option<&Rows>,
    ) -> Result<Report> {
        let rows = Rows::read(new, history.run).await?;
        Ok(Report::new(
            history,
            window,
            judge(&history.ops, &rows, old),
        ))
    }
}
