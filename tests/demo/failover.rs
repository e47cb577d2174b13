//! An unplanned failover: every process of the primary is killed under load.

use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use writefence_tests::Relay;
use writefence_tests::eventually::pause;
use writefence_tests::ledger::Window;

use crate::act::{Act, Loss, Promise};
use crate::stage::Stage;
use crate::switchover::run_document;
use crate::tell;

/// Load after the move; clients have to connect again.
const AFTER: Duration = Duration::from_millis(1500);

/// How far the second region is away, in one direction, when replication is asynchronous. On
/// loopback the standby would be so close that there were nothing to lose.
const DISTANCE: Duration = Duration::from_millis(40);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Replication {
    Synchronous,
    Asynchronous,
}

pub(crate) async fn perform(stage: &mut Stage, replication: Replication) -> Result<Act> {
    let (what, promise) = match replication {
        Replication::Synchronous => (
            "Primary killed, synchronous replication,",
            Promise::NothingAcknowledgedLost,
        ),
        Replication::Asynchronous => (
            "Primary killed, asynchronous replication,",
            Promise::StatedLoss,
        ),
    };
    let title = stage.next(what);
    tell::title(&title);
    let relay = prepare(stage, replication).await?;
    let load = stage.clients().await?;
    let from = load.now();
    let name = stage.primary().name().to_owned();
    let begin = Instant::now();
    stage.pair[0].kill()?;
    if let Some(relay) = &relay {
        // The cable goes with the region: what is under way does not arrive.
        relay.cut();
    }
    tell::done(&format!("every process of {name} killed under load"), begin);
    let to = stage.standby().name();
    let args = [
        "failover",
        "--to",
        to,
        "--reason",
        "demo",
        "--accept-loss",
        "--confirm",
    ];
    let answer = stage.daemon.ctl(&args).await.context(title.clone())?;
    let command = answer.took;
    let run = run_document(stage, answer.ok().context(title.clone())?.json).await?;
    pause(AFTER).await;
    let window = Window {
        from,
        to: load.now(),
    };
    drop(relay);
    stage.rejoin().await?;
    let history = load.stop().await?;
    let report = stage
        .ledger
        .check(&history, window, stage.primary(), None)
        .await?;
    let mut act = Act::new(title, promise, command, &run, report);
    let told = stage.daemon.ctl(&["report", "--format", "json"]).await?;
    act.loss = Loss::of(&told.ok()?.json["loss"]);
    tell::figures(&act.lines());
    Ok(act)
}

/// Synchronous: commits wait for the standby's disk. Asynchronous: the standby is moved away.
async fn prepare(stage: &Stage, replication: Replication) -> Result<Option<Relay>> {
    let (primary, standby) = (stage.primary(), stage.standby());
    match replication {
        Replication::Synchronous => {
            primary.synchronous(true).await?;
            tell::note("every commit waits for the standby's disk");
            Ok(None)
        }
        Replication::Asynchronous => {
            primary.synchronous(false).await?;
            // It has the setting from the time when it was the primary, unless the rejoining copied
            // the other's configuration; promoted, it would wait for a standby that is gone.
            standby.synchronous(false).await?;
            let relay = Relay::start(primary.port()).await?;
            standby.stream_through(primary, relay.port()).await?;
            relay.delay(DISTANCE);
            let distance = DISTANCE.as_millis();
            tell::note(&format!(
                "the standby is {distance} ms away and commits don't wait for it"
            ));
            Ok(Some(relay))
        }
    }
}
