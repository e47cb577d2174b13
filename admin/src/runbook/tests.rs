//! Tables of journals: what is read back, what is refused, and what a torn tail leaves.

use std::time::{Duration, UNIX_EPOCH};

use super::*;
use crate::Expect;
use crate::api::{
    ApiError, Certificate, Code, Evidence, EvidenceKind, FenceAnswer, Timestamp, Verb,
};

fn at(seq: u64) -> Timestamp {
    Timestamp::new(UNIX_EPOCH + Duration::from_secs(1_700_000_000 + seq))
}

fn started(kind: RunKind) -> Fact {
    Fact::Started(Started {
        group: "main".into(),
        run_kind: kind,
        from: Some("a".into()),
        to: Some("b".into()),
        reason: "CHG-1 \"quoted\"\nsecond line".into(),
        actor: "uid=0 gid=0 pid=7".into(),
        budget_ms: Some(15_000),
        accept_loss: false,
        force_stragglers: false,
        fence_only: false,
    })
}

const fn begin(step: Step) -> Fact {
    Fact::StepStarted { step }
}

const fn done(step: Step) -> Fact {
    Fact::StepDone {
        step,
        findings: Vec::new(),
    }
}

fn failed(step: Step) -> Fact {
    let error = ApiError::new(Code::Storage, "no space");
    Fact::StepFailed {
        step,
        error,
        findings: Vec::new(),
    }
}

const fn fence(epoch: u64) -> Fact {
    Fact::Fence(Fenced {
        epoch,
        answer: FenceAnswer::Hold,
        hold_ms: None,
    })
}

fn evidence() -> Evidence {
    Evidence {
        kind: EvidenceKind::Barrier,
        at: at(0),
        detail: "read-only, nobody left".into(),
    }
}

fn certificate() -> Fact {
    let certificate = Certificate {
        group: "main".into(),
        epoch: 4,
        fenced_at: at(4),
        executing: 0,
        orphaned: 0,
        unknown: 0,
        evidence: evidence(),
        fence_lsn: Some("0/3000060".into()),
        system_identifier: Some("7300000000000000001".into()),
        timeline: Some(1),
        acks: Vec::new(),
    };
    Fact::Certificate { certificate }
}

fn pinned(region: &str) -> Fact {
    let candidate = Pinned {
        region: region.into(),
        system_identifier: Some("7".into()),
        timeline: Some(1),
    };
    Fact::Pnr { candidate }
}

fn promoted(region: &str) -> Fact {
    Fact::Promoted(Promoted {
        next_xid: None,
        region: region.into(),
        system_identifier: Some("7".into()),
        timeline: Some(2),
        fork_lsn: Some("0/3000060".into()),
    })
}

fn opened(region: &str) -> Fact {
    Fact::Open(Opened {
        region: region.into(),
        epoch: 5,
    })
}

fn aborting() -> Fact {
    Fact::Aborting {
        actor: "uid=0 gid=0".into(),
        reason: "asked".into(),
    }
}

const fn becomes(state: RunState) -> Fact {
    Fact::State { state, error: None }
}

/// Up to the certificate: the last moment with a way back.
fn before_pnr() -> Vec<Fact> {
    vec![
        started(RunKind::Switchover),
        begin(Step::Preflight),
        done(Step::Preflight),
        begin(Step::Fence),
        fence(4),
        done(Step::Fence),
        begin(Step::Drain),
        done(Step::Drain),
        begin(Step::Evidence),
        Fact::Evidence {
            evidence: evidence(),
        },
        done(Step::Evidence),
        begin(Step::Certificate),
        certificate(),
        done(Step::Certificate),
        begin(Step::CaughtUp),
        done(Step::CaughtUp),
        begin(Step::Pnr),
    ]
}

fn after_pnr() -> Vec<Fact> {
    let mut facts = before_pnr();
    facts.extend([pinned("b"), done(Step::Pnr), begin(Step::Promote)]);
    facts
}

fn whole() -> Vec<Fact> {
    let mut facts = after_pnr();
    facts.extend([promoted("b"), done(Step::Promote)]);
    for step in [Step::Identity, Step::Hooks, Step::Open] {
        facts.extend([begin(step), done(step)]);
    }
    facts.insert(facts.len() - 1, opened("b"));
    for step in [Step::Converge, Step::Verify, Step::Report] {
        facts.extend([begin(step), done(step)]);
    }
    facts.push(becomes(RunState::Done));
    facts
}

fn records(facts: Vec<Fact>) -> Vec<Record> {
    let numbered = (1..).zip(facts);
    numbered
        .map(|(seq, fact)| Record {
            seq,
            at: at(seq),
            run: "r1".into(),
            fact,
        })
        .collect()
}

fn bytes(records: &[Record]) -> Vec<u8> {
    records.iter().flat_map(encode).collect()
}

fn folded(facts: Vec<Fact>) -> RunFacts {
    fold(&records(facts)).unwrap()
}

/// The rule that the last fact breaks.
fn refused(mut facts: Vec<Fact>, last: Fact) -> &'static str {
    facts.push(last);
    let seq = facts.len() as u64;
    match fold(&records(facts)) {
        Err(FoldError::Illegal { seq: found, why }) if found == seq => why,
        other => unreachable!("record {seq} should have been refused, got {other:?}"),
    }
}

fn with(mut facts: Vec<Fact>, more: impl IntoIterator<Item = Fact>) -> Vec<Fact> {
    facts.extend(more);
    facts
}

/// Its fields stand beside those of the record, so none may bear the same name.
#[test]
fn the_records_of_a_hook_are_read_back_as_they_were_written() {
    let (hook, moment) = ("dns".to_owned(), "after_promote".to_owned());
    let begun = Fact::HookBegun {
        hook: hook.clone(),
        moment: moment.clone(),
    };
    let ended = Fact::HookEnded {
        hook,
        moment,
        took_ms: 7,
        error: None,
    };
    for fact in [begun, ended] {
        let record = Record {
            seq: 4,
            at: at(4),
            run: "r".to_owned(),
            fact,
        };
        let line = encode(&record);
        assert_eq!(serde_json::from_slice::<Record>(&line).unwrap(), record);
    }
}

#[test]
fn a_whole_journal_is_read_back_as_it_was_written() {
    let written = records(whole());
    let parsed = parse(&bytes(&written)).unwrap();
    assert_eq!(
        parsed,
        Parsed {
            records: written,
            torn: None
        }
    );
}

#[test]
fn a_journal_cut_at_any_byte_keeps_its_whole_records_and_reports_the_rest() {
    let written = records(whole());
    let all = bytes(&written);
    for cut in 0..=all.len() {
        let parsed = parse(&all[..cut]).unwrap();
        let good: usize = parsed
            .records
            .iter()
            .map(|record| encode(record).len())
            .sum();
        assert_eq!(
            parsed.records,
            written[..parsed.records.len()],
            "cut at {cut}"
        );
        let torn = (good < cut).then(|| Torn {
            offset: good,
            len: cut - good,
        });
        assert_eq!(parsed.torn, torn, "cut at {cut}");
        let lines = all[..cut].iter().filter(|byte| **byte == b'\n').count();
        assert_eq!(parsed.records.len(), lines, "cut at {cut}");
        if lines > 0 {
            fold(&parsed.records).unwrap();
        }
    }
}

#[test]
fn a_torn_tail_of_zeros_is_dropped() {
    let mut all = bytes(&records(before_pnr()));
    let good = all.len();
    all.extend([0; 300]);
    assert_eq!(
        parse(&all).unwrap().torn,
        Some(Torn {
            offset: good,
            len: 300
        })
    );
}

#[test]
fn an_unreadable_line_with_its_newline_is_damage_wherever_it_stands() {
    let written = records(whole());
    let (all, n) = (bytes(&written), written.len());
    let mut begin = 0;
    for line in 1..=n {
        let mut damaged = all.clone();
        damaged[begin] = b'x';
        let JournalError::Broken {
            line: found,
            offset,
            ..
        } = parse(&damaged).unwrap_err();
        assert_eq!((found, offset), (line, begin));
        begin += encode(&written[line - 1]).len();
    }
}

#[test]
fn records_that_do_not_belong_together_are_refused() {
    let good = records(whole());
    assert_eq!(fold(&[]).unwrap_err(), FoldError::Empty);
    assert_eq!(fold(&good[1..]).unwrap_err(), FoldError::NoStart);
    for missing in 1..good.len() - 1 {
        let mut gap = good.clone();
        gap.remove(missing);
        let (last, found) = (missing as u64, missing as u64 + 2);
        assert_eq!(fold(&gap).unwrap_err(), FoldError::Gap { last, found });
    }
    let mut doubled = good.clone();
    doubled.insert(3, good[3].clone());
    assert_eq!(
        fold(&doubled).unwrap_err(),
        FoldError::Gap { last: 4, found: 4 }
    );
    let mut other = good;
    other[2].run = "r2".into();
    let error = FoldError::OtherRun {
        seq: 3,
        run: "r1".into(),
        found: "r2".into(),
    };
    assert_eq!(fold(&other).unwrap_err(), error);
}

#[test]
fn a_whole_run_folds_to_done_with_every_step_behind() {
    let facts = folded(whole());
    assert_eq!(facts.state, RunState::Done);
    assert!(Step::ALL.into_iter().all(|step| facts.is_behind(step)));
    assert_eq!(next_step(&facts), None);
    let document = facts.document(Working::No, at(10_000));
    assert_eq!(document.epoch, Some(4));
    assert_eq!(document.next, None);
    // From the fence's record to the opening's, whatever the present says.
    let seq_of = |wanted: &dyn Fn(&Fact) -> bool| whole().iter().position(wanted).unwrap() as u64;
    let gap = seq_of(&|fact| matches!(fact, Fact::Open(_)))
        - seq_of(&|fact| matches!(fact, Fact::Fence(_)));
    assert_eq!(document.write_gap_ms, Some(gap * 1000));
}

#[test]
fn the_next_step_is_the_first_that_is_not_behind() {
    let journal = whole();
    for n in 1..journal.len() {
        let facts = folded(journal[..n].to_vec());
        let expected = Step::ALL.into_iter().find(|step| !facts.is_behind(*step));
        assert_eq!(next_step(&facts), expected);
        if let Fact::StepStarted { step } = &journal[n - 1] {
            assert_eq!(expected, Some(*step));
        }
    }
}

#[test]
fn nothing_is_promoted_without_a_certificate_or_past_another_candidate() {
    let uncertified: Vec<_> = before_pnr()
        .into_iter()
        .filter(|fact| !matches!(fact, Fact::Certificate { .. }))
        .collect();
    assert_eq!(
        refused(uncertified, pinned("b")),
        "the point of no return needs a certificate"
    );
    assert_eq!(
        refused(after_pnr(), pinned("c")),
        "another candidate is pinned"
    );
    let why = "only the pinned candidate is promoted, behind the point of no return";
    assert_eq!(refused(before_pnr(), promoted("b")), why);
    assert_eq!(refused(after_pnr(), promoted("c")), why);
    let moved = Fact::Candidate { region: "c".into() };
    assert_eq!(refused(after_pnr(), moved), "the candidate is pinned");
}

#[test]
fn aborting_voids_the_certificate_and_nothing_goes_forward_any_more() {
    let back = with(before_pnr(), [aborting()]);
    let facts = folded(back.clone());
    assert_eq!((facts.certificate, facts.evidence), (None, None));
    for fact in [
        pinned("b"),
        begin(Step::Pnr),
        certificate(),
        fence(9),
        promoted("b"),
    ] {
        refused(back.clone(), fact);
    }
    let resumed = becomes(RunState::Running);
    assert_eq!(
        refused(back.clone(), resumed),
        "the run's state cannot change so"
    );
    // Opening where it came from, aborting once more and reaching the end are allowed.
    let end = folded(with(
        back,
        [aborting(), opened("a"), becomes(RunState::Aborted)],
    ));
    assert_eq!(end.state, RunState::Aborted);
}

#[test]
fn behind_the_point_of_no_return_there_is_only_forward() {
    let why = "there is no way back behind the point of no return";
    assert_eq!(refused(after_pnr(), aborting()), why);
    refused(after_pnr(), begin(Step::Drain));
    refused(after_pnr(), fence(9));
    refused(after_pnr(), opened("b"));
    let why = "between the point of no return and the promotion a run does not end";
    for state in [RunState::Failed, RunState::Done] {
        assert_eq!(refused(after_pnr(), becomes(state)), why);
    }
    // Interrupted and resumed, the same step begins again, on the same candidate.
    let again = [
        becomes(RunState::Interrupted),
        becomes(RunState::Running),
        begin(Step::Promote),
        promoted("b"),
    ];
    assert!(folded(with(after_pnr(), again)).promoted.is_some());
}

#[test]
fn an_interrupted_run_does_nothing_before_it_is_resumed_or_aborted() {
    let interrupted = with(before_pnr(), [becomes(RunState::Interrupted)]);
    for fact in [pinned("b"), begin(Step::Pnr), certificate(), opened("a")] {
        refused(interrupted.clone(), fact);
    }
    assert_eq!(
        folded(with(interrupted, [aborting()])).state,
        RunState::Aborting
    );
}

#[test]
fn a_step_that_begins_again_voids_what_rested_on_it() {
    for (step, keeps_evidence, keeps_certificate) in [
        (Step::Drain, false, false),
        (Step::Evidence, false, false),
        (Step::Certificate, true, false),
        (Step::CaughtUp, true, true),
    ] {
        let facts = folded(with(before_pnr(), [begin(step)]));
        assert_eq!(facts.evidence.is_some(), keeps_evidence, "{step}");
        assert_eq!(facts.certificate.is_some(), keeps_certificate, "{step}");
        let later = Step::ALL.into_iter().filter(|later| *later > step);
        assert!(
            later
                .into_iter()
                .all(|later| facts.step(later).state == StepState::Pending)
        );
    }
}

#[test]
fn steps_begin_in_their_order() {
    let start = vec![started(RunKind::Switchover)];
    assert_eq!(
        refused(start.clone(), begin(Step::Fence)),
        "an earlier step is not done"
    );
    assert_eq!(
        refused(start.clone(), done(Step::Preflight)),
        "the step was not begun"
    );
    let skipped = Fact::StepSkipped {
        step: Step::Preflight,
        reason: "by the operator".into(),
    };
    let facts = folded(with(start, [skipped, begin(Step::Fence)]));
    assert_eq!(facts.step(Step::Preflight).state, StepState::Skipped);
}

#[test]
fn an_ended_run_takes_no_record() {
    for fact in whole().into_iter().skip(1) {
        assert_eq!(refused(whole(), fact), "the run has ended");
    }
    assert_eq!(
        refused(before_pnr(), started(RunKind::Steps)),
        "a run starts once"
    );
}

#[test]
fn a_second_fence_raises_the_epoch_and_keeps_the_gap() {
    let facts = folded(with(before_pnr(), [fence(9)]));
    let (since, fence) = facts.fence.unwrap();
    assert_eq!((since, fence.epoch), (at(5), 9));
}

#[test]
fn a_failed_step_is_the_runs_error_until_it_is_tried_again() {
    let failing = with(before_pnr(), [failed(Step::Pnr)]);
    assert_eq!(folded(failing.clone()).error.unwrap().code, Code::Storage);
    assert_eq!(folded(with(failing, [begin(Step::Pnr)])).error, None);
}

#[test]
fn records_that_a_successor_must_not_be_wrong_about_are_synced() {
    for fact in whole().into_iter().chain([aborting()]) {
        let wanted = matches!(
            fact,
            Fact::Fence(_)
                | Fact::Pnr { .. }
                | Fact::Promoted(_)
                | Fact::Open(_)
                | Fact::Aborting { .. }
        );
        assert_eq!(fact.needs_fsync(), wanted, "{fact:?}");
    }
}

#[test]
fn every_verb_of_a_run_stands_for_consecutive_steps() {
    let verbs = [
        Verb::Prepare,
        Verb::WatchDrain,
        Verb::Promote,
        Verb::OpenWrites,
        Verb::Verify,
    ];
    let steps: Vec<_> = verbs.into_iter().flat_map(steps_of).collect();
    assert_eq!(steps, Step::ALL);
    assert_eq!(steps_of(Verb::Failover), Step::ALL);
    assert_eq!(steps_of(Verb::Sessions), []);
}

#[test]
fn the_next_verb_follows_the_state() {
    let steps = |more: Vec<Fact>| folded(with(vec![started(RunKind::Steps)], more));
    let fenced = vec![
        begin(Step::Preflight),
        done(Step::Preflight),
        begin(Step::Fence),
        done(Step::Fence),
    ];
    assert_eq!(next_verb(&steps(vec![])), Some(Verb::Prepare));
    assert_eq!(next_verb(&steps(fenced.clone())), Some(Verb::WatchDrain));
    assert!(steps(fenced.clone()).achieved(Verb::Prepare));
    assert!(!steps(fenced.clone()).achieved(Verb::WatchDrain));
    let unstored = fenced.iter().take(3).cloned().chain([failed(Step::Fence)]);
    assert_eq!(next_verb(&steps(unstored.collect())), Some(Verb::Abort));
    let interrupted = with(fenced.clone(), [becomes(RunState::Interrupted)]);
    assert_eq!(next_verb(&steps(interrupted)), Some(Verb::Resume));
    assert_eq!(
        next_verb(&steps(with(fenced, [aborting()]))),
        Some(Verb::Abort)
    );
    assert_eq!(next_verb(&folded(after_pnr())), Some(Verb::Resume));
    assert_eq!(next_verb(&folded(whole())), None);
}

#[test]
fn abort_and_resume_are_answered_by_where_the_run_stands() {
    let code = |result: Result<(), ApiError>| result.err().map(|error| error.code);
    let interrupted = with(before_pnr(), [becomes(RunState::Interrupted)]);
    let back = with(before_pnr(), [aborting()]);
    for (facts, abort, resume) in [
        (before_pnr(), None, Some(Code::NothingToResume)),
        (interrupted, None, None),
        (back, None, Some(Code::NothingToResume)),
        (after_pnr(), Some(Code::PastPointOfNoReturn), None),
        (
            whole(),
            Some(Code::NothingToAbort),
            Some(Code::NothingToResume),
        ),
    ] {
        let facts = folded(facts);
        assert_eq!(code(check_abort(&facts)), abort, "{facts:?}");
        assert_eq!(code(check_resume(&facts)), resume, "{facts:?}");
    }
}

#[test]
fn a_restart_interrupts_only_what_was_running() {
    assert_eq!(
        after_restart(RunState::Running),
        Some(RunState::Interrupted)
    );
    for state in [
        RunState::Interrupted,
        RunState::Aborting,
        RunState::Done,
        RunState::Failed,
    ] {
        assert_eq!(after_restart(state), None);
    }
}

#[test]
fn expectations_are_compared_before_anything_else() {
    let expect = |run: Option<&str>, epoch| Expect {
        run: run.map(str::to_owned),
        epoch,
    };
    for (expect, live, code) in [
        (expect(None, None), None, None),
        (expect(Some("r1"), Some(4)), Some("r1"), None),
        (expect(Some("r1"), None), None, Some(Code::WrongRun)),
        (expect(Some("r1"), None), Some("r2"), Some(Code::WrongRun)),
        (expect(None, Some(3)), Some("r1"), Some(Code::WrongEpoch)),
    ] {
        assert_eq!(
            check_run(&expect, live, 4).err().map(|error| error.code),
            code,
            "{expect:?}"
        );
    }
}

#[test]
fn how_far_a_run_is_and_what_may_be_left_of_it() {
    let record = |seq: u64, ms: u64, fact: Fact| Record {
        seq,
        at: at_ms(ms),
        run: "r".into(),
        fact,
    };
    // Each step took ten milliseconds the last time.
    let mut before = RunFacts::begin(&record(1, 0, started(RunKind::Switchover))).unwrap();
    for step in before.steps.iter_mut() {
        let from = 10 * step.name as u64;
        step.state = StepState::Done;
        (step.started, step.ended) = (Some(at_ms(from)), Some(at_ms(from + 10)));
    }
    let mut now = RunFacts::begin(&record(1, 0, started(RunKind::Switchover))).unwrap();
    now.step_mut(Step::Preflight).state = StepState::Done;
    let fence = now.step_mut(Step::Fence);
    (fence.state, fence.started) = (StepState::Running, Some(at_ms(100)));
    let found = left(&now, Some(&before), at_ms(104)).unwrap();
    assert_eq!((found.behind, found.of), (1, 14));
    assert_eq!(found.eta_ms, Some(12 * 10 + 6));
    // A run of another kind says nothing about this one.
    before.started.run_kind = RunKind::Failover;
    assert_eq!(left(&now, Some(&before), at_ms(104)).unwrap().eta_ms, None);
    now.started.run_kind = RunKind::Drill;
    now.started.fence_only = true;
    assert_eq!(left(&now, None, at_ms(104)).unwrap().of, 3);
    now.state = RunState::Done;
    assert_eq!(left(&now, None, at_ms(104)), None);
}

fn at_ms(ms: u64) -> Timestamp {
    Timestamp::new(UNIX_EPOCH + Duration::from_millis(1_700_000_000_000 + ms))
}
