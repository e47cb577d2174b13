//! Hooks: each once, at its moment, and never more of a hindrance than it was declared to be.

use std::fs;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use writefence_tests::eventually::until;
use writefence_tests::postgres::skipped;

use crate::former::program;
use crate::support::Pair;

const SOON: Duration = Duration::from_secs(30);

const MOMENTS: [&str; 9] = [
    "before_fence",
    "after_drain",
    "before_promote",
    "after_promote",
    "before_open",
    "after_open",
    "rejoin",
    "on_abort",
    "on_failure",
];

/// A hook for each moment that writes it into `log`; `extra` lines of the shell come after it.
fn each(folder: &Path, extra: &str) -> Result<String> {
    let log = folder.join("log");
    let lines = format!(
        "echo \"$WRITEFENCE_MOMENT $WRITEFENCE_TO\" >> {}\n{extra}",
        log.display()
    );
    let tell = program(folder, "tell", &lines)?;
    let hook = |at: &str| {
        let name = at.replace('_', "-");
        format!(
            "[[hook]]\nname = \"{name}\"\nat = \"{at}\"\ncommand = [\"sh\", \"{}\"]\n",
            tell.display()
        )
    };
    Ok(MOMENTS.map(hook).concat())
}

fn told(folder: &Path) -> Vec<String> {
    let text = fs::read_to_string(folder.join("log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

fn exceptions(run: &Value) -> String {
    run["exceptions"].to_string()
}

#[tokio::test]
async fn each_moment_of_a_switchover_comes_once_and_in_order() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let hooks = each(folder.path(), "")?;
    let pair = Pair::start(|options| options.extra = hooks).await?;
    pair.ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let expected: Vec<String> = MOMENTS[..7].iter().map(|at| format!("{at} b")).collect();
    ensure!(told(folder.path()) == expected, "{:?}", told(folder.path()));
    Ok(())
}

#[tokio::test]
async fn a_hook_that_was_done_is_not_done_again_after_a_crash() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let hooks = each(folder.path(), "")?;
    let mut pair = Pair::start(|options| options.extra = hooks).await?;
    pair.daemon.stop().await?;
    pair.daemon
        .launch(&[("WRITEFENCE_STOP_AFTER", "hooks")])
        .await?;
    pair.daemon.wait_open().await?;
    let args = ["switchover", "--to", "b", "--reason", "x"];
    pair.daemon.ctl_to_its_end(&args).await?;
    pair.daemon.launch(&[]).await?;
    pair.ctl(0, &["resume"]).await?;
    let expected: Vec<String> = MOMENTS[..7].iter().map(|at| format!("{at} b")).collect();
    ensure!(told(folder.path()) == expected, "{:?}", told(folder.path()));
    Ok(())
}

#[tokio::test]
async fn a_hook_that_fails_before_the_point_of_no_return_turns_a_switchover_back() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let fails =
        "[ $WRITEFENCE_MOMENT = before_promote ] && { echo no quorum >&2; exit 9; }\nexit 0";
    let hooks = each(folder.path(), fails)?;
    let pair = Pair::start(|options| options.extra = hooks).await?;
    let run = pair
        .ctl(3, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(run["error"]["code"] == "hook_failed", "{run:#}");
    ensure!(
        run["error"]["message"].to_string().contains("no quorum"),
        "{run:#}"
    );
    let moments = [
        "before_fence",
        "after_drain",
        "before_promote",
        "on_abort",
        "on_failure",
    ];
    let expected: Vec<String> = moments.iter().map(|at| format!("{at} b")).collect();
    ensure!(told(folder.path()) == expected, "{:?}", told(folder.path()));
    pair.client()
        .await?
        .batch_execute("INSERT INTO t VALUES (1)")
        .await?;
    ensure!(pair.rows(&pair.a).await? == "1" && pair.b.in_recovery().await?);
    Ok(())
}

#[tokio::test]
async fn a_hook_that_fails_behind_the_point_of_no_return_is_an_exception_only() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let fails = "[ $WRITEFENCE_MOMENT = after_promote ] && exit 1\nexit 0";
    let hooks = each(folder.path(), fails)?;
    let pair = Pair::start(|options| options.extra = hooks).await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    ensure!(
        exceptions(&run).contains("hook after-promote (after_promote) failed"),
        "{run:#}"
    );
    ensure!(told(folder.path()).len() == 7);
    Ok(())
}

#[tokio::test]
async fn a_hook_that_may_fail_and_one_that_hangs_do_not_stop_a_run() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let hooks = "[[hook]]\nname = \"lenient\"\nat = \"before_fence\"\ncommand = [\"false\"]\n\
                 on_failure = \"continue\"\nretries = 2\n\
                 [[hook]]\nname = \"hangs\"\nat = \"before_open\"\ncommand = [\"sleep\", \"600\"]\n\
                 timeout = \"300ms\"\n";
    let pair = Pair::start(|options| options.extra = hooks.to_owned()).await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "x"])
        .await?;
    let said = exceptions(&run);
    ensure!(
        said.contains("hook lenient") && said.contains("hook hangs"),
        "{said}"
    );
    ensure!(said.contains("did not end within 300ms"), "{said}");
    Ok(())
}

#[tokio::test]
async fn an_http_hook_gets_the_run_as_json() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}/switch?x=1", listener.local_addr()?);
    let served = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await?;
        let mut got = String::new();
        let whole = |got: &str| {
            let body = got.split_once("\r\n\r\n").map(|(_, body)| body);
            body.is_some_and(|body| serde_json::from_str::<Value>(body).is_ok())
        };
        while !whole(&got) {
            let mut part = vec![0; 4096];
            let n = stream.read(&mut part).await?;
            ensure!(n > 0, "{got}");
            got.push_str(std::str::from_utf8(&part[..n])?);
        }
        stream
            .write_all(b"HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n")
            .await?;
        Ok::<_, anyhow::Error>(got)
    });
    let hooks = format!("[[hook]]\nname = \"dns\"\nat = \"after_promote\"\nhttp = \"{url}\"\n");
    let pair = Pair::start(|options| options.extra = hooks).await?;
    let run = pair
        .ctl(0, &["switchover", "--to", "b", "--reason", "TICKET-9"])
        .await?;
    ensure!(run["exceptions"] == serde_json::json!([]), "{run:#}");
    let got: String = served.await??;
    ensure!(got.starts_with("POST /switch?x=1 HTTP/1.1\r\n"), "{got}");
    let body: Value = serde_json::from_str(got.split_once("\r\n\r\n").context("a body")?.1)?;
    ensure!(
        body["run"] == run["id"] && body["to"] == "b" && body["from"] == "a",
        "{body}"
    );
    ensure!(
        body["reason"] == "TICKET-9" && body["moment"] == "after_promote",
        "{body}"
    );
    Ok(())
}

#[tokio::test]
async fn a_command_that_comes_while_the_step_before_is_ending_waits_for_it() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let folder = tempfile::tempdir()?;
    let slow = "[ $WRITEFENCE_MOMENT != after_drain ] || sleep 0.7";
    let hooks = each(folder.path(), slow)?;
    let pair = Pair::start(|options| options.extra = hooks).await?;
    let prepared = pair.ctl(0, &["prepare", "--primary", "a", "--reason", "x"]);
    let promoted = async {
        // Drained, and the step goes on with its hook: a script would go on as well.
        until("the drain's hook", SOON, async || {
            Ok(told(folder.path())
                .iter()
                .any(|line| line.starts_with("after_drain")))
        })
        .await?;
        pair.ctl(0, &["watch-drain", "--max-wait", "5s"]).await?;
        pair.ctl(0, &["promote", "--new-primary", "b", "--confirm"])
            .await
    };
    let (prepared, promoted) = tokio::join!(prepared, promoted);
    prepared?;
    promoted?;
    pair.ctl(0, &["open-writes", "--primary", "b"]).await?;
    ensure!(pair.group().await?["primary"] == "b");
    Ok(())
}
