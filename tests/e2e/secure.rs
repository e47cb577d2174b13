//! What the tests of TLS and logins share: servers with certificates and passwords, libpq's programs.

use std::process::Output;

use anyhow::{Context, Result, ensure};
use writefence_tests::pki::{Pki, Valid};
use writefence_tests::postgres::Options;
use writefence_tests::{Cluster, Daemon, DaemonOptions, process};

/// The password of `app`.
pub(crate) const PASSWORD: &str = "pencil";

/// The servers ask `app` for its password over TLS only; the observer is let in.
const HBA: &str = "hostssl all app 127.0.0.1/32 scram-sha-256\nhost all app 127.0.0.1/32 reject\n";

/// Two servers that speak TLS, their CA, and the daemon.
pub(crate) struct Secure {
    pub(crate) daemon: Daemon,
    pub(crate) a: Cluster,
    pub(crate) b: Cluster,
    pub(crate) pki: Pki,
}

impl Secure {
    /// Starts it all. `tune` gets the CA, the verifier of `app`, and the options.
    pub(crate) async fn start(
        tune: impl FnOnce(&Pki, &str, &mut DaemonOptions) -> Result<()>,
    ) -> Result<Self> {
        let pki = Pki::new()?;
        pki.issue(
            "server",
            "localhost",
            &["localhost", "127.0.0.1"],
            Valid::Long,
        )?;
        pki.issue(
            "front",
            "localhost",
            &["localhost", "127.0.0.1"],
            Valid::Long,
        )?;
        let a = Cluster::create(
            "a",
            &Options {
                settings: pki.server("server"),
                hba: HBA.to_owned(),
                ..Options::default()
            },
        )
        .await?;
        a.query("CREATE TABLE t (a int)").await?;
        a.query(&format!("CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'"))
            .await?;
        a.query("GRANT ALL ON t TO app").await?;
        let verifier = a
            .value("SELECT rolpassword FROM pg_authid WHERE rolname = 'app'")
            .await?;
        let b = a.standby("b").await?;
        let mut options = DaemonOptions::new(&[&a, &b]);
        options.region = format!("tls.ca = {:?}", pki.path("ca.pem"));
        tune(&pki, &verifier, &mut options)?;
        let daemon = Daemon::start(options).await?;
        daemon
            .wait_open()
            .await
            .with_context(|| process::tail(&daemon.log()))?;
        Ok(Self { daemon, a, b, pki })
    }

    /// `tls.*` of a listener with the certificate `front`.
    pub(crate) fn front(pki: &Pki) -> String {
        let (cert, key) = (pki.path("front.pem"), pki.path("front.key"));
        format!("tls.cert = {cert:?}\ntls.key = {key:?}\n")
    }

    /// A listener that verifies `app` by SCRAM over TLS.
    pub(crate) fn scram(pki: &Pki, verifier: &str, options: &mut DaemonOptions) -> Result<()> {
        let users = pki.secret("users.txt", &format!("\"app\" \"{verifier}\"\n"))?;
        options.listen = format!(
            "auth = \"scram\"\nusers_file = {users:?}\n{}",
            Self::front(pki)
        );
        Ok(())
    }

    /// Runs a query through the daemon with psql. `with` are connection parameters.
    pub(crate) async fn psql(&self, with: &str, sql: &str) -> Result<Output> {
        let mut command = self.a.program("psql");
        let ca = self.pki.path("ca.pem");
        let base = format!(
            "host=localhost hostaddr=127.0.0.1 port={} dbname=postgres user=app password={PASSWORD} \
             sslrootcert={} connect_timeout=10 {with}",
            self.daemon.port(),
            ca.display()
        );
        command.args(["-X", "-A", "-t", "-q", "-d", &base, "-c", sql]);
        let command = tokio::process::Command::from(command)
            .kill_on_drop(true)
            .output();
        command.await.context("run psql")
    }

    /// What psql answers, which has to go well.
    pub(crate) async fn answer(&self, with: &str, sql: &str) -> Result<String> {
        let output = self.psql(with, sql).await?;
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        ensure!(
            output.status.success(),
            "{with}: {said}\n{}",
            process::tail(&self.daemon.log())
        );
        Ok(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    }

    /// What psql says, which has to go wrong.
    pub(crate) async fn refusal(&self, with: &str) -> Result<String> {
        let output = self.psql(with, "SELECT 1").await?;
        ensure!(!output.status.success(), "{with}: it was let in");
        Ok(String::from_utf8_lossy(&output.stderr).into_owned())
    }
}
