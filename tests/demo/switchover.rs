//! A planned switchover: one command, under load, and the old primary rejoins under load as well.

use std::time::Duration;

use anyhow::{Context, Result};
use serde_json::Value;
use writefence_tests::eventually::pause;
use writefence_tests::ledger::{Load, Rows, Window};

use crate::act::{Act, Promise};
use crate::stage::Stage;
use crate::tell;

/// Load after the move, in which every client must have come back.
const AFTER: Duration = Duration::from_millis(1000);

/// What one command did.
pub(crate) struct Moved {
    pub(crate) window: Window,
    pub(crate) command: Duration,
    pub(crate) run: Value,
}

/// Moves the primary to the standby, and watches for a while.
pub(crate) async fn command(stage: &Stage, load: &Load, after: Duration) -> Result<Moved> {
    let from = load.now();
    let to = stage.standby().name();
    let answer = stage
        .daemon
        .ctl(&["switchover", "--to", to, "--reason", "demo"])
        .await?;
    let command = answer.took;
    let run = run_document(stage, answer.ok()?.json).await?;
    pause(after).await;
    Ok(Moved {
        window: Window {
            from,
            to: load.now(),
        },
        command,
        run,
    })
}

/// The run in an answer, or in `status` if the answer was of another kind.
pub(crate) async fn run_document(stage: &Stage, answer: Value) -> Result<Value> {
    if answer["steps"].is_array() || answer["run"]["steps"].is_array() {
        return Ok(answer);
    }
    stage.daemon.status().await
}

pub(crate) async fn perform(stage: &mut Stage) -> Result<Act> {
    let title = stage.next("Planned switchover, writes held,");
    tell::title(&title);
    let load = stage.clients_and_api().await?;
    let moved = command(stage, &load, AFTER).await.context(title.clone())?;
    // Asked before the rewind makes it forget; a barrier may have shut it, which is as good.
    let old = Rows::read(stage.primary(), load.run()).await.ok();
    stage.rejoin().await?;
    let history = load.stop().await?;
    let ledger = &stage.ledger;
    let report = ledger
        .check(&history, moved.window, stage.primary(), old.as_ref())
        .await?;
    let act = Act::new(
        title,
        Promise::NothingButAPause,
        moved.command,
        &moved.run,
        report,
    );
    tell::figures(&act.lines());
    Ok(act)
}
