//! A program that observes and promotes: one JSON document in, one out.
//!
//! In: `{"api":1,"verb":"observe|promote","group","region","host","port","pinned":{…}|null}`. Out:
//! `{"role","writable","system_identifier","timeline","lsn","fence_reached","identity"}`, all of
//! which may be null or absent. What it says is held against what was pinned; what it leaves out, the
//! server itself is asked for. `identity` is any text that names the server behind the address: the
//! promoted one must bear the one that was observed before.

use std::time::Duration;

use serde::Deserialize;
use serde_json::json;
use tokio::time::Instant;

use super::{DriverError, Pinned};
use crate::outside::{Program, run};
use crate::upstream::{self, Endpoint, Lsn, Region};

/// For a look; the program is asked before a run begins.
const LOOK: Duration = Duration::from_secs(3);

/// A program and the server it is about.
#[derive(Clone, Copy, Debug)]
pub struct Call<'a> {
    /// The program with its arguments.
    pub words: &'a [String],
    /// For the program to know.
    pub group: &'a str,
    /// For the program to know.
    pub region: &'a Region,
    /// Where the region's server is.
    pub endpoint: &'a Endpoint,
}

/// What a program answered.
#[derive(Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Said {
    #[serde(default)]
    role: Option<Role>,
    #[serde(default)]
    writable: Option<bool>,
    #[serde(default)]
    system_identifier: Option<String>,
    #[serde(default)]
    timeline: Option<u32>,
    #[serde(default)]
    lsn: Option<String>,
    #[serde(default)]
    fence_reached: Option<bool>,
    #[serde(default)]
    identity: Option<String>,
}

impl Said {
    /// What the server is, where the program says so.
    pub fn role(&self) -> Option<upstream::Role> {
        self.role.map(|role| match role {
            Role::Primary => upstream::Role::Primary,
            Role::Standby => upstream::Role::Standby,
        })
    }

    /// Whether it takes writes, where the program says so.
    pub const fn writable(&self) -> Option<bool> {
        self.writable
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
enum Role {
    Primary,
    Standby,
}

/// Has the program look at the server.
///
/// # Errors
/// It failed, or its answer cannot be read.
pub async fn observe(call: &Call<'_>) -> Result<Said, DriverError> {
    ask(call, "observe", None, LOOK).await
}

/// Has the program promote the server, which must be the one that was observed.
///
/// # Errors
/// It failed, or says that it promoted another one.
pub(super) async fn promote(
    call: &Call<'_>,
    pinned: Pinned,
    until: Instant,
) -> Result<(), DriverError> {
    let before = observe(call).await?;
    is_pinned(&before, pinned)?;
    let left = until.saturating_duration_since(Instant::now());
    let after = ask(call, "promote", Some(pinned), left).await?;
    is_same(&before, &after, pinned)
}

/// The same where there is no database whose server could be pinned: the identity that the program
/// itself tells, and its word, are all there is.
///
/// # Errors
/// It failed, or contradicts itself.
pub async fn promote_unpinned(call: &Call<'_>, until: Instant) -> Result<Said, DriverError> {
    let before = observe(call).await?;
    if before.fence_reached == Some(false) {
        return Err(behind());
    }
    let left = until.saturating_duration_since(Instant::now());
    let after = ask(call, "promote", None, left).await?;
    is_identical(&before, &after)?;
    is_promoted(&after)?;
    Ok(after)
}

/// What the program says of the candidate fits what the run has pinned.
fn is_pinned(said: &Said, pinned: Pinned) -> Result<(), DriverError> {
    let system = pinned.system_identifier.to_string();
    if said
        .system_identifier
        .as_ref()
        .is_some_and(|id| *id != system)
    {
        return Err(asked(
            "the program looks at a server of another system identifier",
        ));
    }
    let other = said.timeline.filter(|t| *t != pinned.timeline.value());
    if other.is_some() && said.role != Some(Role::Primary) {
        return Err(asked(
            "the program looks at a server on another timeline than the one pinned",
        ));
    }
    if said.writable == Some(true) && said.role == Some(Role::Standby) {
        return Err(asked("the program says of a standby that it takes writes"));
    }
    if said
        .lsn
        .as_ref()
        .is_some_and(|lsn| lsn.parse::<Lsn>().is_err())
    {
        return Err(asked(
            "the program's lsn is no position such as \"0/3000060\"",
        ));
    }
    if said.fence_reached == Some(false) {
        return Err(behind());
    }
    Ok(())
}

/// The promoted server is the one that was observed.
fn is_same(before: &Said, after: &Said, pinned: Pinned) -> Result<(), DriverError> {
    let system = pinned.system_identifier.to_string();
    if after
        .system_identifier
        .as_ref()
        .is_some_and(|id| *id != system)
    {
        return Err(asked(
            "the program promoted a server of another system identifier",
        ));
    }
    is_identical(before, after)?;
    is_promoted(after)
}

fn is_identical(before: &Said, after: &Said) -> Result<(), DriverError> {
    if let (Some(was), Some(is)) = (&before.identity, &after.identity)
        && was != is
    {
        let text = format!("the program promoted {is}, the candidate was {was}");
        return Err(DriverError::Asked(text));
    }
    Ok(())
}

fn is_promoted(after: &Said) -> Result<(), DriverError> {
    match after.role {
        Some(Role::Standby) => Err(asked(
            "the program says that the candidate is still a standby",
        )),
        Some(Role::Primary) | None => Ok(()),
    }
}

fn behind() -> DriverError {
    asked("the program says that the candidate has not reached the fence")
}

fn asked(text: &str) -> DriverError {
    DriverError::Asked(text.to_owned())
}

async fn ask(
    call: &Call<'_>,
    verb: &str,
    pinned: Option<Pinned>,
    timeout: Duration,
) -> Result<Said, DriverError> {
    let pinned = pinned.map(|pinned| {
        json!({
            "system_identifier": pinned.system_identifier.to_string(),
            "timeline": pinned.timeline.value(),
        })
    });
    let input = json!({
        "api": 1,
        "verb": verb,
        "group": call.group,
        "region": call.region.as_str(),
        "host": call.endpoint.host,
        "port": call.endpoint.port,
        "pinned": pinned,
    });
    let input = input.to_string();
    let env = [("WRITEFENCE_VERB", verb.to_owned())];
    let program = Program {
        words: call.words,
        env: &env,
        input: input.as_bytes(),
        timeout,
    };
    let out = run(&program).await;
    let out = out.map_err(|error| DriverError::Asked(format!("{verb}: {error}")))?;
    serde_json::from_str(&out).map_err(|error| {
        DriverError::Asked(format!(
            "{verb}: the program's answer cannot be read: {error}; accepted: one JSON object with \
             role, writable, system_identifier, timeline, lsn, fence_reached, identity, each of \
             which may be null"
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::upstream::Timeline;

    fn pinned() -> Pinned {
        Pinned {
            system_identifier: 42,
            timeline: Timeline::new(3).unwrap(),
        }
    }

    fn said(json: &str) -> Said {
        serde_json::from_str(json).unwrap()
    }

    #[test]
    fn nulls_are_allowed_and_contradictions_are_not() {
        let nothing = said("{}");
        assert!(is_pinned(&nothing, pinned()).is_ok());
        assert!(is_same(&nothing, &nothing, pinned()).is_ok());
        let other = said(r#"{"system_identifier":"41"}"#);
        assert!(is_pinned(&other, pinned()).is_err());
        assert!(is_same(&nothing, &other, pinned()).is_err());
        assert!(is_pinned(&said(r#"{"role":"standby","timeline":2}"#), pinned()).is_err());
        assert!(is_pinned(&said(r#"{"fence_reached":false}"#), pinned()).is_err());
        assert!(is_same(&nothing, &said(r#"{"role":"standby"}"#), pinned()).is_err());
        assert!(is_pinned(&said(r#"{"role":"standby","writable":true}"#), pinned()).is_err());
        assert!(is_pinned(&said(r#"{"lsn":"0-3000060"}"#), pinned()).is_err());
    }

    #[test]
    fn the_identity_decides_whether_the_right_one_was_promoted() {
        let (was, is) = (
            said(r#"{"identity":"db-7"}"#),
            said(r#"{"identity":"db-8"}"#),
        );
        assert!(is_same(&was, &was, pinned()).is_ok());
        let error = is_same(&was, &is, pinned()).unwrap_err().to_string();
        assert_eq!(error, "the program promoted db-8, the candidate was db-7");
    }

    #[test]
    fn an_answer_with_a_misspelt_field_is_none() {
        assert!(serde_json::from_str::<Said>(r#"{"rolle":"primary"}"#).is_err());
    }
}
