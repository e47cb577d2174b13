//! Which rights the observer's role lacks, as the exact statements that give them.
//!
//! Asked before acting: in the middle of a fence is a bad time to learn of a missing GRANT, and
//! masked columns of pg_stat_activity do not even fail. Parameters can be granted since
//! PostgreSQL 15; before that the barrier needs a superuser.

use super::wire::rows::{flag, text};
use super::wire::{Client, QueryError, Row};

/// For what the rights are needed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Need {
    /// Seeing who writes.
    Observe,
    /// Raising and lifting the barrier.
    Barrier,
    /// Promoting a candidate. To be granted on the primary: the candidate's catalog follows it.
    Promote,
}

/// Statements that would give the role what it lacks; empty when nothing is missing.
///
/// # Errors
/// See [`QueryError`].
pub async fn missing_grants(
    client: &mut Client,
    needs: &[Need],
) -> Result<Vec<String>, QueryError> {
    let mut answers = client
        .query_batch(&[QUESTION, PARAMETERS])
        .await?
        .into_iter();
    // has_parameter_privilege is missing before PostgreSQL 15, and so is what it would tell.
    let mut next = || answers.next()?.ok()?.pop()?.pop();
    let (row, able) = (next(), next());
    let grants = row.and_then(|row| read(&row, able.as_ref(), needs));
    grants.ok_or_else(|| client.answer_error("privileges"))
}

const QUESTION: &str = "SELECT quote_ident(current_user), rolsuper, rolreplication, \
     pg_has_role('pg_read_all_stats', 'USAGE'), pg_has_role('pg_signal_backend', 'USAGE'), \
     has_function_privilege('pg_catalog.pg_reload_conf()', 'EXECUTE'), \
     has_function_privilege('pg_catalog.pg_promote(boolean, integer)', 'EXECUTE'), \
     pg_has_role('pg_read_all_settings', 'USAGE') \
     FROM pg_roles WHERE rolname = current_user";

/// In the order of the columns of `PARAMETERS`.
const PARAMETER_NAMES: [&str; 2] = ["default_transaction_read_only", "writefence.barrier"];

const PARAMETERS: &str = "SELECT \
     has_parameter_privilege('default_transaction_read_only', 'ALTER SYSTEM'), \
     has_parameter_privilege('writefence.barrier', 'ALTER SYSTEM')";

/// `None` when the answer is not of the expected form.
pub(super) fn read(row: &Row, able: Option<&Row>, needs: &[Need]) -> Option<Vec<String>> {
    let role = text(row, 0)?;
    if flag(row, 1)? {
        return Some(Vec::new());
    }
    let mut grants = Vec::new();
    let mut need = |have: Option<bool>, grant: String| {
        let grant = format!("{grant};");
        if have != Some(true) && !grants.contains(&grant) {
            grants.push(grant);
        }
    };
    let function = |name: &str| format!("GRANT EXECUTE ON FUNCTION {name} TO {role}");
    let sees = flag(row, 3)
        .zip(flag(row, 7))
        .map(|(stats, settings)| stats && settings);
    for which in needs {
        // Both memberships come with pg_monitor.
        need(sees, format!("GRANT pg_monitor TO {role}"));
        match which {
            Need::Observe => need(flag(row, 2), format!("ALTER ROLE {role} REPLICATION")),
            Need::Promote => need(flag(row, 6), function("pg_promote")),
            Need::Barrier => {
                need(flag(row, 4), format!("GRANT pg_signal_backend TO {role}"));
                need(flag(row, 5), function("pg_reload_conf"));
                for (column, name) in PARAMETER_NAMES.iter().enumerate() {
                    let grant = match able {
                        Some(_) => format!("GRANT ALTER SYSTEM ON PARAMETER {name} TO {role}"),
                        None => format!("ALTER ROLE {role} SUPERUSER"),
                    };
                    need(able.and_then(|row| flag(row, column)), grant);
                }
            }
        }
    }
    Some(grants)
}
