//! Reading a run document: how long its steps took.

use std::time::Duration;

use serde_json::Value;

/// The run in a document: the document itself, or its `run`.
fn run(document: &Value) -> &Value {
    if document["steps"].is_array() {
        document
    } else {
        &document["run"]
    }
}

/// Each finished step with the time it took, in order.
#[must_use]
pub fn steps(document: &Value) -> Vec<(String, Duration)> {
    let steps = run(document)["steps"]
        .as_array()
        .map(Vec::as_slice)
        .unwrap_or_default();
    steps
        .iter()
        .filter_map(|step| {
            let started = humantime::parse_rfc3339(step["started"].as_str()?).ok()?;
            let ended = humantime::parse_rfc3339(step["ended"].as_str()?).ok()?;
            // A clock that was set back in between has no duration to tell.
            Some((
                step["name"].as_str()?.to_owned(),
                ended.duration_since(started).ok()?,
            ))
        })
        .collect()
}

/// The promotion's own time: what no proxy can be quicker than.
#[must_use]
pub fn promotion(document: &Value) -> Option<Duration> {
    steps(document)
        .into_iter()
        .find(|(name, _)| name == "promote")
        .map(|(_, took)| took)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_step_took_from_its_start_to_its_end() {
        let step = json!({"name": "promote", "started": "2024-05-01T10:00:00.100000Z",
                          "ended": "2024-05-01T10:00:00.114500Z"});
        let unfinished = json!({"name": "open", "started": "2024-05-01T10:00:01Z", "ended": null});
        let run = json!({"steps": [step, unfinished]});
        assert_eq!(promotion(&run), Some(Duration::from_micros(14_500)));
        assert_eq!(steps(&json!({ "run": run })).len(), 1);
        assert_eq!(promotion(&Value::Null), None);
    }
}
