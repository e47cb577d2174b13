//! Who holds the barrier on a server, and who may touch it: the rules, without IO.
//!
//! ALTER SYSTEM is not transactional and carries no condition, so a delayed call of an earlier run
//! could close a primary that is open again, or lift the barrier of the next run. Therefore each
//! barrier leaves a marker in the server's own configuration (`writefence.barrier`), a lift leaves
//! one too, and every call compares before it acts, alone under a lock (see `lock`). Epochs only
//! grow, but only within one scope: two daemons without a common store count apart.

use std::fmt;
use std::str::FromStr;

/// On whose behalf a barrier is raised or lifted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Token {
    scope: String,
    run: String,
    epoch: u64,
}

/// The longest scope or run name, in bytes; the marker must stay one readable line.
const MAX_NAME: usize = 100;

impl Token {
    /// `scope` is where epochs are comparable: the daemon's instance or its fleet, with the group.
    ///
    /// # Errors
    /// A name is empty, too long, or has other characters than letters, digits and `._:/-`.
    pub fn new(scope: &str, run: &str, epoch: u64) -> Result<Self, BadToken> {
        let plain = |c: char| c.is_ascii_alphanumeric() || "._:/-".contains(c);
        for name in [scope, run] {
            if name.is_empty() || name.len() > MAX_NAME || !name.chars().all(plain) {
                return Err(BadToken {
                    name: name.to_owned(),
                });
            }
        }
        Ok(Self {
            scope: scope.to_owned(),
            run: run.to_owned(),
            epoch,
        })
    }

    /// The run.
    pub fn run(&self) -> &str {
        &self.run
    }

    /// The epoch of the fence.
    pub const fn epoch(&self) -> u64 {
        self.epoch
    }
}

/// A name that cannot stand in a marker.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} cannot name a run or a scope (1 to 100 letters, digits and ._:/- are accepted)")]
pub struct BadToken {
    /// What was given.
    pub name: String,
}

/// What the marker says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum MarkerState {
    /// The barrier stands.
    Standing,
    /// It was lifted; kept so that a late call of that run is recognised.
    Lifted,
}

/// The value of `writefence.barrier`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Marker {
    /// Standing or lifted.
    pub state: MarkerState,
    /// By whom.
    pub token: Token,
}

impl fmt::Display for Marker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let state = match self.state {
            MarkerState::Standing => "standing",
            MarkerState::Lifted => "lifted",
        };
        let Token { scope, run, epoch } = &self.token;
        write!(f, "{state} epoch={epoch} run={run} scope={scope}")
    }
}

impl FromStr for Marker {
    type Err = ();

    fn from_str(text: &str) -> Result<Self, ()> {
        let words: Vec<_> = text.split(' ').collect();
        let [state, epoch, run, scope] = words[..] else {
            return Err(());
        };
        let state = match state {
            "standing" => MarkerState::Standing,
            "lifted" => MarkerState::Lifted,
            _ => return Err(()),
        };
        let epoch = epoch
            .strip_prefix("epoch=")
            .and_then(|n| n.parse().ok())
            .ok_or(())?;
        let run = run.strip_prefix("run=").ok_or(())?;
        let scope = scope.strip_prefix("scope=").ok_or(())?;
        Ok(Self {
            state,
            token: Token::new(scope, run, epoch).map_err(|_| ())?,
        })
    }
}

/// Whether a barrier of another scope may be overruled.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Only what is ours.
    Own,
    /// The operator has said that the other holder is gone for good.
    TakeOver,
}

/// Somebody else's barrier, or a later one of ours.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("the server's barrier is another's: {marker}")]
pub struct Held {
    /// What stands in `writefence.barrier`.
    pub marker: String,
}

/// What a lift has to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LiftWork {
    Lift,
    Nothing,
}

/// Reads what the server holds. Text of another form is nobody's that we know, hence not ours.
fn read(text: Option<&str>) -> Result<Option<Marker>, Held> {
    match text.filter(|text| !text.is_empty()) {
        None => Ok(None),
        Some(text) => text.parse().map(Some).map_err(|()| Held {
            marker: text.to_owned(),
        }),
    }
}

/// May `token` raise its barrier where `text` stands?
pub(super) fn may_raise(text: Option<&str>, token: &Token, claim: Claim) -> Result<(), Held> {
    let marker = match (read(text), claim) {
        (Ok(Some(marker)), _) => marker,
        (Ok(None), _) | (Err(_), Claim::TakeOver) => return Ok(()),
        (Err(held), Claim::Own) => return Err(held),
    };
    let free = if marker.token.scope == token.scope {
        let repeated = marker.token == *token && marker.state == MarkerState::Standing;
        marker.token.epoch < token.epoch || repeated
    } else {
        marker.state == MarkerState::Lifted || claim == Claim::TakeOver
    };
    if free {
        Ok(())
    } else {
        Err(Held {
            marker: marker.to_string(),
        })
    }
}

/// May `token` lift what stands there? Lifting nothing is no error: a lift may be repeated.
pub(super) fn may_lift(text: Option<&str>, token: &Token, claim: Claim) -> Result<LiftWork, Held> {
    let marker = match (read(text), claim) {
        (Ok(Some(marker)), _) => marker,
        (Ok(None), _) => return Ok(LiftWork::Nothing),
        (Err(_), Claim::TakeOver) => return Ok(LiftWork::Lift),
        (Err(held), Claim::Own) => return Err(held),
    };
    let ours = marker.token == *token
        || (marker.token.scope == token.scope && marker.token.epoch < token.epoch);
    match (ours, marker.state, claim) {
        (true, MarkerState::Standing, _) => Ok(LiftWork::Lift),
        (true, MarkerState::Lifted, _) => Ok(LiftWork::Nothing),
        (false, MarkerState::Lifted, _) if marker.token.scope != token.scope => {
            Ok(LiftWork::Nothing)
        }
        (false, MarkerState::Standing, Claim::TakeOver) if marker.token.scope != token.scope => {
            Ok(LiftWork::Lift)
        }
        (false, _, _) => Err(Held {
            marker: marker.to_string(),
        }),
    }
}

/// Does the barrier of `token` stand?
pub(super) fn stands(text: Option<&str>, token: &Token) -> Result<(), Held> {
    let marker = Marker {
        state: MarkerState::Standing,
        token: token.clone(),
    };
    match read(text)? {
        Some(found) if found == marker => Ok(()),
        Some(found) => Err(Held {
            marker: found.to_string(),
        }),
        None => Err(Held {
            marker: "none".into(),
        }),
    }
}
