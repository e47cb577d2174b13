//! Rights that the observer's role lacks, with the exact statements that give them.

use writefence_admin::api::Finding;

use super::{Side, Sides, block, pass, warn};
use crate::upstream::Survey;

pub(super) fn look(found: &mut Vec<Finding>, sides: &Sides) {
    for side in [&sides.old, &sides.new] {
        if let Ok(survey) = &side.survey {
            of(found, side, survey);
        }
    }
}

/// Behind the fence is a bad place to learn of a missing right, so each one blocks.
pub(super) fn of(found: &mut Vec<Finding>, side: &Side, survey: &Survey) {
    let region = &side.region;
    found.push(match &survey.grants {
        Some(grants) if grants.is_empty() => pass(
            "rights",
            format!("the observer may do what it has to on {region}"),
        ),
        Some(grants) => block(
            "rights",
            format!(
                "the observer lacks rights on {region}; as a superuser run on the primary: {}",
                grants.join(" ")
            ),
        ),
        None => warn(
            "rights",
            format!("what the observer may do on {region} cannot be read"),
        ),
    });
}
