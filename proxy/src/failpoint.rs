//! Stops the daemon hard right after a named step, so that crash tests need no luck.
//!
//! `WRITEFENCE_STOP_AFTER=<step>` aborts the process once the step's record and effect are done,
//! `WRITEFENCE_STOP_AFTER=<step>:before` once its record is written and its effect not yet begun.
//! Without the feature `failpoints` both calls are empty and the variable is never read.

/// The step's record and its effect are done.
pub fn after(step: &str) {
    stop_at(step, "");
}

/// The step is announced in the journal, its effect has not begun.
pub fn before(step: &str) {
    stop_at(step, ":before");
}

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
