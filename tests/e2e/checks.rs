//! Checks of the user's, before and after a move, and the dry run that touches nothing.

use anyhow::{Result, ensure};
use serde_json::Value;
use writefence_tests::postgres::skipped;

use crate::support::Pair;

fn steps(run: &Value, step: &str) -> Value {
    let all = run["steps"].as_array().cloned().unwrap_or_default();
    all.into_iter()
        .find(|one| one["name"] == step)
        .unwrap_or_default()
}

fn finding(step: &Value, name: &str) -> String {
    let all = step["findings"].as_array().cloned().unwrap_or_default();
    let found = all.iter().find(|finding| finding["name"] == name);
    found
        .map(|f| format!("{} {}", f["level"], f["sentence"]))
        .unwrap_or_default()
}

#[tokio::test]
async fn a_stale_primary_stops_a_move_before_the_fence() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let checks =
        "[[check]]\nname = \"fresh\"\nat = \"before\"\nsql = \"SELECT 600\"\nmost = \"5m\"\n";
    let pair = Pair::start(|options| options.extra = checks.to_owned()).await?;
    let epoch = pair.group().await?["epoch"].clone();
    let run = pair
        .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let message = run["error"]["message"].to_string();
    ensure!(message.contains("a says 600, more than 300 s"), "{run:#}");
    ensure!(pair.group().await?["epoch"] == epoch, "it was fenced");
    Ok(())
}

#[tokio::test]
async fn the_last_id_and_a_history_are_compared_across_the_move() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let checks = "[[check]]\nname = \"last-id\"\nat = \"after\"\nkeeps = true\n\
                  sql = \"SELECT count(*) FROM t\"\n\
                  [[check]]\nname = \"gone\"\nat = \"before\"\ncommand = [\"false\"]\nfails = true\n\
                  times = 3\nevery = \"10ms\"\n\
                  [[check]]\nname = \"quick\"\nat = \"after\"\nsql = \"SELECT 1\"\np99 = \"1m\"\ntimes = 20\n\
                  every = \"1ms\"\n";
    let pair = Pair::start(|options| options.extra = checks.to_owned()).await?;
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1), (2)")
        .await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let (before, after) = (steps(&run, "preflight"), steps(&run, "verify"));
    let last = finding(&after, "check_last-id");
    ensure!(
        last.contains("b says 2, before the promotion it was 2"),
        "{last}\n{run:#}"
    );
    ensure!(
        finding(&before, "check_gone").starts_with("\"pass\""),
        "{before:#}"
    );
    ensure!(finding(&after, "check_quick").contains("p99"), "{after:#}");
    Ok(())
}

#[tokio::test]
async fn a_check_that_fails_after_the_move_ends_it_with_7_and_writes_pass() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let checks = "[[check]]\nname = \"order\"\nat = \"after\"\ncommand = [\"sh\", \"-c\", \"echo 500 >&2; exit 1\"]\n\
                  [[check]]\nname = \"reads-only\"\nat = \"after\"\non_failure = \"continue\"\n\
                  sql = \"INSERT INTO t VALUES (9)\"\n";
    let pair = Pair::start(|options| options.extra = checks.to_owned()).await?;
    let run = pair
        .ctl(7, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(
        run["error"]["message"]
            .to_string()
            .contains("check order failed"),
        "{run:#}"
    );
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    ensure!(pair.rows(&pair.b).await? == "1", "a check has written");
    Ok(())
}

#[tokio::test]
async fn a_dry_run_shows_every_step_and_touches_nothing() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let hook =
        "[[hook]]\nname = \"dns\"\nat = \"after_promote\"\ncommand = [\"/nowhere\", \"x\"]\n";
    let pair = Pair::start(|options| options.extra = hook.to_owned()).await?;
    let before = pair.group().await?;
    for kind in ["switchover", "failover"] {
        let mut args = vec![kind, "--to", "b", "--reason", "x", "--dry-run"];
        if kind == "failover" {
            args.extend(["--accept-loss", "--confirm"]);
        }
        let found = pair.ctl(0, &args).await?;
        let plan = &found["plan"];
        let steps = plan["steps"].as_array().cloned().unwrap_or_default();
        ensure!(plan["kind"] == kind && steps.len() == 14, "{plan:#}");
        let text = plan.to_string();
        for command in [
            "pg_promote(false)",
            "default_transaction_read_only",
            "/nowhere x",
        ] {
            ensure!(text.contains(command), "{command} is not in {plan:#}");
        }
    }
    let after = pair.group().await?;
    ensure!(
        after["epoch"] == before["epoch"] && after["run"].is_null(),
        "{after:#}"
    );
    ensure!(pair.b.in_recovery().await?);
    Ok(())
}
