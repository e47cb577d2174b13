//! What of that which was sent and not answered may last, once the connection to the server is lost.
//!
//! The difference between "it was rolled back" (08006) and "nobody knows" (08007), so it errs to
//! the second. A statement lasts by the end of its transaction; within one that was still open
//! nothing does but its COMMIT, and what PostgreSQL does not undo.

use super::classify::{Effect, Eyes, Kind, Statement, Verdict, rule};
use super::track::{Group, Tx};

/// Effects that a rollback does not take back.
const OUTLIVES: [Effect; 9] = [
    Effect::AlterSystem,
    Effect::Dblink,
    Effect::LogicalMessage,
    Effect::Replication,
    Effect::Server,
    Effect::ServerFiles,
    Effect::Statistics,
    Effect::TwoPhase,
    Effect::Wal,
];

/// Whether something in these groups may have lasted. `sent` were closed by a Query or a Sync,
/// oldest first; `open` is a run that was not. `tx` is the state before the first of them.
pub(crate) fn may_last<'a>(
    tx: Tx,
    sent: impl Iterator<Item = &'a Group>,
    open: Option<&'a Group>,
    eyes: &Eyes,
) -> bool {
    let mut walk = Walk { tx };
    for group in sent {
        if walk.group(group, eyes, lasts_by_itself) {
            return true;
        }
    }
    // Without its Sync a run's implicit transaction does not commit.
    open.is_some_and(|group| walk.group(group, eyes, lasts_without_sync))
}

/// The transaction status that a client expects behind these groups, if each did what it says.
pub(crate) fn tx_behind<'a>(tx: Tx, groups: impl Iterator<Item = &'a Group>, eyes: &Eyes) -> Tx {
    let mut tx = tx;
    for group in groups {
        let all = group.judgements(eyes).unwrap_or_default();
        for statement in all.iter().flat_map(|j| &j.statements) {
            tx = match &statement.kind {
                Kind::Begin { .. } => Tx::Open,
                Kind::Commit { chain } | Kind::Rollback { chain } if *chain => Tx::Open,
                Kind::Commit { .. } | Kind::Rollback { .. } | Kind::PrepareTransaction => Tx::Idle,
                _ => tx,
            };
        }
    }
    tx
}

/// Whether all that these groups do is one transaction: then an id seen at their backend is its id.
pub(crate) fn is_single<'a>(
    tx: Tx,
    mut groups: impl Iterator<Item = &'a Group>,
    eyes: &Eyes,
) -> bool {
    let (Some(group), None) = (groups.next(), groups.next()) else {
        return false;
    };
    let Some(all) = group.judgements(eyes) else {
        return false;
    };
    let mut statements = all.iter().flat_map(|j| &j.statements);
    match tx {
        Tx::Idle => statements.all(keeps_its_transaction),
        // Its end, and nothing behind it.
        Tx::Open => match (statements.next_back(), statements.any(controls)) {
            (Some(last), false) => ends_for_good(last) || !controls(last),
            (_, _) => false,
        },
        Tx::Failed => false,
    }
}

fn ends_for_good(statement: &Statement) -> bool {
    matches!(
        statement.kind,
        Kind::Commit { chain: false } | Kind::PrepareTransaction
    )
}

fn controls(statement: &Statement) -> bool {
    statement.is_transaction_end() || matches!(statement.kind, Kind::Begin { .. })
}

struct Walk {
    tx: Tx,
}

impl Walk {
    fn group(&mut self, group: &Group, eyes: &Eyes, outside: fn(&Statement) -> bool) -> bool {
        let Some(all) = group.judgements(eyes) else {
            return self.tx != Tx::Failed;
        };
        let mut statements = all.iter().flat_map(|j| &j.statements);
        // The server has said that it failed, and with it everything in it.
        if group.failed && self.tx == Tx::Idle && !statements.clone().any(controls) {
            return statements.any(outlives);
        }
        statements.any(|statement| self.statement(statement, outside))
    }

    fn statement(&mut self, statement: &Statement, outside: fn(&Statement) -> bool) -> bool {
        match (self.tx, &statement.kind) {
            (Tx::Idle, Kind::Begin { .. }) | (Tx::Failed, Kind::RollbackTo) => self.tx = Tx::Open,
            (Tx::Idle, _) => return outside(statement),
            (Tx::Open, Kind::Commit { .. } | Kind::PrepareTransaction) => return true,
            (Tx::Open | Tx::Failed, Kind::Rollback { chain } | Kind::Commit { chain }) => {
                self.tx = if *chain { Tx::Open } else { Tx::Idle };
            }
            (Tx::Open, _) => return outlives(statement) || not_understood(statement),
            (Tx::Failed, _) => {}
        }
        false
    }
}

fn outlives(statement: &Statement) -> bool {
    OUTLIVES
        .iter()
        .any(|effect| effect.word() == statement.rule)
}

/// Anything may stand in it, also a COMMIT.
fn not_understood(statement: &Statement) -> bool {
    const RULES: [&str; 9] = [
        rule::TOO_LARGE,
        rule::ZERO_BYTE,
        rule::NOT_UTF8,
        rule::ENCODING,
        rule::STRINGS,
        rule::UNPARSABLE,
        rule::TOO_DEEP,
        rule::TOO_COSTLY,
        rule::SYNTAX,
    ];
    RULES.contains(&statement.rule)
}

/// Outside of a transaction, closed by a Query or a Sync.
fn lasts_by_itself(statement: &Statement) -> bool {
    let ended = statement.is_transaction_end();
    !ended && matches!(statement.verdict, Verdict::Write | Verdict::Uncertain)
}

/// Outside of a transaction, before a Sync: only what does not wait for one, as VACUUM or a
/// procedure that commits.
fn lasts_without_sync(statement: &Statement) -> bool {
    lasts_by_itself(statement) && !keeps_its_transaction(statement)
}

/// Known to run in one transaction, and to leave its end to others.
fn keeps_its_transaction(statement: &Statement) -> bool {
    const RULES: [&str; 15] = [
        rule::QUERY,
        rule::PLAN,
        rule::SHOW,
        rule::SETTING,
        rule::FUNCTION,
        rule::OPERATOR,
        rule::TYPE,
        rule::FIELD,
        rule::EXECUTE,
        rule::TEMPORARY,
        rule::DML,
        rule::INTO,
        rule::ROW_LOCK,
        rule::COPY_FROM,
        rule::SEQUENCE,
    ];
    RULES.contains(&statement.rule)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::pg::track::Shape;

    fn group(text: &str) -> Group {
        let mut group = Group::default();
        group.shape = Shape::Query;
        group.text = text.as_bytes().to_vec();
        group
    }

    fn lasts(tx: Tx, texts: &[&str]) -> bool {
        let groups: Vec<_> = texts.iter().map(|text| group(text)).collect();
        may_last(tx, groups.iter(), None, &Eyes::in_tests())
    }

    fn lasts_open(tx: Tx, text: &str) -> bool {
        let open = group(text);
        may_last(tx, std::iter::empty(), Some(&open), &Eyes::in_tests())
    }

    #[test]
    fn only_what_may_have_been_committed_may_last() {
        for (tx, texts, expected) in [
            (Tx::Idle, &["INSERT INTO t VALUES (1)"][..], true),
            (Tx::Idle, &["SELECT 1"], false),
            (Tx::Idle, &["BEGIN"], false),
            (Tx::Idle, &["BEGIN", "INSERT INTO t VALUES (1)"], false),
            (Tx::Idle, &["BEGIN; INSERT INTO t VALUES (1)"], false),
            (Tx::Idle, &["BEGIN; INSERT INTO t VALUES (1); COMMIT"], true),
            (Tx::Open, &["INSERT INTO t VALUES (1)"], false),
            (Tx::Open, &["CREATE TABLE u ()"], false),
            (Tx::Open, &["COMMIT"], true),
            (Tx::Open, &["COMMIT AND CHAIN"], true),
            (Tx::Open, &["PREPARE TRANSACTION 'x'"], true),
            (Tx::Open, &["ROLLBACK"], false),
            (Tx::Open, &["ROLLBACK", "INSERT INTO t VALUES (1)"], true),
            (Tx::Open, &["ROLLBACK AND CHAIN", "DELETE FROM t"], false),
            (
                Tx::Open,
                &["SELECT pg_logical_emit_message(false, 'a', 'b')"],
                true,
            ),
            (Tx::Open, &["what this grammar does not know"], true),
            (Tx::Failed, &["COMMIT"], false),
            (Tx::Failed, &["INSERT INTO t VALUES (1)"], false),
            (Tx::Failed, &["ROLLBACK TO s", "COMMIT"], true),
            (Tx::Failed, &["ROLLBACK", "INSERT INTO t VALUES (1)"], true),
            (Tx::Idle, &["COMMIT PREPARED 'x'"], true),
        ] {
            assert_eq!(lasts(tx, texts), expected, "{tx:?} {texts:?}");
        }
    }

    #[test]
    fn without_its_sync_a_run_lasts_only_by_what_does_not_wait_for_one() {
        assert!(!lasts_open(Tx::Idle, "INSERT INTO t VALUES (1)"));
        assert!(!lasts_open(Tx::Idle, "SELECT f()"));
        assert!(lasts_open(Tx::Idle, "VACUUM t"));
        assert!(lasts_open(Tx::Idle, "CALL p()"));
        assert!(lasts_open(Tx::Open, "COMMIT"));
        assert!(!lasts_open(Tx::Open, "INSERT INTO t VALUES (1)"));
    }

    #[test]
    fn what_has_failed_as_a_whole_does_not_last() {
        let mut failed = group("INSERT INTO t VALUES (1)");
        failed.failed = true;
        let eyes = Eyes::in_tests();
        assert!(!may_last(Tx::Idle, [&failed].into_iter(), None, &eyes));
        failed.text = b"BEGIN; INSERT INTO t VALUES (1); COMMIT; SELECT 1/0".to_vec();
        assert!(may_last(Tx::Idle, [&failed].into_iter(), None, &eyes));
    }

    #[test]
    fn a_commit_that_was_lost_has_ended_its_transaction_all_the_same() {
        let behind = |tx, texts: &[&str]| {
            let groups: Vec<_> = texts.iter().map(|text| group(text)).collect();
            tx_behind(tx, groups.iter(), &Eyes::in_tests())
        };
        assert_eq!(behind(Tx::Open, &["COMMIT"]), Tx::Idle);
        assert_eq!(behind(Tx::Open, &["DELETE FROM t", "END"]), Tx::Idle);
        assert_eq!(behind(Tx::Open, &["COMMIT AND CHAIN"]), Tx::Open);
        assert_eq!(behind(Tx::Open, &["DELETE FROM t"]), Tx::Open);
        assert_eq!(behind(Tx::Idle, &["BEGIN"]), Tx::Open);
        assert_eq!(behind(Tx::Open, &["ROLLBACK; BEGIN"]), Tx::Open);
    }

    #[test]
    fn an_id_is_taken_only_for_what_is_one_transaction() {
        let single = |tx, texts: &[&str]| {
            let groups: Vec<_> = texts.iter().map(|text| group(text)).collect();
            is_single(tx, groups.iter(), &Eyes::in_tests())
        };
        assert!(single(Tx::Idle, &["INSERT INTO t VALUES (1)"]));
        assert!(single(Tx::Idle, &["SELECT 1; INSERT INTO t VALUES (1)"]));
        assert!(single(Tx::Open, &["COMMIT"]));
        assert!(single(Tx::Open, &["INSERT INTO t VALUES (1); COMMIT"]));
        assert!(!single(Tx::Open, &["COMMIT; INSERT INTO t VALUES (1)"]));
        assert!(!single(Tx::Open, &["COMMIT AND CHAIN"]));
        assert!(!single(Tx::Idle, &["CALL p()"]));
        assert!(!single(Tx::Idle, &["DELETE FROM t", "DELETE FROM t"]));
    }
}
