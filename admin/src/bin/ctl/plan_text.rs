//! A plan for people: what would be done, where, and for how long writes would stop.

use writefence_admin::api::{Plan, PlannedStep};

use crate::text;

/// Every step with its commands, then the prediction.
pub(crate) fn human(plan: &Plan) -> String {
    let mut lines = format!("a {} would do this; nothing of it was done:\n", plan.kind);
    for step in &plan.steps {
        lines.push_str(&one(step));
    }
    let gap = plan.predicted_gap_ms.map_or_else(
        || "cannot be predicted".to_owned(),
        |ms| format!("about {}", text::ms(ms)),
    );
    let bound = plan.bound_ms.map_or_else(String::new, |ms| {
        format!(", {} before it gives up or stands still", text::ms(ms))
    });
    lines.push_str(&format!(
        "predicted write gap: {gap}{bound}\n  {}\n",
        plan.basis
    ));
    if let Some(loss) = &plan.loss {
        lines.push_str(&format!("stated loss: {}\n", loss.sentence));
    }
    lines
}

fn one(step: &PlannedStep) -> String {
    let mark = if step.in_gap { '|' } else { ' ' };
    let took = step
        .predicted_ms
        .map_or_else(String::new, |ms| format!("~{}", text::ms(ms)));
    let name = step.name.to_string();
    let mut lines = format!("{mark} {name:<12} {took:>8}  {}\n", step.does);
    for command in &step.commands {
        lines.push_str(&format!("{mark} {:>23}{command}\n", ""));
    }
    lines
}
