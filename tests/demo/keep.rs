//! `--keep`: the stage stays, with the lines to play with it.

use anyhow::Result;
use tokio::io::{AsyncBufReadExt, BufReader, stdin};
use writefence_tests::ledger::{DATABASE, USER};
use writefence_tests::postgres::SUPERUSER;

use crate::stage::Stage;
use crate::tell;

/// Stays until the input ends or a signal comes. Enter makes a former primary rejoin, which is
/// what a next switchover needs.
pub(crate) async fn up(stage: &mut Stage) -> Result<()> {
    tell::title("Still running, to play with");
    let port = stage.daemon.port();
    let ctl = stage.daemon.binaries().join("writefencectl");
    let ctl = format!(
        "{} --socket {}",
        ctl.display(),
        stage.daemon.socket().display()
    );
    println!("  through writefence   psql -h 127.0.0.1 -p {port} -U {USER} {DATABASE}");
    for cluster in &stage.pair {
        let (name, port) = (cluster.name(), cluster.port());
        println!(
            "  region {name} itself      psql -h 127.0.0.1 -p {port} -U {SUPERUSER} {DATABASE}"
        );
    }
    println!("  state                {ctl} status");
    println!(
        "  move the primary     {ctl} switchover --to {} --reason playing",
        stage.standby().name()
    );
    println!(
        "  metrics              curl http://127.0.0.1:{}/metrics",
        stage.daemon.admin_port()
    );
    println!(
        "\n  Enter: the former primary rejoins, for the next move.   Ctrl-C: stop everything."
    );
    let mut lines = BufReader::new(stdin()).lines();
    while lines.next_line().await?.is_some() {
        // Only where both are primaries there is one to bring back.
        if stage.standby().in_recovery().await.unwrap_or(false) {
            tell::note(&format!("{} follows already", stage.standby().name()));
        } else {
            stage.rejoin().await?;
        }
    }
    // No terminal: nobody can press anything, but a signal can still come.
    std::future::pending().await
}
