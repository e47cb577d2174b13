//! Runs against servers that do as the test says: what is done in which order, and what is left
//! when a step fails.

pub(super) mod fake;

use std::sync::Arc;
use std::time::Duration;

use writefence_admin::api::{
    ApiError, Code, DrainOutcome, DrillRequest, Exit, FailoverRequest, OpenWrites, Prepare,
    Promote, Run, RunState, Step, StepState, SwitchoverRequest, Verb, Verify, WatchDrain,
};
use writefence_admin::{Actor, Call, Expect};

use super::desk::Desk;
use super::settings::Settings;
use super::verbs;
use crate::fleet::{Store as _, StoredPhase, Written};
use crate::gate::{Lane, Phase};
use fake::{Fake, World};

fn call() -> Call {
    let actor = Actor {
        uid: 0,
        gid: 0,
        pid: None,
    };
    Call {
        actor,
        group: "main".to_owned(),
        expect: Expect::default(),
    }
}

fn to(region: &str) -> SwitchoverRequest {
    SwitchoverRequest {
        to: region.to_owned(),
        reason: "test".to_owned(),
        budget_ms: None,
        force_stragglers: false,
    }
}

fn incident(region: &str) -> FailoverRequest {
    FailoverRequest {
        to: region.to_owned(),
        reason: "test".to_owned(),
        accept_loss: true,
        confirm: true,
    }
}

/// Waits until nobody works on the run.
async fn rest(desk: &Arc<Desk>) -> Run {
    loop {
        let run = desk.run().expect("a run was begun");
        if !run.working {
            return run;
        }
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
}

fn order(fake: &Fake, words: &[&str]) {
    let calls = fake.calls();
    let mut from = 0;
    for word in words {
        let at = calls[from..].iter().position(|call| call.starts_with(word));
        let at = at.unwrap_or_else(|| panic!("{word} does not follow in {calls:?}"));
        from += at + 1;
    }
}

fn code(error: Option<ApiError>) -> Option<Code> {
    error.map(|error| error.code)
}

#[tokio::test]
async fn a_switchover_goes_through_every_step_and_opens_on_the_candidate() {
    let World { desk, fake, store } = World::open().await;
    let before = desk.actor.epoch();
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert!(
        run.steps.iter().all(|step| step.state == StepState::Done),
        "{:?}",
        run.steps
    );
    assert_eq!(desk.accepted().as_str(), "b");
    assert!(!desk.actor.is_fenced());
    assert!(desk.actor.epoch() > before);
    order(
        &fake,
        &[
            "bar a",
            "fence_lsn a",
            "replayed b",
            "barred a",
            "promote b",
            "check b",
            "canary b",
        ],
    );
    let gates: Vec<_> = store
        .written()
        .into_iter()
        .filter_map(|w| match w {
            Written::Gate(record) => Some((record.phase, record.primary)),
            Written::Line { .. } => None,
        })
        .collect();
    let last = gates.last().cloned();
    assert_eq!(last, Some((StoredPhase::Open, "b".to_owned())), "{gates:?}");
}

#[tokio::test]
async fn repeats_of_a_switchover_and_of_open_writes_change_nothing() {
    let World { desk, .. } = World::open().await;
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    rest(&desk).await;
    let epoch = desk.actor.epoch();
    let again = verbs::switchover(&desk, call(), to("b")).await.unwrap();
    assert_eq!(again.state, RunState::Done);
    let other = SwitchoverRequest {
        reason: "another".to_owned(),
        ..to("b")
    };
    let another = verbs::switchover(&desk, call(), other).await.unwrap_err();
    assert_eq!(another.code, Code::WrongRegion);
    let ask = OpenWrites {
        primary: "b".to_owned(),
        accept_loss: false,
    };
    let run = verbs::open_writes(&desk, call(), ask).await.unwrap();
    assert_eq!(run.state, RunState::Done);
    assert_eq!(desk.actor.epoch(), epoch);
}

#[tokio::test]
async fn a_foreign_writer_takes_the_switchover_back_and_is_named() {
    let World { desk, fake, .. } = World::open().await;
    fake.fail(
        "bar",
        ApiError::new(Code::ForeignWriters, "pid 7, user eve"),
    );
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(
        (run.state, code(run.error)),
        (RunState::Failed, Some(Code::ForeignWriters))
    );
    assert_eq!(desk.accepted().as_str(), "a");
    assert!(!desk.actor.is_fenced());
    order(&fake, &["bar a", "unbar a", "check a"]);
    assert!(!fake.calls().iter().any(|call| call.starts_with("promote")));
}

#[tokio::test]
async fn an_abort_is_durable_before_the_barrier_is_lifted() {
    let World { desk, fake, store } = World::open().await;
    fake.block("replayed");
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    fake.reached("replayed").await;
    verbs::abort(&desk, call()).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Aborted, "{:?}", run.error);
    assert_eq!(run.certificate, None);
    assert!(!desk.actor.is_fenced());
    let aborting = store
        .written()
        .iter()
        .any(|w| matches!(w, Written::Line { line, .. } if line.contains("\"kind\":\"aborting\"")));
    assert!(aborting);
    let seen = fake.lines_at("unbar");
    assert!(
        seen.iter()
            .any(|line| line.contains("\"kind\":\"aborting\"")),
        "{seen:?}"
    );
}

#[tokio::test]
async fn behind_the_point_of_no_return_there_is_only_forward() {
    let World { desk, fake, .. } = World::open().await;
    fake.fail("promote", ApiError::new(Code::PromotionFailed, "no"));
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(
        (run.state, code(run.error)),
        (RunState::Running, Some(Code::PromotionFailed))
    );
    assert!(desk.actor.is_fenced());
    let abort = verbs::abort(&desk, call()).await.unwrap_err();
    assert_eq!(abort.code, Code::PastPointOfNoReturn);
    fake.heal("promote");
    verbs::resume(&desk, call()).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert_eq!(desk.accepted().as_str(), "b");
}

#[tokio::test]
async fn a_full_disk_before_the_point_of_no_return_promotes_nothing() {
    for n in 0..24 {
        let World { desk, fake, store } = World::open().await;
        store.fail_after(n);
        let begun = verbs::switchover(&desk, call(), to("b")).await;
        if begun.is_ok() {
            rest(&desk).await;
        }
        let promoted = fake.calls().iter().any(|call| call.starts_with("promote"));
        let pnr = desk.book.facts().is_some_and(|facts| facts.pnr.is_some());
        assert!(
            !promoted || pnr,
            "write {n}: promoted without a durable point of no return"
        );
        store.heal();
        if desk.actor.is_fenced() {
            let _ = verbs::abort(&desk, call()).await;
            rest(&desk).await;
            let _ = verbs::resume(&desk, call()).await;
            let run = rest(&desk).await;
            assert!(
                !desk.actor.is_fenced(),
                "write {n}: {:?} {:?}",
                run.state,
                run.error
            );
        }
    }
}

#[tokio::test]
async fn single_steps_do_the_same_and_demand_their_order() {
    let World { desk, .. } = World::open().await;
    let prepare = |primary: &str| Prepare {
        primary: primary.to_owned(),
        reason: "test".to_owned(),
        answer: None,
        hold_ms: None,
    };
    let promote = || Promote {
        new_primary: "b".to_owned(),
        confirm: true,
        accept_loss: false,
    };
    let wrong = verbs::prepare(&desk, call(), prepare("b"))
        .await
        .unwrap_err();
    assert_eq!(wrong.code, Code::WrongRegion);
    let early = verbs::promote(&desk, call(), promote()).await.unwrap_err();
    assert_eq!(early.code, Code::NoLiveRun);

    let permit = desk.group.gate.admit(Lane::Sql).unwrap();
    verbs::prepare(&desk, call(), prepare("a")).await.unwrap();
    rest(&desk).await;
    let undrained = verbs::promote(&desk, call(), promote()).await.unwrap_err();
    assert_eq!(undrained.code, Code::NotDrained);
    drop(permit);
    let watch = WatchDrain {
        region: None,
        max_wait_ms: 5000,
        force: false,
    };
    verbs::watch_drain(&desk, call(), watch)
        .await
        .unwrap()
        .ended()
        .await;
    rest(&desk).await;
    verbs::promote(&desk, call(), promote()).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.error, None);
    assert!(desk.actor.is_fenced(), "promote does not open");
    // A runbook repeated from its start: no step before the point of no return is taken again.
    let again = WatchDrain {
        region: None,
        max_wait_ms: 5000,
        force: false,
    };
    desk.drains
        .start(crate::clock::now() + Duration::from_secs(5));
    verbs::watch_drain(&desk, call(), again).await.unwrap();
    rest(&desk).await;
    verbs::promote(&desk, call(), promote()).await.unwrap();
    assert_eq!(rest(&desk).await.error, None);
    let open = OpenWrites {
        primary: "b".to_owned(),
        accept_loss: false,
    };
    verbs::open_writes(&desk, call(), open).await.unwrap();
    rest(&desk).await;
    assert!(!desk.actor.is_fenced());
    verbs::verify(
        &desk,
        call(),
        Verify {
            primary: "b".to_owned(),
        },
    )
    .await
    .unwrap();
    assert_eq!(rest(&desk).await.state, RunState::Done);
}

#[tokio::test]
async fn a_failover_of_a_silent_primary_states_what_it_rests_on() {
    let World { desk, fake, .. } = World::open().await;
    fake.silence("a");
    verbs::failover(&desk, call(), incident("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    let exceptions = run.exceptions.join("; ");
    assert!(
        exceptions.contains("no evidence about the old primary a"),
        "{exceptions}"
    );
    assert_eq!(desk.accepted().as_str(), "b");
    assert!(!fake.calls().iter().any(|call| call == "bar a"));
}

#[tokio::test]
async fn a_failover_takes_over_where_the_old_primary_died_under_a_switchover() {
    let World { desk, fake, .. } = World::open().await;
    fake.fail("bar", ApiError::new(Code::TargetUnreachable, "gone"));
    fake.fail("unbar", ApiError::new(Code::TargetUnreachable, "gone"));
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Aborting);
    assert!(desk.actor.is_fenced(), "the way back could not be gone");
    fake.silence("a");
    verbs::failover(&desk, call(), incident("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert_eq!(desk.accepted().as_str(), "b");
}

#[tokio::test]
async fn expectations_are_compared_before_anything_is_done() {
    let World { desk, fake, .. } = World::open().await;
    let epoch = desk.actor.epoch().value();
    for (expect, wanted) in [
        (
            Expect {
                run: None,
                epoch: Some(epoch + 1),
            },
            Code::WrongEpoch,
        ),
        (
            Expect {
                run: Some("nobody".to_owned()),
                epoch: None,
            },
            Code::WrongRun,
        ),
    ] {
        let call = Call { expect, ..call() };
        let error = verbs::switchover(&desk, call, to("b")).await.unwrap_err();
        assert_eq!(error.code, wanted);
    }
    assert!(
        fake.calls().iter().all(|call| call.starts_with("check")),
        "{:?}",
        fake.calls()
    );
}

#[tokio::test]
async fn a_permit_that_outlives_the_budget_rolls_back() {
    let World { desk, .. } = World::open().await;
    let _permit = desk.group.gate.admit(Lane::Sql).unwrap();
    let ask = SwitchoverRequest {
        budget_ms: Some(500),
        ..to("b")
    };
    verbs::switchover(&desk, call(), ask).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::RolledBack, "{:?}", run.error);
    assert!(!desk.actor.is_fenced());
    assert_eq!(run.steps[Step::Drain as usize].state, StepState::Failed);
}

#[tokio::test]
async fn what_was_fenced_comes_up_fenced_and_what_was_open_comes_up_open() {
    let World { desk, fake, store } = World::open().await;
    let open = World::restart(&store, &fake).await;
    assert!(!open.actor.is_fenced());
    assert!(open.actor.epoch().value() >= desk.actor.epoch().value() + 2);

    fake.block("replayed");
    verbs::switchover(&open, call(), to("b")).await.unwrap();
    fake.reached("replayed").await;
    let fenced = World::restart(&store, &fake).await;
    assert!(fenced.actor.is_fenced());
    assert_eq!(
        fenced.run().map(|run| run.state),
        Some(RunState::Interrupted)
    );
    fake.unblock("replayed");
    verbs::resume(&fenced, call()).await.unwrap();
    let run = rest(&fenced).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert!(matches!(store.load("main"), crate::fleet::Found::Record(r) if r.primary == "b"));
}

#[tokio::test]
async fn a_live_run_is_found_whatever_its_journal_is_called() {
    let World { desk, fake, store } = World::open().await;
    // Sorts behind every run of this century.
    let line = |seq: u64, rest: &str| {
        format!("{{\"seq\":{seq},\"at\":\"2020-01-01T00:00:00Z\",\"run\":\"9-old\",{rest}}}")
    };
    let started = "\"kind\":\"started\",\"group\":\"main\",\"run_kind\":\"steps\",\"from\":\"a\",\
                   \"to\":null,\"reason\":\"x\",\"actor\":\"y\"";
    for line in [
        line(1, started),
        line(2, "\"kind\":\"state\",\"state\":\"done\""),
    ] {
        store
            .append("9-old", line, crate::fleet::Durability::Sync)
            .await
            .unwrap();
    }
    fake.block("replayed");
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    fake.reached("replayed").await;
    let again = World::restart(&store, &fake).await;
    let run = again.run().expect("the live run was found");
    assert_eq!(
        (run.to.as_deref(), run.state),
        (Some("b"), RunState::Interrupted)
    );
}

#[tokio::test]
async fn a_lost_state_does_not_reopen_a_primary_that_was_left() {
    let World { desk, fake, .. } = World::open().await;
    verbs::switchover(&desk, call(), to("b")).await.unwrap();
    rest(&desk).await;
    // Another store: nothing is known of the switchover, and b is the primary.
    let store = Arc::new(crate::fleet::MemoryStore::new());
    let lost = World::restart(&store, &fake).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(lost.actor.is_fenced(), "a is configured, b is the primary");
    let open = |primary: &str| OpenWrites {
        primary: primary.to_owned(),
        accept_loss: false,
    };
    verbs::open_writes(&lost, call(), open("a")).await.unwrap();
    let run = rest(&lost).await;
    assert_eq!(code(run.error), Some(Code::IdentityMismatch));
    assert!(lost.actor.is_fenced());
    verbs::open_writes(&lost, call(), open("b")).await.unwrap();
    let run = rest(&lost).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert_eq!(lost.accepted().as_str(), "b");
}

mod first_start {
    //! The table of first starts.

    use super::super::start::{FirstStart, first_start};
    use super::fake::{primary, standby};
    use crate::upstream::{Observation, Region, Timeline};

    fn check(seen: &[(&str, Option<Observation>)]) -> FirstStart {
        let seen: Vec<_> = seen
            .iter()
            .map(|(r, s)| (Region::new(*r), s.clone()))
            .collect();
        first_start(&Region::new("a"), &seen)
    }

    #[test]
    fn only_a_single_configured_primary_opens() {
        let one = || Some(primary("a", 1));
        assert_eq!(check(&[("a", one())]), FirstStart::Open);
        assert_eq!(
            check(&[("a", one()), ("b", Some(standby("b", 1)))]),
            FirstStart::Open
        );
    }

    #[test]
    fn a_silent_region_is_asked_again() {
        let found = check(&[("a", Some(primary("a", 1))), ("b", None)]);
        assert!(matches!(found, FirstStart::NotYet(_)), "{found:?}");
    }

    #[test]
    fn contradictions_are_for_the_operator() {
        let mut other = standby("b", 1);
        other.system_identifier = Some(99);
        let mut read_only = primary("a", 1);
        read_only.writable = Some(false);
        let mut hidden = standby("b", 1);
        hidden.timeline = None::<Timeline>;
        for seen in [
            vec![("a", Some(primary("a", 1))), ("b", Some(primary("b", 1)))],
            vec![("a", Some(standby("a", 1))), ("b", Some(primary("b", 2)))],
            vec![("a", Some(standby("a", 1))), ("b", Some(standby("b", 1)))],
            vec![("a", Some(primary("a", 1))), ("b", Some(standby("b", 2)))],
            vec![("a", Some(primary("a", 1))), ("b", Some(other))],
            vec![("a", Some(primary("a", 1))), ("b", Some(hidden))],
            vec![("a", Some(read_only))],
        ] {
            let found = check(&seen);
            assert!(
                matches!(found, FirstStart::Never(_)),
                "{seen:?} gave {found:?}"
            );
        }
    }
}

#[tokio::test]
async fn writes_are_stopped_although_the_journal_cannot_be_written() {
    let World { desk, fake, store } = World::open().await;
    store.fail_after(0);
    let ask = Prepare {
        primary: "a".to_owned(),
        reason: "test".to_owned(),
        answer: None,
        hold_ms: None,
    };
    let error = verbs::prepare(&desk, call(), ask).await.unwrap_err();
    assert_eq!(error.code, Code::Storage);
    assert!(error.message.contains("stopped in memory"), "{error}");
    assert!(desk.actor.is_fenced() && desk.book.live().is_none());
    // A planned move is only refused: nobody asked for writes to be stopped for their own sake.
    store.heal();
    let open = OpenWrites {
        primary: "a".to_owned(),
        accept_loss: false,
    };
    verbs::open_writes(&desk, call(), open).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    store.fail_after(0);
    let error = verbs::switchover(&desk, call(), to("b")).await.unwrap_err();
    assert_eq!(error.code, Code::Storage);
    assert!(!desk.actor.is_fenced());
    drop(fake);
}

#[tokio::test]
async fn a_drill_takes_every_step_before_the_point_of_no_return_and_goes_back() {
    for fence_only in [true, false] {
        let World { desk, fake, .. } = World::open().await;
        let ask = DrillRequest {
            to: "b".to_owned(),
            reason: "test".to_owned(),
            fence_only,
            budget_ms: None,
        };
        verbs::drill(&desk, call(), ask).await.unwrap();
        let run = rest(&desk).await;
        assert_eq!(run.state, RunState::RolledBack, "{:?}", run.error);
        assert_eq!(run.verdict(Verb::Drill), Exit::Done);
        assert!(!desk.actor.is_fenced());
        assert_eq!(desk.accepted().as_str(), "a");
        let calls = fake.calls();
        assert!(!calls.iter().any(|call| call.starts_with("promote")));
        let barred = calls.iter().any(|call| call.starts_with("bar "));
        assert_eq!(barred, !fence_only, "{calls:?}");
        let facts = desk.book.facts().unwrap();
        assert!(facts.pnr.is_none() && facts.measured.is_some());
    }
}

#[tokio::test]
async fn a_drill_that_fails_goes_back_and_says_why() {
    let World { desk, fake, .. } = World::open().await;
    fake.fail("replayed", ApiError::new(Code::CandidateBehind, "behind"));
    let ask = DrillRequest {
        to: "b".to_owned(),
        reason: "test".to_owned(),
        fence_only: false,
        budget_ms: None,
    };
    verbs::drill(&desk, call(), ask).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(code(run.error.clone()), Some(Code::CandidateBehind));
    assert_eq!(run.verdict(Verb::Drill), Exit::Precondition);
    assert!(!desk.actor.is_fenced());
}

/// Asks for a fence while a request is in flight.
async fn prepare(desk: &Arc<Desk>) {
    let ask = Prepare {
        primary: "a".to_owned(),
        reason: "test".to_owned(),
        hold_ms: None,
        answer: None,
    };
    verbs::prepare(desk, call(), ask).await.unwrap();
}

#[tokio::test]
async fn a_failover_takes_a_waiting_run_over_only_by_its_name_while_the_primary_answers() {
    let World { desk, fake, .. } = World::open().await;
    prepare(&desk).await;
    let waits = rest(&desk).await.id;
    let refused = verbs::failover(&desk, call(), incident("b")).await;
    assert_eq!(code(refused.err()), Some(Code::RunInProgress));
    let named = Call {
        expect: Expect {
            run: Some(waits.clone()),
            epoch: None,
        },
        ..call()
    };
    verbs::failover(&desk, named, incident("b")).await.unwrap();
    let run = rest(&desk).await;
    assert_eq!(run.state, RunState::Done, "{:?}", run.error);
    assert!(run.exceptions[0].contains(&waits), "{:?}", run.exceptions);
    drop(fake);
}

#[tokio::test]
async fn what_is_still_in_flight_does_not_keep_writes_from_going_on_where_they_were() {
    let World { desk, .. } = World::open().await;
    let permit = desk.group.gate.admit(Lane::Sql).unwrap();
    prepare(&desk).await;
    rest(&desk).await;
    let open = OpenWrites {
        primary: "a".to_owned(),
        accept_loss: false,
    };
    verbs::open_writes(&desk, call(), open).await.unwrap();
    let run = rest(&desk).await;
    assert!(!desk.actor.is_fenced());
    assert_eq!(run.verdict(Verb::OpenWrites), Exit::Done, "{}", run.state);
    drop(permit);
}

#[tokio::test]
async fn a_prepare_for_another_reason_is_told_whose_fence_stands() {
    let World { desk, .. } = World::open().await;
    prepare(&desk).await;
    rest(&desk).await;
    let other = Prepare {
        primary: "a".to_owned(),
        reason: "another".to_owned(),
        hold_ms: None,
        answer: None,
    };
    let told = verbs::prepare(&desk, call(), other).await.unwrap_err();
    assert_eq!(told.code, Code::RunInProgress);
    assert!(desk.actor.is_fenced());
}

#[tokio::test]
async fn a_prepare_that_meets_an_opening_is_no_repeat_of_the_fence_before_it() {
    let World { desk, .. } = World::open().await;
    prepare(&desk).await;
    rest(&desk).await;
    let open = OpenWrites {
        primary: "a".to_owned(),
        accept_loss: false,
    };
    verbs::open_writes(&desk, call(), open).await.unwrap();
    prepare(&desk).await;
    rest(&desk).await;
    assert!(
        desk.actor.is_fenced(),
        "who asked for a fence was told that it stands"
    );
}

#[tokio::test]
async fn an_admitted_request_does_its_sql_before_the_sql_lane_is_fenced() {
    let World { desk, .. } = World::open().await;
    desk.settings.store(Arc::new(Settings {
        http_deadline: Duration::from_secs(60),
        ..fake::settings()
    }));
    let gate = &desk.group.gate;
    let request = gate.admit(Lane::Http).unwrap();
    prepare(&desk).await;
    while gate.look(Lane::Http).phase == Phase::Open {
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    assert!(
        gate.admit(Lane::Http).is_err(),
        "a later request is not admitted"
    );
    assert!(
        !desk.actor.is_fenced(),
        "the group is fenced once all lanes are"
    );
    drop(gate.admit(Lane::Sql).unwrap());
    assert!(desk.run().unwrap().working, "it waits for the request");
    drop(request);
    let run = rest(&desk).await;
    assert_eq!(run.error, None);
    assert!(desk.actor.is_fenced());
    assert!(gate.admit(Lane::Sql).is_err());
}

#[tokio::test]
async fn a_request_that_takes_too_long_does_not_keep_the_sql_lane_open() {
    let World { desk, .. } = World::open().await;
    let times = Settings {
        deadline: Duration::from_secs(60),
        ..fake::settings()
    };
    desk.settings.store(Arc::new(times.clone()));
    let gate = &desk.group.gate;
    let request = gate.admit(Lane::Http).unwrap();
    let began = crate::clock::now();
    prepare(&desk).await;
    rest(&desk).await;
    assert!(desk.actor.is_fenced());
    let whole = began + times.http_deadline + times.grace;
    let plan = gate.plan().unwrap();
    assert!(
        plan.grace >= whole,
        "transactions have their grace from the fence of their lane"
    );
    let drain = desk.drains.last().unwrap();
    assert_eq!(drain.outcome(), None);
    drop(request);
    assert_eq!(drain.ended().await, DrainOutcome::Drained);
}
