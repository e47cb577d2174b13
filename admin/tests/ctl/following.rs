//! Following a run: plain lines, long polls, Ctrl-C, and a daemon that goes away.

use std::process::Stdio;
use std::time::{Duration, Instant};

use writefence_admin::Wait;
use writefence_admin::api::{Code, RunState};
use writefence_admin::client::ClientError;

use crate::kit::{Ran, Server, eventually};

#[test]
fn without_a_terminal_progress_is_plain_lines_and_the_end_comes_last() {
    let server = Server::start();
    let ran = server.ctl(&["switchover", "--to", "b", "--reason", "ok"]);
    assert_eq!(ran.code, Some(0));
    assert!(
        !ran.stdout.contains('\x1b'),
        "no control sequences: {}",
        ran.stdout
    );
    let done: Vec<_> = ran
        .stdout
        .lines()
        .filter_map(|line| line.strip_prefix("  done   "))
        .filter_map(|line| line.split_whitespace().next())
        .collect();
    assert_eq!(done.join(" "), STEPS);
    for said in [
        "fence: fenced at epoch 4, new writes wait",
        "pnr: point of no return passed",
    ] {
        assert!(
            ran.stdout.contains(said),
            "{said}
{}",
            ran.stdout
        );
    }
    let last = ran.stdout.lines().last().unwrap();
    assert!(
        last.starts_with("run r1: switchover a → b: done, writes stopped for "),
        "{last}"
    );
}

const STEPS: &str = "preflight fence drain evidence certificate caught_up pnr promote identity \
                     hooks open converge verify report";

#[test]
fn on_a_terminal_the_steps_stay_and_the_spinner_goes() {
    let server = Server::start();
    let line = [
        env!("CARGO_BIN_EXE_writefencectl"),
        "switchover --to b --reason ok",
    ]
    .join(" ");
    // `script` gives the command a terminal; it is part of every Debian.
    let mut command = std::process::Command::new("script");
    command
        .args(["-qec", &line, "/dev/null"])
        .env("WRITEFENCE_SOCKET", &server.socket);
    command.env("TERM", "xterm");
    let ran = Ran::of(command.stdin(Stdio::null()).output().unwrap());
    assert_eq!(ran.code, Some(0), "{}", ran.stdout);
    assert!(ran.stdout.contains("\x1b["), "it is drawn: {}", ran.stdout);
    assert!(ran.stdout.contains("3 executing, 7 held"), "{}", ran.stdout);
    let steps = STEPS.split_whitespace();
    assert!(
        steps
            .into_iter()
            .all(|step| ran.stdout.contains(&format!("  done   {step}")))
    );
    let last = ran.stdout.trim_end().lines().last().unwrap();
    assert!(last.contains("done, writes stopped for"), "{last}");
}

#[test]
fn a_failed_run_says_why_and_what_next() {
    let server = Server::start();
    let ran = server.ctl(&["switchover", "--to", "b", "--reason", "rolls-back"]);
    assert_eq!(ran.code, Some(5));
    for said in [
        "rolled_back",
        "error: the script says budget_exceeded (budget_exceeded)",
        "next:",
    ] {
        assert!(ran.stdout.contains(said), "{said}\n{}", ran.stdout);
    }
}

#[test]
fn ctrl_c_ends_the_following_and_not_the_run() {
    let server = Server::start();
    let mut polls = 0;
    for (args, said) in [
        (
            &["switchover", "--to", "b", "--reason", "forever"][..],
            "goes on in the daemon",
        ),
        (&["status", "--follow", "--json"][..], "\"working\":true"),
    ] {
        let mut command = server.command(args);
        let child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        eventually("the command follows", || server.fake.polls() > polls);
        let pid = child.id().to_string();
        let status = std::process::Command::new("kill")
            .args(["-INT", &pid])
            .status()
            .unwrap();
        assert!(status.success());
        let ran = Ran::of(child.wait_with_output().unwrap());
        polls = server.fake.polls();
        assert_eq!(ran.code, Some(130), "{} {}", ran.stdout, ran.stderr);
        assert!(ran.stdout.contains(said), "{}", ran.stdout);
        assert!(server.fake.working());
    }
}

#[test]
fn a_daemon_that_goes_away_while_followed_is_exit_2() {
    let mut server = Server::start();
    let args = [
        "--timeout",
        "500ms",
        "switchover",
        "--to",
        "b",
        "--reason",
        "forever",
    ];
    let mut command = server.command(&args);
    let child = command
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    eventually("the run works", || server.fake.working());
    server.shut_down();
    let ran = Ran::of(child.wait_with_output().unwrap());
    assert_eq!(ran.code, Some(2), "{} {}", ran.stdout, ran.stderr);
    assert!(ran.stderr.contains("next:"), "{}", ran.stderr);
}

#[test]
fn a_long_poll_answers_at_once_when_there_is_news_and_at_its_end_when_there_is_none() {
    let server = Server::start();
    server.ctl(&["switchover", "--to", "b", "--reason", "interrupted"]);
    let client = server.client();
    let poll = |after, ms| {
        let (began, wait) = (
            Instant::now(),
            Wait {
                after,
                at_most: Duration::from_millis(ms),
            },
        );
        let progress = server
            .runtime
            .block_on(client.progress("r1", wait))
            .unwrap();
        (progress, began.elapsed())
    };
    let (all, took) = poll(0, 10_000);
    assert!(took < Duration::from_secs(5), "{took:?}");
    assert_eq!(all.run.state, RunState::Interrupted);
    assert_eq!(all.seq, all.events.last().unwrap().seq);
    let (none, _) = poll(all.seq, 50);
    assert!(none.events.is_empty());
    assert_eq!(none.seq, all.seq);
}

#[test]
fn a_run_that_is_not_known_is_an_error_document() {
    let server = Server::start();
    let asked = server.runtime.block_on(async {
        let client = server.client();
        client.progress("no/such?run", Wait::default()).await
    });
    match asked {
        Err(ClientError::Refused(error)) => {
            assert_eq!(error.code, Code::NoSuchRun);
            assert!(error.message.contains("no/such?run"), "{error}");
        }
        other => unreachable!("{other:?}"),
    }
}
