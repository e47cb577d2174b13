//! Stops the daemon hard right after a named step, so that crash tests need no luck.
//!
//! `WRITEFENCE_STOP_AFTER=<step>` aborts the process once the step's record and effect are done,
//! `WRITEFENCE_STOP_AFTER=<step>:before` once its record is written and its effect not yet begun.
//! Without the feature `failpoints` all calls are empty and the variable is never read.

/// The step's record and its effect are done.
pub fn after(step: &str) {
    stop_at(step, "");
}

/// The step is announced in the journal, its effect has not begun.
pub fn before(step: &str) {
    stop_at(step, ":before");
}

/// A record of this kind is in the journal, and nothing was done or shown of it yet:
/// `WRITEFENCE_STOP_AFTER=record:<kind>`.
#[cfg(feature = "failpoints")]
pub fn recorded(fact: &writefence_admin::runbook::Fact) {
    let fact = serde_json::to_value(fact).unwrap_or_default();
    let kind = fact["kind"].as_str().unwrap_or_default();
    stop_at(&format!("record:{kind}"), "");
}

/// Without the feature nothing.
#[cfg(not(feature = "failpoints"))]
pub fn recorded(_fact: &writefence_admin::runbook::Fact) {}

#[cfg(feature = "failpoints")]
fn stop_at(step: &str, suffix: &str) {
    // Read once: the variable is the test's, set before the process began.
    static WANTED: std::sync::OnceLock<Option<String>> = std::sync::OnceLock::new();
    let wanted = WANTED.get_or_init(|| std::env::var("WRITEFENCE_STOP_AFTER").ok());
    let Some(wanted) = wanted else { return };
    if wanted.strip_prefix(step) == Some(suffix) {
        // Abort and not exit: no destructor may tidy up what a power cut would have left.
        std::process::abort();
    }
}

#[cfg(not(feature = "failpoints"))]
fn stop_at(_step: &str, _suffix: &str) {}
