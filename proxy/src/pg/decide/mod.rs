//! What happens to a statement group while not everything may pass. Pure: data in, decision out.
//!
//! A group is looked at whole, before any of it is sent. The rules are DESIGN's: reads and what is
//! in doubt run under wall two, writes wait or are refused, a transaction that was open at the
//! fence may go on until it is sealed, and every known way out of wall two is shut. Where something
//! has to happen between two statements of a group, the group is cut there, and what is behind the
//! cut is looked at again when what is before it has been answered.

mod cut;
mod view;

use super::classify::{Access, Kind, Verdict};
use super::track::Tx;
use crate::gate::{Answer, Begin};

pub(crate) use cut::{REFUSED, apart, begins_anew, cut, cut_at, plant, rejoin, run_before_query};
pub(crate) use view::{Extent, GROUP, Step, View, extent, view};

/// What is known of the session and the fence when a group is decided on.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Circumstances {
    pub(crate) tx: Tx,
    /// The open transaction may not write any more.
    pub(crate) sealed: bool,
    pub(crate) answer: Answer,
    pub(crate) begin: Begin,
    /// The fence is for everything, reads too.
    pub(crate) all: bool,
}

/// What to do with a group.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Decision {
    /// Send it.
    Send(Manner, After),
    /// Only the statements before this one; the rest is looked at when they are answered.
    Cut(usize),
    /// The statements before this one, and a refusal in the place of it.
    Plant(usize, &'static str),
    /// It is a write: hold it or refuse it as the fence says.
    Write(&'static str),
    /// Refuse it whatever the fence's answer: waiting would not make it right.
    Refuse(&'static str),
    /// BEGIN under `reject` or `defer`: answered here, sent with the first statement.
    Defer,
    /// SHOW of the virtual variable: answered here.
    Show(String),
    /// Asks for what the client has already, as far as it can see: answered here with this command
    /// tag. Only a later write is refused.
    Accept(&'static str),
}

/// How a group is sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Manner {
    Plain,
    /// If PostgreSQL refuses it for being a write and nothing was relayed, it is a write.
    Doubt,
    /// As in doubt, and inside a read-only transaction of ours: its code may end the transaction
    /// it runs in and begin one that writes, which PostgreSQL forbids inside a block.
    Wrapped,
}

/// What has to be put right after a group that was sent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct After {
    /// It lowered wall two: that has to be raised again.
    pub(crate) rewall: bool,
    /// What the server says of the virtual variable now is the client's own value.
    pub(crate) own: bool,
    /// It went back to a savepoint: a sealed transaction has to be sealed again.
    pub(crate) reseal: bool,
    /// It began a transaction that says itself that it only reads.
    pub(crate) sealed: bool,
    /// It ended a transaction and began the next: that one has to be sealed.
    pub(crate) chained: bool,
}

impl After {
    /// Both.
    pub(crate) fn and(self, other: Self) -> Self {
        Self {
            rewall: self.rewall | other.rewall,
            own: self.own | other.own,
            reseal: self.reseal | other.reseal,
            sealed: self.sealed | other.sealed,
            chained: self.chained | other.chained,
        }
    }
}

/// The variable behind wall two, and that of the transaction which follows it.
const DEFAULT: &str = "default_transaction_read_only";
const CURRENT: &str = "transaction_read_only";

/// Why a COMMIT inside a group has to be the last of its part, and the like: how one statement
/// gets along with those around it.
enum Stand {
    /// Goes with others.
    Fine,
    Doubt,
    Wrap,
    /// Goes with those before it, and something has to be put right before those behind it.
    Last(After),
    /// Something is done about it that is done about no other.
    Alone(Decision),
    /// A write.
    Never(&'static str),
    /// A way around the fence.
    Out(&'static str),
}

/// Decides on a group.
pub(crate) fn decide(view: &View, now: Circumstances) -> Decision {
    if now.all && now.tx == Tx::Idle {
        return Decision::Write("the fence is for all statements");
    }
    if let Some(why) = view.opaque {
        return if now.tx == Tx::Open && !now.sealed {
            Decision::Send(Manner::Plain, After::default())
        } else {
            Decision::Write(why)
        };
    }
    if now.tx == Tx::Idle
        && now.answer == Answer::Hold
        && let Some(decision) = held_whole(&view.steps, now)
    {
        return decision;
    }
    one_by_one(view, now)
}

/// Under `hold` a group with a write in it waits whole: it was sent as one transaction.
fn held_whole(steps: &[Step], now: Circumstances) -> Option<Decision> {
    for step in steps {
        if let Stand::Never(why) | Stand::Out(why) = outside(step, now) {
            return Some(Decision::Write(why));
        }
    }
    let doubt = |s: &Step| match outside(s, now) {
        Stand::Doubt | Stand::Wrap => s.kind != Kind::Fetch,
        _ => false,
    };
    if steps.iter().any(doubt) && steps.iter().any(outlives_failure) {
        // Tried and refused it would be run again after the fence, on top of what stayed.
        return Some(Decision::Write(
            "it may write, and what it does cannot be undone",
        ));
    }
    let opens =
        |s: &&Step| matches!(&s.kind, Kind::Begin { access } if *access != Some(Access::ReadOnly));
    steps.iter().find(opens)?;
    if begin(now) == Decision::Defer {
        return None;
    }
    // Its transaction may write later, unless it ends here and all of it reads.
    let closes = steps.last().is_some_and(|s| is_end(&s.kind));
    let reads = |s: &Step| match &s.kind {
        Kind::Begin { access } => *access != Some(Access::ReadWrite),
        kind if is_end(kind) => true,
        _ => s.verdict == Verdict::Read,
    };
    Some(if closes && steps.iter().all(reads) {
        Decision::Send(Manner::Plain, After::default())
    } else {
        Decision::Write("transaction")
    })
}

/// What it does to its session stays when its group fails.
fn outlives_failure(step: &Step) -> bool {
    let text = step.text.to_ascii_lowercase();
    let kept = matches!(
        step.kind,
        Kind::Prepare { .. } | Kind::Deallocate { .. } | Kind::Discard | Kind::Fetch
    );
    kept || text.contains("advisory") || text.contains("dblink")
}

fn one_by_one(view: &View, now: Circumstances) -> Decision {
    let steps = &view.steps;
    let mut manner = Manner::Plain;
    for (n, step) in steps.iter().enumerate() {
        let stand = match now.tx {
            Tx::Idle => outside(step, now),
            Tx::Open if now.sealed => sealed(step),
            Tx::Open => open(step),
            Tx::Failed => failed(step),
        };
        let (first, last) = (n == 0, n + 1 == steps.len());
        match stand {
            Stand::Fine => {}
            // Refused by PostgreSQL where it is not alone.
            Stand::Last(_) if view.simple && steps.len() > 1 && step.kind == Kind::DiscardAll => {}
            Stand::Doubt if manner == Manner::Plain => manner = Manner::Doubt,
            Stand::Doubt => {}
            Stand::Wrap => manner = Manner::Wrapped,
            // What ends a transaction must not end the one that is wrapped around the others.
            Stand::Last(_) if manner == Manner::Wrapped => return Decision::Cut(n),
            Stand::Last(_) if !last => return Decision::Cut(n + 1),
            Stand::Last(after) => return Decision::Send(manner, after),
            Stand::Alone(_) if !first => return Decision::Cut(n),
            Stand::Alone(_) if !last => return Decision::Cut(1),
            Stand::Alone(decision) => return decision,
            Stand::Never(why) | Stand::Out(why) if !first => return Decision::Plant(n, why),
            Stand::Never(why) => return Decision::Write(why),
            Stand::Out(why) => return Decision::Refuse(why),
        }
    }
    Decision::Send(manner, After::default())
}

/// A statement outside a transaction, under wall two.
fn outside(step: &Step, now: Circumstances) -> Stand {
    match &step.kind {
        Kind::Begin {
            access: Some(Access::ReadOnly),
        } => Stand::Last(After {
            sealed: true,
            ..After::default()
        }),
        Kind::Begin { .. } => Stand::Alone(begin(now)),
        // Without a transaction they end the implicit one all the same.
        Kind::Commit { .. } | Kind::Rollback { .. } => Stand::Last(After::default()),
        Kind::Show { name } if name == DEFAULT || name == CURRENT => {
            Stand::Alone(Decision::Show(name.clone()))
        }
        _ => virtually(step).unwrap_or_else(|| by_verdict(step)),
    }
}

/// A statement of an open transaction that may write.
fn open(step: &Step) -> Stand {
    match &step.kind {
        Kind::PrepareTransaction => Stand::Out("a prepared transaction would outlive the fence"),
        Kind::Show { name } if name == DEFAULT => Stand::Alone(Decision::Show(name.clone())),
        kind if is_end(kind) => Stand::Last(at_end(kind)),
        kind if sets_default(kind) => Stand::Last(lowered(kind)),
        _ => Stand::Fine,
    }
}

/// A statement of an open transaction that may not write any more.
fn sealed(step: &Step) -> Stand {
    match &step.kind {
        Kind::PrepareTransaction => Stand::Out("a prepared transaction would outlive the fence"),
        Kind::Show { name } if name == DEFAULT => Stand::Alone(Decision::Show(name.clone())),
        Kind::RollbackTo => Stand::Last(After {
            reseal: true,
            ..After::default()
        }),
        Kind::Begin {
            access: Some(Access::ReadWrite),
        } => Stand::Alone(Decision::Accept("BEGIN")),
        kind if is_end(kind) => Stand::Last(at_end(kind)),
        _ => match virtually(step).unwrap_or_else(|| by_verdict(step)) {
            // Inside a block nothing that it calls can end it.
            Stand::Doubt | Stand::Wrap => Stand::Fine,
            stand => stand,
        },
    }
}

/// A statement of a failed transaction: the server refuses all but its end and ROLLBACK TO.
fn failed(step: &Step) -> Stand {
    match &step.kind {
        Kind::RollbackTo => Stand::Last(After {
            reseal: true,
            ..After::default()
        }),
        kind if is_end(kind) => Stand::Last(at_end(kind)),
        _ => Stand::Fine,
    }
}

/// A BEGIN that may write.
fn begin(now: Circumstances) -> Decision {
    match (now.begin, now.answer) {
        (Begin::Hold, _) | (Begin::Auto, Answer::Hold) => Decision::Write("transaction"),
        (Begin::Defer, _) | (Begin::Auto, Answer::Reject) => Decision::Defer,
    }
}

/// Statements about the two variables. Drivers ask for READ WRITE before they know whether they
/// will write: that is accepted, and only a write is refused.
fn virtually(step: &Step) -> Option<Stand> {
    Some(match &step.kind {
        Kind::SetTransaction {
            access: Some(Access::ReadWrite),
        } if is_plain(&step.text) => Stand::Alone(Decision::Accept("SET")),
        // The rest of what it sets can neither be dropped nor sent without it.
        Kind::SetTransaction {
            access: Some(Access::ReadWrite),
        } => Stand::Out("READ WRITE together with another transaction mode"),
        Kind::Set { name, .. } if name == CURRENT => Stand::Alone(Decision::Accept("SET")),
        Kind::Reset { name } if name == CURRENT => Stand::Alone(Decision::Accept("RESET")),
        kind if sets_default(kind) => Stand::Last(lowered(kind)),
        _ => return None,
    })
}

fn by_verdict(step: &Step) -> Stand {
    match (step.verdict, &step.kind) {
        (Verdict::Read | Verdict::Boundary, _) => Stand::Fine,
        (Verdict::Uncertain, Kind::Procedure) => Stand::Wrap,
        (Verdict::Uncertain, _) => Stand::Doubt,
        (Verdict::Write, _) => Stand::Never(step.rule),
    }
}

/// Changes what the next transaction begins as. Nothing may run behind it before wall two is raised
/// again: how far its own transaction reaches is not always to be seen in a pipeline.
fn sets_default(kind: &Kind) -> bool {
    match kind {
        Kind::Set { name, .. } | Kind::Reset { name } => name == DEFAULT,
        Kind::SetSessionCharacteristics { access } => access.is_some(),
        Kind::ResetAll | Kind::DiscardAll => true,
        _ => false,
    }
}

fn lowered(kind: &Kind) -> After {
    After {
        rewall: true,
        own: !matches!(kind, Kind::Set { local: true, .. }),
        ..After::default()
    }
}

fn is_end(kind: &Kind) -> bool {
    matches!(kind, Kind::Commit { .. } | Kind::Rollback { .. })
}

fn at_end(kind: &Kind) -> After {
    After {
        chained: matches!(
            kind,
            Kind::Commit { chain: true } | Kind::Rollback { chain: true }
        ),
        ..After::default()
    }
}

/// SET TRANSACTION READ WRITE and nothing else.
fn is_plain(text: &str) -> bool {
    let words = text.split_ascii_whitespace();
    words
        .map(str::to_ascii_lowercase)
        .eq(["set", "transaction", "read", "write"])
}

#[cfg(test)]
mod tests;
