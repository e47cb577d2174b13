//! Statements that control the transaction or the session: which kind they are.
//!
//! All of them are boundaries, except those of two-phase commit, which make something durable.

use pg_query::NodeEnum;
use pg_query::protobuf::{
    AConst, DiscardMode, Node, TransactionStmt, TransactionStmtKind, VariableSetKind,
    VariableSetStmt, a_const::Val,
};

use super::finding::{Finding, Verdict};
use super::kind::{Access, Kind};
use super::lens::Lens;
use super::policy::Effect;
use super::rule;

pub(super) fn transaction(stmt: &TransactionStmt, lens: Lens<'_>) -> (Kind, Finding) {
    use TransactionStmtKind as T;
    let boundary = |kind| (kind, Finding::boundary(rule::TRANSACTION));
    let two_phase = |kind| (kind, lens.effect(Effect::TwoPhase).by(stmt.gid.as_str()));
    match T::try_from(stmt.kind) {
        Ok(T::TransStmtBegin | T::TransStmtStart) => boundary(Kind::Begin {
            access: access(&stmt.options),
        }),
        Ok(T::TransStmtCommit) => boundary(Kind::Commit { chain: stmt.chain }),
        Ok(T::TransStmtRollback) => boundary(Kind::Rollback { chain: stmt.chain }),
        Ok(T::TransStmtSavepoint) => boundary(Kind::Savepoint),
        Ok(T::TransStmtRelease) => boundary(Kind::Release),
        Ok(T::TransStmtRollbackTo) => boundary(Kind::RollbackTo),
        Ok(T::TransStmtPrepare) => two_phase(Kind::PrepareTransaction),
        Ok(T::TransStmtCommitPrepared) => two_phase(Kind::CommitPrepared),
        Ok(T::TransStmtRollbackPrepared) => two_phase(Kind::RollbackPrepared),
        Ok(T::Undefined) | Err(_) => (Kind::Other, Finding::write(rule::SYNTAX)),
    }
}

pub(super) fn setting(stmt: &VariableSetStmt) -> (Kind, Finding) {
    use VariableSetKind as V;
    let name = stmt.name.to_ascii_lowercase();
    let kind = match V::try_from(stmt.kind) {
        Ok(V::VarSetMulti) => match name.as_str() {
            "session characteristics" => Kind::SetSessionCharacteristics {
                access: access(&stmt.args),
            },
            "transaction" | "transaction snapshot" => Kind::SetTransaction {
                access: access(&stmt.args),
            },
            _ => return (Kind::Other, Finding::write(rule::SYNTAX)),
        },
        Ok(V::VarSetValue | V::VarSetDefault | V::VarSetCurrent) => Kind::Set {
            name,
            local: stmt.is_local,
        },
        Ok(V::VarReset) => Kind::Reset { name },
        Ok(V::VarResetAll) => Kind::ResetAll,
        Ok(V::Undefined) | Err(_) => return (Kind::Other, Finding::write(rule::SYNTAX)),
    };
    (
        kind,
        Finding::boundary(rule::SETTING).by(stmt.name.to_ascii_lowercase()),
    )
}

/// The remaining session statements; `None` for any other node.
pub(super) fn control(node: &NodeEnum) -> Option<(Kind, Finding)> {
    let kind = match node {
        NodeEnum::VariableShowStmt(show) => {
            let name = show.name.to_ascii_lowercase();
            return Some((Kind::Show { name }, Finding::read(rule::SHOW)));
        }
        NodeEnum::DiscardStmt(discard) if discard.target == DiscardMode::DiscardAll as i32 => {
            Kind::DiscardAll
        }
        NodeEnum::DiscardStmt(_) => Kind::Discard,
        NodeEnum::ListenStmt(listen) => Kind::Listen {
            channel: listen.conditionname.clone(),
        },
        NodeEnum::UnlistenStmt(stmt) => Kind::Unlisten {
            channel: given(&stmt.conditionname),
        },
        NodeEnum::DeallocateStmt(stmt) => Kind::Deallocate {
            name: given(&stmt.name),
        },
        NodeEnum::ClosePortalStmt(_) | NodeEnum::ConstraintsSetStmt(_) => Kind::Other,
        _ => return None,
    };
    Some((kind, Finding::boundary(rule::SESSION)))
}

fn given(name: &str) -> Option<String> {
    (!name.is_empty()).then(|| name.to_owned())
}

/// The access mode among the options of a transaction statement. Of several the last holds on the
/// server; here READ WRITE holds wherever it stands, so that no spelling hides it.
fn access(options: &[Node]) -> Option<Access> {
    options
        .iter()
        .filter_map(access_of)
        .max_by_key(|access| *access == Access::ReadWrite)
}

fn access_of(option: &Node) -> Option<Access> {
    let Some(NodeEnum::DefElem(option)) = &option.node else {
        return None;
    };
    if option.defname != "transaction_read_only" {
        return None;
    }
    let value = option.arg.as_ref().and_then(|arg| arg.node.as_ref());
    let on = match value {
        Some(NodeEnum::AConst(AConst {
            val: Some(Val::Ival(integer)),
            ..
        })) => integer.ival != 0,
        Some(NodeEnum::Integer(integer)) => integer.ival != 0,
        _ => false,
    };
    Some(if on {
        Access::ReadOnly
    } else {
        Access::ReadWrite
    })
}

/// FETCH and MOVE: whatever the cursor's query does, happens now.
pub(super) fn fetch(cursor: &str) -> (Kind, Finding) {
    (
        Kind::Fetch,
        Finding::new(Verdict::Uncertain, rule::CURSOR, Some(cursor.to_owned())),
    )
}
