//! One move of the primary, as measured, and what it had promised.

use std::time::Duration;

use serde::Serialize;
use writefence_tests::ledger::{Outcome, Report, Shape, ms, text_ms};

/// What a move promises to its clients.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Promise {
    /// Planned: nobody notices anything but a pause.
    NothingButAPause,
    /// Unplanned, synchronous replication: connections may end, acknowledged writes stay.
    NothingAcknowledgedLost,
    /// Unplanned, asynchronous replication: the loss is stated, and is no surprise otherwise.
    StatedLoss,
}

/// A finished act.
#[derive(Debug, Clone, Serialize)]
pub(crate) struct Act {
    pub(crate) title: String,
    pub(crate) promise: Promise,
    /// The promotion's own time, from the run document; none if the document doesn't say.
    pub(crate) promotion_ms: Option<f64>,
    /// How long the one command ran, checks and preparations included.
    pub(crate) command_ms: f64,
    /// The steps of the run and the time each took.
    pub(crate) steps: Vec<(String, f64)>,
    /// What the clients saw.
    pub(crate) report: Report,
    /// What the daemon said of it, where something may be lost.
    pub(crate) loss: Option<Loss>,
}

/// A loss as the daemon told it, to stand beside what clients lost.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Loss {
    /// Before the fence.
    pub(crate) stated: String,
    /// Behind the promotion, as far as the old primary was seen.
    pub(crate) measured: String,
}

impl Loss {
    /// From the report of a run; none where it says nothing of a loss.
    pub(crate) fn of(loss: &serde_json::Value) -> Option<Self> {
        let stated = loss["stated"]["sentence"].as_str()?.to_owned();
        let log = &loss["measured"];
        let measured = log["bytes"].as_u64().map_or_else(
            || "nothing that was seen of the old primary".to_owned(),
            |bytes| {
                let lsn = |name: &str| log[name].as_str().unwrap_or("?").to_owned();
                let (from, to) = (lsn("from_lsn"), lsn("to_lsn"));
                format!("{bytes} bytes of log, from the fork at {from} to {to}, or more")
            },
        );
        Some(Self { stated, measured })
    }
}

impl Act {
    pub(crate) fn new(
        title: String,
        promise: Promise,
        command: Duration,
        run: &serde_json::Value,
        report: Report,
    ) -> Self {
        let steps = writefence_tests::daemon::steps(run);
        Self {
            title,
            promise,
            promotion_ms: writefence_tests::daemon::promotion(run).map(ms),
            command_ms: ms(command),
            steps: steps
                .into_iter()
                .map(|(name, took)| (name, ms(took)))
                .collect(),
            report,
            loss: None,
        }
    }

    /// Zeros that are not zero, each as a sentence.
    pub(crate) fn faults(&self) -> Vec<String> {
        faults(&self.report, self.promise)
            .into_iter()
            .map(|fault| format!("{}: {fault}", self.title))
            .collect()
    }

    /// The figures that matter, one per line.
    pub(crate) fn lines(&self) -> Vec<(&'static str, String)> {
        let report = &self.report;
        let found = &report.findings;
        let lost = match found.of_them_async {
            0 => found.acked_lost.len().to_string(),
            n => format!(
                "{} + {n} with synchronous_commit = off",
                found.durable_lost()
            ),
        };
        let mut lines = vec![
            (
                "write gap",
                format!(
                    "{} for the worst client, {} for the middle one; no write at all for {}",
                    text_ms(report.write.worst),
                    text_ms(report.write.median),
                    text_ms(report.write.nothing_at_all)
                ),
            ),
            ("  of it promotion", text_ms(self.promotion_ms)),
            (
                "read gap",
                format!("{} for the worst client", text_ms(report.read.worst)),
            ),
            ("errors", errors(report)),
            ("closed connections", report.connections_lost().to_string()),
            (
                "acknowledged lost",
                format!("{lost} of {}", report.count(Outcome::Acked)),
            ),
            ("duplicates", found.duplicates.len().to_string()),
        ];
        if let Some(loss) = &self.loss {
            lines.push(("loss as stated", loss.stated.clone()));
            lines.push(("loss as measured", loss.measured.clone()));
        }
        let api = report
            .shapes
            .iter()
            .find(|shape| shape.shape == Shape::ApiWrite);
        if let Some(api) = api {
            let acked: u64 = api
                .outcomes
                .get(&Outcome::Acked)
                .copied()
                .unwrap_or_default();
            let gap = format!(
                "{} for the worst client of the API, {acked} requests acknowledged",
                text_ms(api.gaps.worst)
            );
            lines.insert(1, ("  over HTTP", gap));
        }
        lines
    }
}

fn errors(report: &Report) -> String {
    let by_code: Vec<String> = report
        .errors
        .iter()
        .map(|(code, n)| {
            if code == "none" {
                format!("{n} without a code")
            } else {
                format!("{n} × {code}")
            }
        })
        .collect();
    match report.errors() {
        0 => "0".to_owned(),
        n => format!("{n} ({})", by_code.join(", ")),
    }
}

/// What was promised and not kept.
pub(crate) fn faults(report: &Report, promise: Promise) -> Vec<String> {
    let found = &report.findings;
    let planned = promise == Promise::NothingButAPause;
    let loss_allowed = match promise {
        Promise::NothingButAPause => 0,
        Promise::NothingAcknowledgedLost => found.of_them_async,
        Promise::StatedLoss => found.acked_lost.len(),
    };
    let zeros = [
        (
            usize::from(planned) * count(report.errors()),
            "operations were not acknowledged",
        ),
        (
            usize::from(planned) * count(report.connections_lost()),
            "connections were closed",
        ),
        (count(report.hung), "clients never got an answer"),
        (
            found.acked_lost.len() - loss_allowed,
            "acknowledged writes are lost",
        ),
        (found.duplicates.len(), "writes are there more than once"),
        (
            found.refused_present.len(),
            "writes were refused as not executed, and are there",
        ),
        (
            found.failed_present.len(),
            "writes failed for certain, and are there",
        ),
        (found.torn.len(), "transactions are there in part"),
    ];
    zeros
        .iter()
        .filter(|(n, _)| *n > 0)
        .map(|(n, what)| format!("{n} {what}"))
        .collect()
}

fn count(n: u64) -> usize {
    usize::try_from(n).unwrap_or(usize::MAX)
}

#[cfg(test)]
mod tests {
    use writefence_tests::ledger::{Findings, History, Id, Op, Window};

    use super::*;

    const ID: Id = Id {
        shape: Shape::Simple,
        client: 0,
        seq: 1,
    };

    fn check(outcome: Outcome, findings: Findings, promise: Promise, expected: &[&str]) {
        let end = Duration::from_millis(1);
        let op = Op {
            id: ID,
            start: end,
            end,
            outcome,
            sqlstate: None,
            lost: false,
        };
        let history = History {
            run: 1,
            ops: vec![op],
            hung: 0,
            end,
        };
        let report = Report::new(
            &history,
            Window {
                from: Duration::ZERO,
                to: end,
            },
            findings,
        );
        assert_eq!(faults(&report, promise), expected);
    }

    #[test]
    fn an_error_breaks_the_promise_of_a_planned_move_only() {
        let errors = "1 operations were not acknowledged";
        check(
            Outcome::Failed,
            Findings::default(),
            Promise::NothingButAPause,
            &[errors],
        );
        check(
            Outcome::Failed,
            Findings::default(),
            Promise::NothingAcknowledgedLost,
            &[],
        );
    }

    #[test]
    fn a_loss_is_a_fault_unless_it_was_announced() {
        let lost = |of_them_async| Findings {
            acked_lost: vec![ID],
            of_them_async,
            ..Findings::default()
        };
        let fault = ["1 acknowledged writes are lost"];
        check(Outcome::Acked, lost(0), Promise::NothingButAPause, &fault);
        check(Outcome::Acked, lost(1), Promise::NothingButAPause, &fault);
        check(
            Outcome::Acked,
            lost(0),
            Promise::NothingAcknowledgedLost,
            &fault,
        );
        check(
            Outcome::Acked,
            lost(1),
            Promise::NothingAcknowledgedLost,
            &[],
        );
        check(Outcome::Acked, lost(0), Promise::StatedLoss, &[]);
    }

    #[test]
    fn what_the_daemon_says_of_a_loss_is_shown_as_it_is() {
        let told = |text| Loss::of(&serde_json::from_str(text).unwrap());
        assert_eq!(told(r#"{"stated":null,"measured":null}"#), None);
        let seen = told(
            r#"{"stated":{"sentence":"at least 7 bytes"},
                "measured":{"bytes":9,"from_lsn":"0/1","to_lsn":"0/A"}}"#,
        );
        assert_eq!(
            seen.map(|loss| loss.measured).as_deref(),
            Some("9 bytes of log, from the fork at 0/1 to 0/A, or more")
        );
    }

    #[test]
    fn a_duplicate_is_always_a_fault() {
        let doubled = Findings {
            duplicates: vec![ID],
            ..Findings::default()
        };
        let fault = ["1 writes are there more than once"];
        check(Outcome::Acked, doubled, Promise::StatedLoss, &fault);
    }
}
