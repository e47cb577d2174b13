//! What a client is told when its statement or its session is refused. Nothing else words errors.
//!
//! A refusal by the fence means: not executed, safe to send again. The SQLSTATE can be chosen per
//! listener, since drivers and ORMs react to different ones; the DETAIL always says the epoch.

use std::time::Duration;

use super::message::Report;
use super::startup::HelloError;
use crate::gate::Epoch;
use crate::sessions::{Full, Who};

/// Who refuses, and with what.
#[derive(Clone, Debug)]
pub(crate) struct Fence<'a> {
    pub(crate) group: &'a str,
    pub(crate) epoch: Epoch,
    pub(crate) sqlstate: &'a str,
    pub(crate) retry_after: Duration,
}

impl Fence<'_> {
    fn report(&self, message: &str, detail: &str) -> Report {
        Report {
            severity: "ERROR",
            sqlstate: self.sqlstate.to_owned(),
            message: message.to_owned(),
            detail: Some(format!(
                "Not executed. Group \"{}\", epoch {}: {detail}.",
                self.group, self.epoch
            )),
            hint: Some(format!(
                "Reads go on. Send it again in {} s or more.",
                self.retry_after.as_secs().max(1)
            )),
        }
    }

    /// A write met the fence.
    pub(crate) fn write(&self, why: &str) -> Report {
        self.report(
            "writes are fenced: the primary is being moved",
            &format!("taken for a write ({why})"),
        )
    }

    /// A held write was not let through in time.
    pub(crate) fn expired(&self, held: Duration) -> Report {
        self.report(
            "writes are fenced: waited, and the fence was not opened in time",
            &format!("held for {} ms", held.as_millis()),
        )
    }

    /// The waiting room is full.
    pub(crate) fn full(&self, what: &str) -> Report {
        self.report("writes are fenced, and no more writes can be held", what)
    }

    /// A statement that would lead around the fence.
    pub(crate) fn way_out(&self, why: &str) -> Report {
        self.report(
            "writes are fenced: this statement would lead around the fence",
            why,
        )
    }
}

/// The connection to the server was lost while the outcome of a write was open.
pub(crate) fn unknown(region: &str) -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "08007".into(),
        message:
            "the connection to the server was lost; whether the statement took effect is not known"
                .into(),
        detail: Some(format!(
            "Region \"{region}\". The write is listed by \"writefencectl unknown list\"."
        )),
        hint: Some("Look before you send it again: it may have been executed.".into()),
    }
}

/// The connection to the server was lost with nothing undecided.
pub(crate) fn lost(region: &str, why: &str, rolled_back: bool) -> Report {
    let done = if rolled_back {
        "The transaction was rolled back"
    } else {
        "Nothing was changed"
    };
    Report {
        severity: "ERROR",
        sqlstate: "08006".into(),
        message: "the connection to the server was lost".into(),
        detail: Some(format!("{done}. Region \"{region}\": {why}.")),
        hint: Some("It is safe to send it again.".into()),
    }
}

/// No server could be reached.
pub(crate) fn unreachable(region: &str, waited: Duration, why: &str) -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "08006".into(),
        message: format!("the server of region \"{region}\" cannot be reached"),
        detail: Some(format!(
            "Not executed. Tried for {} ms; last: {why}.",
            waited.as_millis()
        )),
        hint: Some("It is safe to send it again.".into()),
    }
}

/// A login that was passed through ended in the middle; others are tried again.
pub(crate) fn cut_short(region: &str, why: &str) -> Report {
    Report {
        severity: "FATAL",
        sqlstate: "57P03".into(),
        message: format!(
            "the login was cut short by the server of region \"{region}\", as happens while the \
             primary is moved"
        ),
        detail: Some(format!("Nothing was executed. Last: {why}.")),
        hint: Some(
            "Connect again. Where auth is not \"passthrough\", that is done for the client.".into(),
        ),
    }
}

/// The server was reached and cannot be logged in to in this session's name.
pub(crate) fn no_login(region: &str, why: &str) -> Report {
    Report {
        severity: "FATAL",
        sqlstate: "28000".into(),
        message: format!("no login on the server of region \"{region}\": {why}"),
        ..Report::default()
    }
}

/// The transaction the client believes open has failed.
pub(crate) fn in_failed() -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "25P02".into(),
        message: "current transaction is aborted, commands ignored until end of transaction block"
            .into(),
        ..Report::default()
    }
}

/// A held or running statement was cancelled here.
pub(crate) fn cancelled() -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "57014".into(),
        message: "canceling statement due to user request".into(),
        detail: Some("Not executed: it was being held by the fence.".into()),
        hint: None,
    }
}

/// An operator had the open transaction or run undone.
pub(crate) fn undone() -> Report {
    Report {
        severity: "ERROR",
        sqlstate: "57014".into(),
        message: "the transaction was rolled back: an operator ended what kept a drain waiting"
            .into(),
        detail: Some("Nothing of it was executed.".into()),
        hint: Some("It is safe to send it again.".into()),
    }
}

/// The session cannot be moved to the new target, or cannot be continued where its server is gone.
pub(crate) fn unmovable(region: &str, moved: bool, reason: &str, waiting: bool) -> Report {
    let waiting = if waiting {
        " The statement that was waiting was not executed."
    } else {
        ""
    };
    Report {
        severity: "FATAL",
        sqlstate: "57P01".into(),
        message: match moved {
            true => format!(
                "the primary has moved to region \"{region}\" and this session cannot be moved with it"
            ),
            false => format!(
                "the server of this session is gone, and it cannot go on with region \"{region}\""
            ),
        },
        detail: Some(format!("Reason: {reason}.{waiting}")),
        hint: Some("Connect again: a new session is made on the primary.".into()),
    }
}

/// The session is ended by an operator or by the stop of the daemon.
pub(crate) fn ended(why: &str) -> Report {
    Report {
        severity: "FATAL",
        sqlstate: "57P01".into(),
        message: why.to_owned(),
        ..Report::default()
    }
}

/// The client broke the protocol.
pub(crate) fn offence(what: &str) -> Report {
    Report {
        severity: "FATAL",
        sqlstate: "08P01".into(),
        message: format!("protocol violation: {what}"),
        ..Report::default()
    }
}

/// A connection is refused for how it begins.
pub(crate) fn hello(e: &HelloError) -> Report {
    match e {
        HelloError::MustEncrypt => refused(
            "28000",
            e.to_string(),
            Some("Use sslmode=require, or better verify-full with its CA.".to_owned()),
        ),
        _ => offence(&e.to_string()),
    }
}

/// A connection is refused by a limit or for what it asks for.
pub(crate) fn refused(sqlstate: &str, message: String, hint: Option<String>) -> Report {
    Report {
        severity: "FATAL",
        sqlstate: sqlstate.into(),
        message,
        detail: None,
        hint,
    }
}

/// The client's message is larger than one may be.
pub(crate) fn too_large(bytes: usize, most: usize) -> Report {
    refused(
        "54000",
        format!("a message of {bytes} bytes is larger than limits.message, which is {most}"),
        Some("Not executed. Send it in parts, or have the limit raised.".into()),
    )
}

/// It said nothing for too long.
pub(crate) fn idle(limit: Duration, in_transaction: bool) -> Report {
    let (sqlstate, what, key) = match in_transaction {
        true => (
            "25P03",
            "idle-in-transaction timeout",
            "idle_in_transaction_timeout",
        ),
        false => ("57P05", "idle-session timeout", "idle_timeout"),
    };
    Report {
        detail: Some(format!("limits.{key} is {} ms.", limit.as_millis())),
        ..refused(
            sqlstate,
            format!("terminating connection due to {what}"),
            None,
        )
    }
}

/// There are as many sessions as there may be.
pub(crate) fn full(full: Full, who: &Who) -> Report {
    let message = match full {
        Full::All(most) => {
            format!("sorry, too many clients already: limits.sessions is {most}")
        }
        Full::User(most) => format!(
            "too many connections for role \"{}\": limits.sessions_per_user is {most}",
            who.user
        ),
        Full::Database(most) => format!(
            "too many connections for database \"{}\": limits.sessions_per_database is {most}",
            who.database
        ),
    };
    refused("53300", message, None)
}
