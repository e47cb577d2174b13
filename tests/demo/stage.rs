//! What the demonstration stands on: two clusters, the daemon, the ledger.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use writefence_tests::eventually::pause;
use writefence_tests::ledger::{Load, Plan};
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, Ledger};

use crate::tell;

/// Load before the move, so that the table shows what this machine does by itself.
const QUIET: Duration = Duration::from_millis(1000);

pub(crate) struct Stage {
    // Dropped in this order: the daemon before what it watches.
    pub(crate) daemon: Daemon,
    pub(crate) ledger: Ledger,
    /// Primary first.
    pub(crate) pair: [Cluster; 2],
    /// Acts so far.
    pub(crate) acts: u32,
}

impl Stage {
    pub(crate) async fn set_up() -> Result<Self> {
        tell::title("Setting the stage");
        let begin = Instant::now();
        let options = Options::default();
        let a = Cluster::create("a", &options).await?;
        let ledger = Ledger::create(&a).await?;
        let b = a.standby("b").await?;
        let (pa, pb) = (a.port(), b.port());
        tell::done(
            &format!("PostgreSQL: primary a on port {pa}, standby b on {pb}"),
            begin,
        );
        let begin = Instant::now();
        let daemon = Daemon::start(DaemonOptions::new(&[&a, &b])).await?;
        daemon.wait_open().await.with_context(|| {
            format!(
                "the daemon's log:\n{}",
                writefence_tests::process::tail(&daemon.log())
            )
        })?;
        tell::done(
            &format!("writefence in front of them, on port {}", daemon.port()),
            begin,
        );
        Ok(Self {
            daemon,
            ledger,
            pair: [a, b],
            acts: 0,
        })
    }

    pub(crate) const fn primary(&self) -> &Cluster {
        &self.pair[0]
    }

    pub(crate) const fn standby(&self) -> &Cluster {
        &self.pair[1]
    }

    /// The title of the next act.
    pub(crate) fn next(&mut self, what: &str) -> String {
        self.acts += 1;
        let (from, to) = (self.primary().name(), self.standby().name());
        format!("{}. {what} {from} → {to}", self.acts)
    }

    /// Clients of every shape through the daemon, at work for a while.
    pub(crate) async fn clients(&self) -> Result<Load> {
        let load = self
            .ledger
            .load(&Plan::mixed(Ledger::endpoint(self.daemon.port())))?;
        load.warm().await?;
        pause(QUIET).await;
        Ok(load)
    }

    /// The standby has become primary; the former primary is rewound and follows it.
    pub(crate) async fn rejoin(&mut self) -> Result<()> {
        let begin = Instant::now();
        self.pair.reverse();
        let [primary, former] = &mut self.pair;
        former.rejoin(primary).await.with_context(|| {
            format!(
                "rejoin {}:\n{}",
                former.name(),
                writefence_tests::process::tail(former.log())
            )
        })?;
        former.wait_caught_up(primary).await?;
        tell::done(&format!("{} rejoined as standby", former.name()), begin);
        Ok(())
    }

    /// Copies the logs beside the report, where they outlive the stage.
    pub(crate) fn keep_logs(&self, out: &Path) -> Result<()> {
        let of_clusters = self
            .pair
            .iter()
            .map(|c| (c.log().to_owned(), format!("postgres-{}.log", c.name())));
        for (from, name) in of_clusters.chain([(self.daemon.log(), "daemon.log".to_owned())]) {
            fs::copy(&from, out.join(name)).with_context(|| format!("keep {}", from.display()))?;
        }
        Ok(())
    }
}
