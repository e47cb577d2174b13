//! What the audience sees while the demonstration runs.

use std::io::{IsTerminal, stdout};
use std::time::Instant;

fn bold(text: &str) -> String {
    if stdout().is_terminal() {
        format!("\x1b[1m{text}\x1b[0m")
    } else {
        text.to_owned()
    }
}

/// A new act.
pub(crate) fn title(text: &str) {
    println!("\n{}", bold(text));
}

/// Something is done; how long it took stands at the end.
pub(crate) fn done(text: &str, since: Instant) {
    println!("  ✓ {text:62} {:5.1} s", since.elapsed().as_secs_f64());
}

/// Something to know.
pub(crate) fn note(text: &str) {
    println!("  · {text}");
}

/// The figures of an act.
pub(crate) fn figures(lines: &[(&str, String)]) {
    for (name, value) in lines {
        println!("      {name:20} {value}");
    }
}
