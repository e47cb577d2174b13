//! Progress on the way: a spinner with live counts on a terminal, plain lines elsewhere, nothing
//! with `--json`.

use indicatif::{ProgressBar, ProgressDrawTarget, ProgressStyle};
use serde::Serialize;
use writefence_admin::api::{
    Drain, Event, InFlight, Left, Level, Run, RunProgress, StepRecord, StepState, Timestamp,
};

use crate::out::Out;
use crate::text;

/// How often the spinner turns, milliseconds; it also shows that this program lives.
const TURN_MS: u64 = 100;

/// What was shown so far.
pub(crate) struct View {
    out: Out,
    bar: Option<ProgressBar>,
    since: Timestamp,
    shown: Vec<StepRecord>,
}

impl View {
    /// `since`: what ended earlier was shown to whoever asked for it then.
    pub(crate) fn new(out: Out, since: Timestamp) -> Self {
        let bar = out.terminal().then(|| {
            let bar = ProgressBar::with_draw_target(None, ProgressDrawTarget::stdout());
            bar.set_style(style());
            bar.enable_steady_tick(std::time::Duration::from_millis(TURN_MS));
            bar
        });
        Self {
            out,
            bar,
            since,
            shown: Vec::new(),
        }
    }

    /// Shows what an answer brought.
    pub(crate) fn progress(&mut self, progress: &RunProgress) {
        for event in progress.events.iter().filter(|e| e.at >= self.since) {
            let run = &progress.run;
            self.out.event(&Told {
                run: &run.id,
                group: &run.group,
                event,
                left: progress.left,
            });
        }
        let (counts, left) = (progress.in_flight.as_ref(), progress.left);
        self.run(&progress.run, &progress.events, counts, left);
    }

    /// Shows what is new of a run.
    pub(crate) fn run(
        &mut self,
        run: &Run,
        events: &[Event],
        counts: Option<&InFlight>,
        left: Option<Left>,
    ) {
        let told = |event: &&Event| event.at >= self.since && !event.text.is_empty();
        for event in events.iter().filter(told) {
            let step = event
                .step
                .map_or_else(String::new, |step| format!("{step}: "));
            self.line(&format!("{}  {step}{}", event.at, event.text));
        }
        for step in &run.steps {
            self.step(step);
        }
        self.live(|| live_run(run, counts, left));
    }

    /// Shows how far a drain is.
    pub(crate) fn drain(&self, drain: &Drain) {
        self.live(|| format!("drain of epoch {}: {}", drain.epoch, remaining(drain)));
    }

    /// A line for each step that has ended, once; again if it was begun again.
    fn step(&mut self, step: &StepRecord) {
        let word = match step.state {
            StepState::Done => "done",
            StepState::Failed => "FAILED",
            StepState::Pending | StepState::Running | StepState::Skipped => return,
        };
        if step.ended < Some(self.since) || self.shown.contains(step) {
            return;
        }
        let took = step
            .started
            .zip(step.ended)
            .map(|(from, to)| to.since(from).as_millis());
        let took = took
            .and_then(|ms| u64::try_from(ms).ok())
            .map_or_else(String::new, text::ms);
        let name = step.name.to_string();
        let why = step
            .error
            .as_ref()
            .map_or("", |error| error.message.as_str());
        self.line(format!("  {word:<7}{name:<12} {took:>9}  {why}").trim_end());
        // The price of the move, before it is paid.
        for finding in step.findings.iter().filter(|f| f.level > Level::Pass) {
            self.line(&format!("         {}: {}", finding.name, finding.sentence));
        }
        self.shown.push(step.clone());
    }

    fn line(&self, text: &str) {
        match &self.bar {
            Some(bar) => bar.println(text),
            None => self.out.line(text),
        }
    }

    fn live(&self, text: impl FnOnce() -> String) {
        if let Some(bar) = &self.bar {
            bar.set_message(text());
        }
    }
}

impl Drop for View {
    fn drop(&mut self) {
        if let Some(bar) = &self.bar {
            bar.finish_and_clear();
        }
    }
}

/// A line of `--json --events`.
#[derive(Serialize)]
struct Told<'a> {
    run: &'a str,
    group: &'a str,
    event: &'a Event,
    left: Option<Left>,
}

/// A line never longer than the terminal: a wrapped one could not be drawn over.
fn style() -> ProgressStyle {
    ProgressStyle::with_template("{spinner} {wide_msg}")
        .expect("the template's two keys are known to the library")
}

/// One line that may be cut at the right: what matters most stands first.
fn live_run(run: &Run, counts: Option<&InFlight>, left: Option<Left>) -> String {
    let mut parts = vec![text::known(run.step)];
    if let Some(left) = left {
        parts[0] = format!("{} ({} of {} steps behind)", parts[0], left.behind, left.of);
        parts.extend(
            left.eta_ms
                .map(|eta| format!("about {} left", text::ms(eta))),
        );
        parts.extend(
            left.budget_ms
                .map(|ms| format!("goes back in {}", text::ms(ms))),
        );
    }
    if let Some(gap) = run.write_gap_ms {
        parts.push(format!("writes stopped for {}", text::ms(gap)));
    }
    if let Some(counts) = counts {
        let shown = [
            (counts.executing, "executing"),
            (counts.held, "held"),
            (counts.orphaned, "orphaned"),
            (counts.unknown, "unknown"),
        ];
        let shown = shown
            .into_iter()
            .filter(|(n, word)| *n > 0 || *word == "executing");
        parts.extend(shown.map(|(n, word)| format!("{n} {word}")));
    }
    parts.join(", ")
}

/// Counts in the order in which they matter to somebody who waits.
pub(crate) fn in_flight(counts: &InFlight) -> String {
    let mut parts = vec![
        format!("{} executing", counts.executing),
        format!("{} orphaned", counts.orphaned),
        text::count(counts.open_transactions, "open transaction"),
        format!("{} held", counts.held),
        format!("{} unknown", counts.unknown),
    ];
    match counts.prepared_transactions {
        Some(0) => {}
        prepared => parts.push(format!("{} prepared", text::known(prepared))),
    }
    parts.join(", ")
}

/// What a drain still waits for.
pub(crate) fn remaining(drain: &Drain) -> String {
    format!(
        "{}, {} and {} in flight",
        text::count(drain.lanes.sql, "statement"),
        text::count(drain.lanes.http, "request"),
        text::count(drain.unknown, "unknown outcome"),
    )
}
