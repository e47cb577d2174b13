//! Names of groups and regions.
//!
//! They become file names in the state directory, metric labels and command-line words, so the
//! alphabet is what is safe in all three: no dot or slash that could leave the directory, no comma
//! that separates groups in `--group a,b`.

use crate::error::ProblemKind;
use crate::raw::{Findings, Section};
use crate::value::Wrong;

const LONGEST: usize = 63;
const ACCEPTED: &str = "up to 63 letters, digits, '-' and '_', beginning with a letter or digit";

/// Reports a name that cannot be used.
pub(crate) fn check(name: &str, section: &Section<'_>, found: &mut Findings<'_>) {
    let allowed = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
    let begins_well = name.starts_with(|c: char| c.is_ascii_alphanumeric());
    if !begins_well || name.len() > LONGEST || !name.chars().all(allowed) {
        let wrong = Wrong::value("this name cannot be used", ACCEPTED);
        found.problem(
            section.start(),
            section.name().to_owned(),
            ProblemKind::Value,
            wrong,
        );
    }
}

/// Reports a group named like the word that means every group.
pub(crate) fn check_group(name: &str, section: &Section<'_>, found: &mut Findings<'_>) {
    check(name, section, found);
    if name == "all" {
        let wrong = Wrong::value(
            "\"all\" means every group on the command line",
            "another name",
        );
        found.problem(
            section.start(),
            section.name().to_owned(),
            ProblemKind::Value,
            wrong,
        );
    }
}
