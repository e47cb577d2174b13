//! A report for people: one page that can go into a ticket as it is.

use std::fmt::Write as _;

use serde::Serialize;

use super::Report;
use crate::api::{RunKind, StepState};

/// The report as Markdown.
#[must_use]
pub fn markdown(report: &Report) -> String {
    let mut page = Page::default();
    head(&mut page, report);
    cost(&mut page, report);
    steps(&mut page, report);
    rest(&mut page, report);
    timeline(&mut page, report);
    page.0
}

#[derive(Default)]
struct Page(String);

impl Page {
    fn line(&mut self, text: impl AsRef<str>) {
        // Writing to a string does not fail.
        let _ = writeln!(self.0, "{}", text.as_ref());
    }

    fn title(&mut self, text: &str) {
        self.line(format!("\n## {text}\n"));
    }

    /// A row of a table; a bar in a text would end its cell.
    fn row(&mut self, cells: &[String]) {
        let cells: Vec<String> = cells.iter().map(|cell| clean(cell)).collect();
        self.line(format!("| {} |", cells.join(" | ")));
    }

    fn table(&mut self, titles: &[&str]) {
        self.row(&titles.iter().map(|t| (*t).to_owned()).collect::<Vec<_>>());
        self.line(format!("|{}", "---|".repeat(titles.len())));
    }
}

/// Text of others within Markdown: one line, and no cell ends by it.
fn clean(text: &str) -> String {
    text.replace(['\n', '\r'], " ")
        .replace('|', "\\|")
        .replace('<', "&lt;")
}

fn head(page: &mut Page, report: &Report) {
    let run = &report.run;
    let to = run.to.as_deref().unwrap_or("?");
    let from = run.from.as_deref().unwrap_or("?");
    let title = format!("{} of {}: {from} → {to}", run.kind, run.group);
    page.line(format!("# {}", clean(&title)));
    page.line("");
    page.table(&["", ""]);
    let mut row = |name: &str, text: String| page.row(&[name.to_owned(), text]);
    row("run", run.id.clone());
    row("state", run.state.to_string());
    row("reason", run.reason.clone());
    row("asked for by", run.actor.clone());
    row("began", run.started.to_string());
    row("ended", known(run.ended));
    row(
        "report made",
        format!("{} (writefence {})", report.made, report.version),
    );
    if let Some(error) = &run.error {
        row("ended with", format!("{error} ({})", error.code));
    }
}

fn cost(page: &mut Page, report: &Report) {
    page.title("What it cost");
    let Some(m) = &report.measured else {
        page.line("Not measured: the run has not come that far, or the daemon was restarted.");
        return;
    };
    let o = &report.objectives;
    page.table(&["", "", ""]);
    let mut row = |name: &str, value: String, note: &str| {
        page.row(&[name.to_owned(), value, note.to_owned()]);
    };
    let first = match m.first_was_held {
        Some(true) => "to the first held write that was acknowledged",
        Some(false) => "to the first statement behind the opening, which may have been a read",
        None => "nobody wrote behind the opening yet",
    };
    if report.run.kind == RunKind::Failover {
        let note = format!("writes failed before: see recovery time; {first}");
        row("fenced", ms(m.write_gap_ms), &note);
    } else {
        row("write gap", ms(m.write_gap_ms), first);
    }
    row(
        "read gap",
        ms(m.read_gap_ms),
        "the longest that a session had no server to read from",
    );
    row(
        "held",
        known(m.held),
        &format!("longest {}", ms(m.longest_hold_ms)),
    );
    row("refused", known(m.refused), "by the fence, not executed");
    row(
        "expired",
        known(m.expired),
        "held until their time was over, not executed",
    );
    row(
        "unknown",
        known(m.unknown),
        "outcomes that were still open when it ended; accepted ones stand below",
    );
    row("sessions moved", known(m.sessions_moved), "");
    row(
        "sessions ended",
        known(m.sessions_ended),
        "could not be moved",
    );
    row(
        "recovery time",
        ms(o.recovery_ms),
        &verdict("RTO", o.rto_ms, o.rto_met),
    );
    row(
        "log lost",
        o.lost_bytes
            .map_or_else(|| "unknown".to_owned(), |n| format!("{n} bytes")),
        &verdict("RPO", o.rpo_ms, o.rpo_met),
    );
}

fn verdict(name: &str, objective: Option<u64>, met: Option<bool>) -> String {
    let word = match met {
        Some(true) => "met",
        Some(false) => "MISSED",
        None => "cannot be told",
    };
    match objective {
        Some(objective) => format!("{name} {}: {word}", ms(Some(objective))),
        None => format!("no {name} is configured"),
    }
}

fn steps(page: &mut Page, report: &Report) {
    page.title("Steps");
    page.table(&["step", "began", "took", ""]);
    for step in &report.steps {
        let took = match step.state {
            StepState::Skipped => String::new(),
            _ => ms(step.took_ms),
        };
        page.row(&[
            step.step.to_string(),
            step.started.map(|at| at.to_string()).unwrap_or_default(),
            took,
            word(step.state),
        ]);
    }
}

fn rest(page: &mut Page, report: &Report) {
    page.title("What it rests on");
    let l = &report.lineage;
    page.line(format!(
        "- timeline {} up to fence LSN {}; timeline {} left it at {} (system identifier {})",
        known(l.old_timeline),
        known(l.fence_lsn.as_ref()),
        known(l.new_timeline),
        known(l.fork_lsn.as_ref()),
        known(l.system_identifier.as_ref()),
    ));
    if let Some(loss) = &report.loss.stated {
        page.line(format!(
            "- loss as stated before: {}",
            clean(&loss.sentence)
        ));
    }
    if let Some(log) = &report.loss.measured {
        page.line(format!(
            "- loss as measured after: {}",
            clean(&log.sentence())
        ));
    }
    match &report.run.certificate {
        Some(c) => page.line(format!(
            "- certificate of epoch {}: nothing in flight, {} unknown; {}: {}",
            c.epoch,
            c.unknown,
            word(c.evidence.kind),
            clean(&c.evidence.detail)
        )),
        None => page.line("- no certificate holds"),
    }
    for exception in &report.run.exceptions {
        page.line(format!("- waived: {}", clean(exception)));
    }
    for write in &report.unknown {
        page.line(format!(
            "- unknown outcome {}: {} of {} at {}, now {}",
            write.id,
            clean(&known(write.digest.as_ref())),
            clean(&known(write.user.as_ref())),
            write.at,
            word(write.state)
        ));
    }
    if let Some(audit) = &report.audit {
        page.line(format!(
            "- audit of {} records, key `{}`:",
            audit.size, audit.key
        ));
        page.line(format!("\n```\n{}```", audit.checkpoint));
    }
}

fn timeline(page: &mut Page, report: &Report) {
    page.title("What happened");
    page.table(&["at", "step", ""]);
    for event in &report.timeline {
        let step = event.step.map(|s| s.to_string()).unwrap_or_default();
        page.row(&[event.at.to_string(), step, event.text.clone()]);
    }
}

fn known<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |value| value.to_string())
}

fn ms(value: Option<u64>) -> String {
    value.map_or_else(|| "unknown".to_owned(), |n| format!("{n} ms"))
}

fn word(word: impl Serialize) -> String {
    match serde_json::to_value(word) {
        Ok(serde_json::Value::String(word)) => word,
        _ => "?".to_owned(),
    }
}
