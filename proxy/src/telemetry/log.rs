//! The log: text for people or JSON for collectors, on standard error.

use tracing_subscriber::filter::LevelFilter;
use writefence_config::{Log, LogFormat, LogLevel};

/// Starts the log; later calls in the same process change nothing.
pub fn start(log: &Log) {
    let level = match log.level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    };
    let lines = tracing_subscriber::fmt()
        .with_max_level(level)
        // A log on a full disk loses lines. Told about, on the same disk, that would be a panic in
        // whatever task had something to say.
        .log_internal_errors(false)
        .with_writer(std::io::stderr);
    // An error means that a log is running already, which is what was wanted.
    let _ = match log.format {
        LogFormat::Text => lines.with_ansi(false).with_target(false).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
}
