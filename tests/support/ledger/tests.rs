//! The checker must find what is planted, and the clients must play their shapes on a real server.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::Result;

use super::*;
use crate::eventually::{pause, until};
use crate::postgres::{Options, skipped};

const SOON: Duration = Duration::from_secs(60);

const SIMPLE: Id = Id {
    shape: Shape::Simple,
    client: 0,
    seq: 1,
};
const TRANSACTION: Id = Id {
    shape: Shape::Transaction,
    client: 0,
    seq: 1,
};
const ASYNC: Id = Id {
    shape: Shape::AsyncCommit,
    client: 0,
    seq: 1,
};

fn op(id: Id, outcome: Outcome) -> Op {
    let (start, end) = (Duration::ZERO, Duration::from_millis(1));
    Op {
        id,
        start,
        end,
        outcome,
        sqlstate: None,
        lost: false,
    }
}

fn rows(of: &[(Id, i16, i64)]) -> Rows {
    let mut rows = Rows::default();
    for (id, part, count) in of {
        rows.add(*id, *part, *count);
    }
    rows
}

fn check(ops: &[Op], new: &Rows, old: Option<&Rows>, expected: &Findings) {
    assert_eq!(&judge(ops, new, old), expected);
}

#[test]
fn a_true_history_has_no_findings() {
    let ops = [
        op(SIMPLE, Outcome::Acked),
        op(TRANSACTION, Outcome::Unknown),
        op(Id { seq: 2, ..SIMPLE }, Outcome::Refused),
        op(Id { seq: 3, ..SIMPLE }, Outcome::Unknown),
    ];
    let new = rows(&[(SIMPLE, 0, 1), (TRANSACTION, 0, 1), (TRANSACTION, 1, 1)]);
    check(&ops, &new, Some(&new), &Findings::default());
}

#[test]
fn a_lost_acknowledgement_is_found() {
    let expected = Findings {
        acked_lost: vec![SIMPLE],
        ..Findings::default()
    };
    check(&[op(SIMPLE, Outcome::Acked)], &rows(&[]), None, &expected);
}

#[test]
fn a_transaction_of_which_one_row_is_missing_is_lost_and_torn() {
    let expected = Findings {
        acked_lost: vec![TRANSACTION],
        torn: vec![TRANSACTION],
        ..Findings::default()
    };
    check(
        &[op(TRANSACTION, Outcome::Acked)],
        &rows(&[(TRANSACTION, 1, 1)]),
        None,
        &expected,
    );
}

#[test]
fn a_loss_without_a_claim_to_durability_is_told_apart() {
    let findings = judge(&[op(ASYNC, Outcome::Acked)], &rows(&[]), None);
    assert_eq!((findings.acked_lost.len(), findings.durable_lost()), (1, 0));
}

#[test]
fn a_duplicate_is_found() {
    let expected = Findings {
        duplicates: vec![SIMPLE],
        ..Findings::default()
    };
    check(
        &[op(SIMPLE, Outcome::Acked)],
        &rows(&[(SIMPLE, 0, 2)]),
        None,
        &expected,
    );
}

#[test]
fn a_duplicate_of_an_unknown_outcome_is_found() {
    let expected = Findings {
        duplicates: vec![SIMPLE],
        ..Findings::default()
    };
    check(
        &[op(SIMPLE, Outcome::Unknown)],
        &rows(&[(SIMPLE, 0, 2)]),
        None,
        &expected,
    );
}

#[test]
fn a_refused_write_that_is_there_is_found() {
    let expected = Findings {
        refused_present: vec![SIMPLE],
        ..Findings::default()
    };
    check(
        &[op(SIMPLE, Outcome::Refused)],
        &rows(&[(SIMPLE, 0, 1)]),
        None,
        &expected,
    );
}

#[test]
fn a_failed_write_that_is_there_is_found() {
    let expected = Findings {
        failed_present: vec![SIMPLE],
        ..Findings::default()
    };
    check(
        &[op(SIMPLE, Outcome::Failed)],
        &rows(&[(SIMPLE, 0, 1)]),
        None,
        &expected,
    );
}

#[test]
fn an_acknowledgement_that_only_the_old_primary_holds_is_found() {
    let expected = Findings {
        acked_lost: vec![SIMPLE],
        acked_only_on_old: vec![SIMPLE],
        ..Findings::default()
    };
    let old = rows(&[(SIMPLE, 0, 1)]);
    check(
        &[op(SIMPLE, Outcome::Acked)],
        &rows(&[]),
        Some(&old),
        &expected,
    );
}

fn check_gap(successes: &[u64], from: u64, to: u64, expected: u64) {
    let successes: Vec<Duration> = successes
        .iter()
        .copied()
        .map(Duration::from_millis)
        .collect();
    let window = Window {
        from: Duration::from_millis(from),
        to: Duration::from_millis(to),
    };
    assert_eq!(longest(&successes, window), Duration::from_millis(expected));
}

#[test]
fn a_gap_counts_from_the_last_success_before_the_move() {
    check_gap(&[0, 8, 30, 32], 10, 33, 22);
}

#[test]
fn a_gap_that_ended_before_the_move_does_not_count() {
    check_gap(&[0, 90, 95, 105, 110], 100, 110, 10);
}

#[test]
fn a_client_that_never_comes_back_waits_to_the_end() {
    check_gap(&[8], 10, 100, 92);
    check_gap(&[], 10, 100, 90);
    check_gap(&[8, 120], 10, 100, 92);
}

#[test]
fn what_a_client_may_conclude() {
    let failure = |sqlstate: Option<&str>, lost, sent, not_executed| {
        Failure {
            sqlstate: sqlstate.map(str::to_owned),
            lost,
            sent,
            not_executed,
        }
        .outcome()
    };
    assert_eq!(
        failure(Some("25006"), false, Sent::Maybe, false),
        Outcome::Refused
    );
    assert_eq!(
        failure(Some("57P03"), false, Sent::Maybe, true),
        Outcome::Refused
    );
    assert_eq!(
        failure(Some("40001"), false, Sent::Maybe, false),
        Outcome::Failed
    );
    assert_eq!(
        failure(Some("08007"), false, Sent::Maybe, false),
        Outcome::Unknown
    );
    assert_eq!(
        failure(Some("57P01"), true, Sent::Maybe, false),
        Outcome::Unknown
    );
    assert_eq!(
        failure(Some("57P01"), true, Sent::No, false),
        Outcome::Failed
    );
    assert_eq!(
        failure(Some("08P01"), false, Sent::Maybe, false),
        Outcome::Unknown
    );
    assert_eq!(failure(None, true, Sent::Maybe, false), Outcome::Unknown);
}

#[test]
fn a_fatal_error_without_the_untranslated_severity_still_ends_the_connection() {
    let failure = wire::error(b"SFATAL\0C08P01\0Mserver conn crashed?\0\0");
    assert!(failure.lost);
    assert_eq!(failure.outcome(), Outcome::Unknown);
}

#[tokio::test]
async fn every_shape_writes_what_it_was_told_on_a_real_server() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let a = Cluster::create("a", &Options::default()).await?;
    let ledger = Ledger::create(&a).await?;
    let load = ledger.load(&Plan::new(Ledger::endpoint(a.port())))?;
    load.warm().await?;
    let from = load.now();
    pause(Duration::from_millis(300)).await;
    all_succeed(&load, from, 11).await?;
    let window = Window {
        from,
        to: load.now(),
    };
    let report = ledger.check(&load.stop().await?, window, &a, None).await?;
    assert_eq!(report.errors(), 0, "{report}");
    assert_eq!((report.connections_lost(), report.hung), (0, 0), "{report}");
    assert_eq!(report.findings, Findings::default());
    assert_eq!(report.shapes.len(), 9, "{report}");
    // Every client has had a success within the window, so none can have waited for all of the time.
    assert!(
        report.write.worst.is_some_and(|gap| gap < ms(window.to)),
        "{report}"
    );
    Ok(())
}

/// Waits until this many clients have had a success that they began after `from`.
async fn all_succeed(load: &Load, from: Duration, clients: usize) -> Result<()> {
    until("a further success of every client", SOON, async || {
        let ops = load.since(from);
        let well = |op: &&Op| op.outcome == Outcome::Acked && op.start >= from;
        let done = ops
            .iter()
            .filter(well)
            .map(|op| (op.id.shape, op.id.client));
        Ok(done.collect::<BTreeSet<_>>().len() == clients)
    })
    .await
}

#[tokio::test]
async fn a_crash_is_survived_by_clients_and_leaves_a_true_ledger() -> Result<()> {
    if skipped() {
        return Ok(());
    }
    let mut a = Cluster::create("a", &Options::default()).await?;
    let ledger = Ledger::create(&a).await?;
    let plan = Plan {
        shapes: vec![Shape::Simple, Shape::Pipelined, Shape::Copy],
        ..Plan::new(Ledger::endpoint(a.port()))
    };
    let load = ledger.load(&plan)?;
    load.warm().await?;
    let from = load.now();
    a.kill()?;
    until(
        "every client to have lost its connection",
        SOON,
        async || {
            let ops = load.since(from);
            let refused = ops.iter().any(|op| op.outcome == Outcome::NoConnection);
            Ok(refused && ops.iter().filter(|op| op.lost).count() >= 7)
        },
    )
    .await?;
    a.start().await?;
    all_succeed(&load, load.now(), 7).await?;
    let window = Window {
        from,
        to: load.now(),
    };
    let report = ledger.check(&load.stop().await?, window, &a, None).await?;
    assert_eq!(report.findings, Findings::default(), "{report}");
    assert!(report.connections_lost() >= 7, "{report}");
    assert!(report.count(Outcome::NoConnection) > 0, "{report}");
    assert!(
        report.write.worst.is_some_and(|gap| gap < ms(window.to)),
        "{report}"
    );
    Ok(())
}
