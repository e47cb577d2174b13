//! What a daemon does with what it finds: the phase of its first moment.
//!
//! Pure rules and the sentence that goes with each. A restart never opens what was fenced; a first
//! start opens only on what all servers say together.

use writefence_admin::runbook::{RunFacts, StepState};

use crate::fleet::{GateRecord, StoredPhase};
use crate::upstream::{Observation, Region, Role};
use writefence_admin::api::Step;

/// What to do after reading the state.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Begin {
    /// Open again where it was open.
    Open,
    /// Stay fenced, and why.
    Fenced(Option<String>),
}

/// The phase after a restart. A run that had announced its fence keeps the group fenced even where
/// the fence's own record did not reach the disk.
pub(crate) fn after_restart(record: &GateRecord, live: Option<&RunFacts>) -> Begin {
    let opened_by = |run: &RunFacts| record.run.as_deref() == Some(run.run.as_str());
    let begun = |run: &RunFacts| run.step(Step::Fence).state != StepState::Pending;
    match (record.phase, live) {
        (StoredPhase::Open, Some(run)) if begun(run) && !opened_by(run) => Begin::Fenced(Some(
            format!("run {} had begun to fence when the daemon stopped", run.run),
        )),
        (StoredPhase::Open, _) => Begin::Open,
        (StoredPhase::Fenced, _) => Begin::Fenced(None),
        (StoredPhase::New, _) => {
            Begin::Fenced(Some("a first start was not decided yet".to_owned()))
        }
    }
}

/// What the servers say together at a first start.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum FirstStart {
    /// The configured primary is the only primary, and nobody is ahead of it.
    Open,
    /// Not all have answered: asked again.
    NotYet(String),
    /// They contradict the configuration or each other: the operator decides.
    Never(String),
}

/// The rule of a first start, over one look at every region.
pub(crate) fn first_start(primary: &Region, seen: &[(Region, Option<Observation>)]) -> FirstStart {
    let silent: Vec<&str> = seen
        .iter()
        .filter(|(_, s)| s.is_none())
        .map(|(r, _)| r.as_str())
        .collect();
    if !silent.is_empty() {
        return FirstStart::NotYet(format!(
            "first start: {} did not answer yet; all regions must, or `open-writes --primary R` \
             decides",
            silent.join(", ")
        ));
    }
    let never = |text: String| {
        FirstStart::Never(format!(
            "first start: {text}; `open-writes --primary R` decides"
        ))
    };
    let known: Vec<(&Region, &Observation)> = seen
        .iter()
        .filter_map(|(r, s)| s.as_ref().map(|s| (r, s)))
        .collect();
    if known.iter().any(|(_, s)| s.role.is_none()) {
        return never("a region does not say whether it is in recovery".to_owned());
    }
    let primaries: Vec<&Region> = known
        .iter()
        .filter(|(_, s)| s.role == Some(Role::Primary))
        .map(|(r, _)| *r)
        .collect();
    match primaries.as_slice() {
        [only] if *only == primary => {}
        [only] => return never(format!("{only} is the primary, {primary} is configured")),
        [] => return never("no region is a primary".to_owned()),
        [_, _, ..] => {
            let names: Vec<&str> = primaries.iter().map(|r| r.as_str()).collect();
            return never(format!("{} are all primaries", names.join(" and ")));
        }
    }
    let Some((_, own)) = known.iter().find(|(r, _)| *r == primary) else {
        return never(format!("{primary} is not a region of the group"));
    };
    let (Some(timeline), Some(system)) = (own.timeline, own.system_identifier) else {
        return never(format!("{primary} does not tell its identity"));
    };
    for (region, seen) in &known {
        if seen.system_identifier.is_some_and(|id| id != system) {
            return never(format!(
                "{region} is no copy of {primary}: another system identifier"
            ));
        }
        if seen.timeline.is_none_or(|t| t > timeline) {
            return never(format!(
                "{region} is on a higher timeline than {primary}, or hides it"
            ));
        }
    }
    if own.writable != Some(true) {
        return never(format!(
            "{primary} does not take writes (default_transaction_read_only)"
        ));
    }
    FirstStart::Open
}

/// The same where there is no database. Only the driver's program can tell which region takes writes,
/// and it must say so of all of them. The file alone does not: a daemon whose state was lost would
/// open where the primary was before the last move. One region alone leaves nothing to mistake.
pub(crate) fn first_start_of_origins(
    primary: &Region,
    seen: &[(Region, Option<Observation>)],
    told: bool,
) -> FirstStart {
    let decides = "`open-writes --primary R` decides";
    let never = |text: String| FirstStart::Never(format!("first start: {text}; {decides}"));
    let is_alone = seen.len() == 1;
    if !told && !is_alone {
        return never("nothing tells which region takes writes".to_owned());
    }
    for (region, seen) in seen {
        let Some(seen) = seen else {
            return FirstStart::NotYet(format!(
                "first start: {region} did not answer yet; all regions must, or {decides}"
            ));
        };
        let takes = match (seen.role, seen.writable) {
            (Some(Role::Standby), _) | (_, Some(false)) => Some(false),
            (Some(Role::Primary), _) | (_, Some(true)) => Some(true),
            (None, None) => None,
        };
        let is_primary = region == primary;
        match takes {
            Some(takes) if takes == is_primary => {}
            None if is_alone => {}
            None => {
                return never(format!(
                    "the driver's program does not say whether {region} takes writes"
                ));
            }
            Some(takes) => {
                let word = if takes { "the primary" } else { "none" };
                return never(format!(
                    "the driver's program says that {region} is {word}, {primary} is configured"
                ));
            }
        }
    }
    match seen.iter().any(|(region, _)| region == primary) {
        true => FirstStart::Open,
        false => never(format!("{primary} is not a region of the group")),
    }
}

#[cfg(test)]
mod tests {
    use super::super::tests::fake::{primary, standby};
    use super::*;

    #[test]
    fn a_first_start_without_a_database_opens_only_on_what_a_program_says_of_all() {
        let (a, b) = (Region::new("a"), Region::new("b"));
        let silent = || Observation {
            role: None,
            writable: None,
            ..primary("a", 1)
        };
        let two = |of_a, of_b| [(a.clone(), of_a), (b.clone(), of_b)];
        let judge = |seen: &[_], told| first_start_of_origins(&a, seen, told);
        let never = |start| matches!(start, FirstStart::Never(_));
        let (yes, no) = (primary("a", 1), standby("b", 1));
        let both = two(Some(yes.clone()), Some(no.clone()));
        assert_eq!(judge(&both, true), FirstStart::Open);
        assert!(never(judge(&two(Some(silent()), Some(silent())), false)));
        assert!(never(judge(&two(Some(yes.clone()), Some(silent())), true)));
        assert!(never(judge(
            &two(Some(yes.clone()), Some(yes.clone())),
            true
        )));
        assert!(never(judge(
            &two(Some(no.clone()), Some(yes.clone())),
            true
        )));
        let one_down = judge(&two(Some(yes), None), true);
        assert!(matches!(one_down, FirstStart::NotYet(_)), "{one_down:?}");
        // Alone, it has only to answer.
        let alone = [(a.clone(), Some(silent()))];
        assert_eq!(judge(&alone, false), FirstStart::Open);
        assert!(never(judge(&[(a.clone(), Some(no))], true)));
    }
}
