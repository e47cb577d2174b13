//! A candidate and whatever promotes it: SQL, Patroni, or a program of the user's.
//!
//! Whoever promotes, the server itself is asked by SQL before and after. Before: it must be the
//! standby that was pinned, or nobody is asked to promote it. After: it counts as promoted when it
//! says so, not when somebody said that it would be. A request that was made is not taken back by
//! our giving up; asking again finds the server as it is then.

use std::time::Duration;

use futures_util::future::BoxFuture;
use tokio::time::{Instant, sleep};

use super::{Driver, DriverError, Pinned, Postgres, Promotion, command, patroni};
use crate::upstream::wire::Login;
use crate::upstream::{Endpoint, Mismatch, Observation, Region, Role};

/// Between two looks at a server that others promote.
const POLL: Duration = Duration::from_millis(20);

/// What promotes a region's server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// The plain statement.
    Postgres,
    /// Patroni's REST API.
    Patroni {
        /// Where it may be asked, in this order.
        urls: Vec<String>,
        /// The member's name; none: found by host and port.
        member: Option<String>,
    },
    /// A program.
    Command {
        /// With its arguments.
        words: Vec<String>,
        /// The group, for the program to know.
        group: String,
    },
}

/// See the module.
#[derive(Debug)]
pub struct Driven {
    region: Region,
    endpoint: Endpoint,
    means: Means,
    postgres: Postgres,
}

impl Driven {
    /// Names the server and what promotes it; logs in when it is first needed.
    pub fn new(region: Region, endpoint: Endpoint, means: Means, login: Login) -> Self {
        let postgres = Postgres::new(endpoint.clone(), login);
        Self {
            region,
            endpoint,
            means,
            postgres,
        }
    }

    /// Logs in ahead of time and asks what will be needed whether it is there.
    ///
    /// # Errors
    /// See [`DriverError`].
    pub async fn connect(&self) -> Result<Observation, DriverError> {
        match &self.means {
            Means::Postgres => self.postgres.connect().await,
            Means::Patroni { urls, member } => {
                patroni::known(urls, member.as_deref(), &self.endpoint).await?;
                self.postgres.observe().await
            }
            Means::Command { words, group } => {
                let call = self.call(group, words);
                command::observe(&call).await?;
                self.postgres.observe().await
            }
        }
    }

    fn call<'a>(&'a self, group: &'a str, words: &'a [String]) -> command::Call<'a> {
        command::Call {
            words,
            group,
            region: &self.region,
            endpoint: &self.endpoint,
        }
    }

    async fn by_others(&self, pinned: Pinned, until: Instant) -> Result<Promotion, DriverError> {
        let start = Instant::now();
        let seen = self.postgres.observe().await?;
        if seen.role == Some(Role::Primary) {
            return Ok(done(false, start, seen));
        }
        is_pinned(&seen, pinned)?;
        match &self.means {
            // Not come by here.
            Means::Postgres => {}
            Means::Patroni { urls, member } => {
                let member = member.as_deref();
                patroni::promote(urls, member, &self.endpoint, until).await?;
            }
            Means::Command { words, group } => {
                let call = self.call(group, words);
                command::promote(&call, pinned, until).await?;
            }
        }
        loop {
            // It may end our connection on its way, so a failed look is not the end of it.
            match self.postgres.observe().await {
                Ok(seen) if seen.role == Some(Role::Primary) => {
                    return Ok(done(true, start, seen));
                }
                Err(error) if Instant::now() >= until => return Err(error),
                Ok(_) if Instant::now() >= until => {
                    let after = start.elapsed();
                    return Err(DriverError::StillInRecovery { after });
                }
                Ok(_) | Err(_) => sleep(POLL).await,
            }
        }
    }
}

fn done(by_us: bool, start: Instant, observation: Observation) -> Promotion {
    Promotion {
        by_us,
        took: start.elapsed(),
        repeats: 0,
        observation,
    }
}

/// The condition that the plain statement carries to the server itself.
fn is_pinned(seen: &Observation, pinned: Pinned) -> Result<(), DriverError> {
    match seen.system_identifier {
        None => return Err(DriverError::OtherServer(Mismatch::IdentifierUnknown)),
        Some(found) if found != pinned.system_identifier => {
            let wanted = pinned.system_identifier;
            let mismatch = Mismatch::SystemIdentifier { found, wanted };
            return Err(DriverError::OtherServer(mismatch));
        }
        Some(_) => {}
    }
    if seen.timeline == Some(pinned.timeline) {
        return Ok(());
    }
    Err(DriverError::OtherTimeline {
        found: seen.timeline,
        wanted: pinned.timeline,
    })
}

impl Driver for Driven {
    fn observe(&self) -> BoxFuture<'_, Result<Observation, DriverError>> {
        self.postgres.observe()
    }

    fn promote(
        &self,
        pinned: Pinned,
        deadline: Instant,
    ) -> BoxFuture<'_, Result<Promotion, DriverError>> {
        match self.means {
            Means::Postgres => self.postgres.promote(pinned, deadline),
            Means::Patroni { .. } | Means::Command { .. } => {
                Box::pin(self.by_others(pinned, deadline))
            }
        }
    }
}
