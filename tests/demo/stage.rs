//! What the demonstration stands on: two clusters, the daemon, the ledger.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use writefence_tests::api::Api;
use writefence_tests::eventually::pause;
use writefence_tests::ledger::{Load, Plan};
use writefence_tests::ports::free_port;
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, HttpOptions, Ledger};

use crate::tell;

/// Load before the move, so that the table shows what this machine does by itself.
const QUIET: Duration = Duration::from_millis(1000);

pub(crate) struct Stage {
    // Dropped in this order: the daemon before what it watches.
    pub(crate) daemon: Daemon,
    /// An instance of a small API in each region, and the HTTP front's port before them.
    _apis: [Api; 2],
    front: u16,
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
        let origins = [free_port()?, free_port()?];
        let http = HttpOptions::new(&origins)?;
        let front = http.port;
        let mut options = DaemonOptions::new(&[&a, &b]);
        options.front = Some(http);
        let daemon = Daemon::start(options).await?;
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
        let database = Ledger::endpoint(daemon.port());
        let apis = [
            Api::start("a", origins[0], database.clone())?,
            Api::start("b", origins[1], database)?,
        ];
        tell::done(
            &format!(
                "an API in each region, on ports {} and {}, behind port {front}",
                apis[0].port(),
                apis[1].port()
            ),
            begin,
        );
        Ok(Self {
            daemon,
            _apis: apis,
            front,
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
        self.at_work(&Plan::mixed(Ledger::endpoint(self.daemon.port())))
            .await
    }

    /// The same, and clients of the API.
    pub(crate) async fn clients_and_api(&self) -> Result<Load> {
        let plan = Plan::mixed(Ledger::endpoint(self.daemon.port()));
        self.at_work(&plan.with_api(self.front)).await
    }

    async fn at_work(&self, plan: &Plan) -> Result<Load> {
        let load = self.ledger.load(plan)?;
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
