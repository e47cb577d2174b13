//! The report of scripted runs, beside its schema.

use serde_json::Value;

use super::*;
use crate::api::{ApiError, Certificate, Evidence};
use crate::api::{Code, Doc, EvidenceKind, FenceAnswer, RunKind, RunState};
use crate::runbook::{
    Fact, FenceLsn, Fenced, Opened, Pinned, Promoted, Record, RunFacts, Started, fold,
};

fn at(ms: u64) -> Timestamp {
    use std::time::{Duration, UNIX_EPOCH};
    Timestamp::new(UNIX_EPOCH + Duration::from_millis(1_772_366_400_000 + ms))
}

fn started(run_kind: RunKind) -> Fact {
    Fact::Started(Started {
        group: "main".into(),
        run_kind,
        from: Some("a".into()),
        to: Some("b".into()),
        reason: "INC-1 | <b>\n# no title".into(),
        actor: "uid=0".into(),
        budget_ms: Some(15_000),
        accept_loss: false,
        force_stragglers: false,
        fence_only: false,
    })
}

/// A run through all its steps, ten milliseconds per record.
fn journal(run_kind: RunKind, measured: Measured) -> (RunFacts, Vec<Record>) {
    let evidence = Evidence {
        kind: EvidenceKind::Barrier,
        at: at(30),
        detail: "read-only".into(),
    };
    let fence_lsn = FenceLsn {
        lsn: "0/3000060".into(),
        system_identifier: "73".into(),
        timeline: 1,
    };
    let mut facts = vec![started(run_kind)];
    for step in Step::ALL {
        facts.push(Fact::StepStarted { step });
        match step {
            Step::Fence => facts.push(Fact::Fence(Fenced {
                epoch: 4,
                answer: FenceAnswer::Hold,
                hold_ms: None,
            })),
            Step::Evidence => {
                let evidence = evidence.clone();
                facts.push(Fact::Evidence { evidence });
                facts.push(Fact::FenceLsn(fence_lsn.clone()));
            }
            Step::Certificate => facts.push(Fact::Certificate {
                certificate: Certificate {
                    group: "main".into(),
                    epoch: 4,
                    fenced_at: at(20),
                    executing: 0,
                    orphaned: 0,
                    unknown: 0,
                    evidence: evidence.clone(),
                    fence_lsn: Some("0/3000060".into()),
                    system_identifier: Some("73".into()),
                    timeline: Some(1),
                    acks: vec![],
                },
            }),
            Step::Pnr => facts.push(Fact::Pnr {
                candidate: Pinned {
                    region: "b".into(),
                    system_identifier: None,
                    timeline: Some(1),
                },
            }),
            Step::Promote => facts.push(Fact::Promoted(Promoted {
                region: "b".into(),
                system_identifier: Some("73".into()),
                timeline: Some(2),
                fork_lsn: Some("0/3000100".into()),
                next_xid: Some(800),
            })),
            Step::Open => facts.push(Fact::Open(Opened {
                region: "b".into(),
                epoch: 5,
            })),
            Step::Verify => facts.push(Fact::Exception {
                text: "a check | failed".into(),
            }),
            Step::Report => facts.push(Fact::Measured(measured.clone())),
            _ => {}
        }
        facts.push(Fact::StepDone {
            step,
            findings: vec![],
        });
    }
    facts.push(Fact::State {
        state: RunState::Done,
        error: None,
    });
    records(facts)
}

fn records(facts: Vec<Fact>) -> (RunFacts, Vec<Record>) {
    let records: Vec<Record> = (1..)
        .zip(facts)
        .map(|(seq, fact)| Record {
            seq,
            at: at(seq * 10),
            run: "r1".into(),
            fact,
        })
        .collect();
    (fold(&records).unwrap(), records)
}

fn measured() -> Measured {
    Measured {
        write_gap_ms: Some(80),
        last_write_before: None,
        first_write_after: Some(at(500)),
        first_was_held: Some(true),
        held: Some(7),
        longest_hold_ms: Some(79),
        old_primary_last_seen: Some(at(100)),
        lost_bytes: Some(0),
        rto_ms: Some(300),
        rpo_ms: Some(0),
        ..Measured::default()
    }
}

fn report(kind: RunKind, measured: Measured) -> Report {
    let (facts, records) = journal(kind, measured);
    let audit = Audited {
        key: "k".into(),
        size: 12,
        checkpoint: "o\n12\nr\n\n— o x\n".into(),
    };
    build(&facts, &records, vec![], Some(audit), at(9_000))
}

#[test]
fn a_planned_move_is_measured_by_its_write_gap() {
    let report = report(RunKind::Switchover, measured());
    let o = &report.objectives;
    assert_eq!((o.recovery_ms, o.rto_met), (Some(80), Some(true)));
    assert_eq!((o.lost_bytes, o.rpo_met), (Some(0), Some(true)));
    assert_eq!(report.lineage.fork_lsn.as_deref(), Some("0/3000100"));
    assert_eq!(report.steps.len(), Step::ALL.len());
    let drain = report.steps.iter().find(|s| s.step == Step::Drain).unwrap();
    assert_eq!(drain.took_ms, Some(10));
    assert!(report.timeline.iter().all(|event| !event.text.is_empty()));
}

#[test]
fn a_failover_is_measured_from_the_last_sign_of_life() {
    let cost = Measured {
        lost_bytes: Some(4096),
        ..measured()
    };
    let o = report(RunKind::Failover, cost).objectives;
    assert_eq!((o.recovery_ms, o.rto_met), (Some(400), Some(false)));
    assert_eq!((o.lost_bytes, o.rpo_met), (Some(4096), Some(false)));
}

#[test]
fn what_nobody_saw_is_neither_met_nor_missed() {
    let cost = Measured {
        rto_ms: Some(300),
        rpo_ms: Some(1000),
        lost_bytes: Some(10),
        ..Measured::default()
    };
    let o = report(RunKind::Switchover, cost).objectives;
    // Ten bytes are lost; how much time of writes that is has not been measured.
    assert_eq!((o.recovery_ms, o.rto_met, o.rpo_met), (None, None, None));
}

#[test]
fn the_page_says_what_matters_and_no_text_breaks_it() {
    let page = markdown(&report(RunKind::Switchover, measured()));
    for wanted in [
        "# switchover of main: a → b",
        "| write gap | 80 ms | to the first held write that was acknowledged |",
        "| recovery time | 80 ms | RTO 300 ms: met |",
        "| log lost | 0 bytes | RPO 0 ms: met |",
        "| read gap | unknown |",
        "INC-1 \\| &lt;b> # no title",
        "- waived: a check \\| failed",
        "| drain | 2026-03-01T12:00:00.070Z | 10 ms | done |",
        "timeline 2 left it at 0/3000100",
    ] {
        assert!(page.contains(wanted), "{wanted:?} is not in\n{page}");
    }
}

#[test]
fn every_report_is_as_its_schema_says() {
    let text = include_str!("../../report.schema.json");
    let schema: Value = serde_json::from_str(text).unwrap();
    let mut failed = vec![started(RunKind::Failover)];
    failed.push(Fact::State {
        state: RunState::Failed,
        error: Some(ApiError::new(Code::TargetUnreachable, "b does not answer")),
    });
    let (facts, journal) = records(failed);
    let bare = build(&facts, &journal, vec![], None, at(9));
    for report in [report(RunKind::Switchover, measured()), bare] {
        let document = serde_json::to_value(Doc::new(&report)).unwrap();
        check(&schema, &schema, &document, "report");
        // Nothing is printed that the schema does not tell of.
        let (told, printed) = (&schema["properties"], document.as_object().unwrap());
        assert!(printed.keys().all(|name| told.get(name).is_some()));
    }
    let mut wrong = serde_json::to_value(Doc::new(report(RunKind::Failover, measured()))).unwrap();
    wrong["objectives"]["rto_met"] = Value::from("yes");
    assert!(!holds(&schema, &schema, &wrong));
}

/// The part of JSON Schema that the file uses.
fn problems(root: &Value, schema: &Value, value: &Value, path: &str) -> Vec<String> {
    let mut found = Vec::new();
    if let Some(name) = schema["$ref"].as_str() {
        let target = root.pointer(name.trim_start_matches('#')).unwrap();
        return problems(root, target, value, path);
    }
    if let Some(options) = schema["anyOf"].as_array() {
        if !options.iter().any(|option| holds(root, option, value)) {
            found.push(format!("{path}: none of the forms"));
        }
        return found;
    }
    let is = |kind: &Value| match kind.as_str().unwrap() {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "integer" => value.is_u64(),
        "boolean" => value.is_boolean(),
        "null" => value.is_null(),
        other => unreachable!("type {other} is not used"),
    };
    let fits = match &schema["type"] {
        Value::Null => true,
        Value::Array(kinds) => kinds.iter().any(is),
        kind => is(kind),
    };
    let listed = schema["enum"].as_array().is_none_or(|l| l.contains(value));
    let constant = schema.get("const").is_none_or(|only| only == value);
    if !fits || !listed || !constant {
        found.push(format!("{path}: {value}"));
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        if value.get(name.as_str().unwrap()).is_none() {
            found.push(format!("{path}: no {name}"));
        }
    }
    for (name, part) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(value) = value.get(name) {
            found.extend(problems(root, part, value, &format!("{path}.{name}")));
        }
    }
    for item in value.as_array().into_iter().flatten() {
        if schema.get("items").is_some() {
            found.extend(problems(root, &schema["items"], item, &format!("{path}[]")));
        }
    }
    found
}

fn holds(root: &Value, schema: &Value, value: &Value) -> bool {
    problems(root, schema, value, "").is_empty()
}

fn check(root: &Value, schema: &Value, value: &Value, path: &str) {
    let found = problems(root, schema, value, path);
    assert!(found.is_empty(), "{found:#?}");
}
