//! What `evidence` and the wire report, in the operator's words and with the operator's codes.

use writefence_admin::api::{ApiError, Code};

use super::super::error::{chain, refused};
use super::super::servers::Ticket;
use crate::evidence::BarrierError;
use crate::upstream::wire::QueryError;
use crate::upstream::{Identity, Region};

pub(super) fn not_asked(region: &Region, error: &QueryError) -> ApiError {
    let code = match error.server() {
        Some(_) => Code::Precondition,
        None => Code::TargetUnreachable,
    };
    refused(code, format!("region {region}: {}", chain(error)))
}

pub(super) fn not_barred(region: &Region, error: &BarrierError) -> ApiError {
    let text = format!("region {region}: {}", chain(error));
    match error {
        BarrierError::Query(query) => not_asked(region, query),
        BarrierError::OtherServer(_) => refused(Code::IdentityMismatch, text),
        BarrierError::Foreign(_) => refused(Code::ForeignWriters, text)
            .hint("end them there, or give the observer the right to, and repeat"),
        BarrierError::NotInForce { .. } => refused(Code::EvidenceMissing, text),
        BarrierError::Privilege { .. }
        | BarrierError::Held(_)
        | BarrierError::Busy { .. }
        | BarrierError::NotOurs { .. }
        | BarrierError::NotReloaded { .. }
        | BarrierError::Written { .. } => refused(Code::Precondition, text),
    }
}

pub(super) fn known(ticket: &Ticket) -> Result<Identity, ApiError> {
    ticket.identity.ok_or_else(|| {
        refused(
            Code::IdentityMismatch,
            "the identity of the primary in force is not known",
        )
    })
}
