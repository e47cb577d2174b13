//! Promotion by others: the user's program promotes, and the server itself is asked whether it did.

use std::fs;

use anyhow::{Result, ensure};
use serde_json::Value;
use writefence_tests::postgres::skipped;

use crate::former::program;
use crate::support::Pair;

/// A driver of which only what happens on `promote` differs; it writes down what it was asked.
async fn driven(folder: &std::path::Path, promote: &str, timeout: &str) -> Result<Pair> {
    let log = folder.join("asked");
    let lines = format!(
        "read -r ask; echo \"$ask\" >> {}\n\
         case $WRITEFENCE_VERB in\n\
         observe) echo '{{\"role\":\"standby\",\"identity\":\"db-b\"}}';;\n\
         promote) {promote};;\n\
         esac",
        log.display()
    );
    let driver = program(folder, "driver", &lines)?;
    Pair::start(|options| {
        options.driver = format!(
            "kind = \"command\"\ncommand = [\"sh\", \"{}\"]\ntimeout = \"{timeout}\"",
            driver.display()
        );
    })
    .await
}

/// What promotes `b` by hand.
fn by_hand(folder: &std::path::Path) -> String {
    format!(
        "sh {}/by-hand; echo '{{\"role\":\"primary\",\"identity\":\"db-b\"}}'",
        folder.display()
    )
}

fn write_by_hand(folder: &std::path::Path, pair: &Pair) -> Result<()> {
    let psql = format!(
        "PGOPTIONS= psql -q -h 127.0.0.1 -p {} -U postgres -d postgres -c 'SELECT pg_promote()' \
         > /dev/null\n",
        pair.b.port()
    );
    Ok(fs::write(folder.join("by-hand"), psql)?)
}

#[tokio::test]
async fn a_program_promotes_and_gets_the_pinned_candidate_as_json() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let pair = driven(folder.path(), &by_hand(folder.path()), "30s").await?;
    write_by_hand(folder.path(), &pair)?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(pair.group().await?["primary"] == "b");
    let asked = fs::read_to_string(folder.path().join("asked"))?;
    let last: Value = serde_json::from_str(asked.lines().last().unwrap_or_default())?;
    ensure!(last["verb"] == "promote" && last["region"] == "b", "{last}");
    ensure!(
        last["port"] == pair.b.port() && last["pinned"]["timeline"] == 1,
        "{last}"
    );
    Ok(())
}

#[tokio::test]
async fn a_failing_promotion_stands_still_with_3_and_goes_on_by_resume() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let pair = driven(folder.path(), &by_hand(folder.path()), "30s").await?;
    fs::write(
        folder.path().join("by-hand"),
        "echo quota exceeded >&2\nkill -9 $PPID\n",
    )?;
    let run = pair
        .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(run["error"]["code"] == "promotion_failed", "{run:#}");
    ensure!(
        run["state"] == "running" && run["step"] == "promote",
        "{run:#}"
    );
    // Behind the point of no return there is no way back, and nothing is opened.
    pair.ctl(3, &["abort"]).await?;
    ensure!(pair.group().await?["phase"] == "fenced");
    write_by_hand(folder.path(), &pair)?;
    pair.ctl(0, &["resume"]).await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    ensure!(pair.rows(&pair.b).await? == "1");
    Ok(())
}

#[tokio::test]
async fn a_program_that_promotes_another_server_is_found_out() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let another = "echo '{\"role\":\"primary\",\"identity\":\"db-c\"}'";
    let pair = driven(folder.path(), another, "5s").await?;
    let run = pair
        .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let message = run["error"]["message"].to_string();
    ensure!(
        message.contains("promoted db-c, the candidate was db-b"),
        "{message}"
    );
    ensure!(pair.b.in_recovery().await?);
    Ok(())
}

#[tokio::test]
async fn a_program_that_says_it_promoted_and_did_not_is_not_believed() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let lies = "echo '{\"role\":\"primary\",\"identity\":\"db-b\"}'";
    let pair = driven(folder.path(), lies, "5s").await?;
    let run = pair
        .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(
        run["error"]["message"]
            .to_string()
            .contains("still in recovery"),
        "{run:#}"
    );
    ensure!(pair.group().await?["phase"] == "fenced");
    Ok(())
}
