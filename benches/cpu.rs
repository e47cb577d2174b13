//! Processor time of a process, as the kernel accounts it.
//!
//! Time counts for the process with all its threads. What the kernel does for it in interrupts, and
//! what a sender does on loopback in the receiver's stead, is accounted to whoever ran then; that is
//! the same for every contender.

use std::fs;
use std::ops::Sub;
use std::path::Path;

use anyhow::{Context, Result};
use rustix::process::Pid;

/// Linux fixes the unit of `/proc` at a hundredth of a second on every machine we build for,
/// whatever the kernel's own tick is.
const TICKS_PER_SECOND: f64 = 100.0;

/// Seconds on a processor.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// In the program itself.
    pub user: f64,
    /// In the kernel on its behalf.
    pub system: f64,
}

impl Cpu {
    /// Since the process began.
    ///
    /// # Errors
    /// It does not run any more.
    pub fn of(pid: Pid) -> Result<Self> {
        let path = format!("/proc/{}/stat", pid.as_raw_nonzero());
        let text = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        parse(&text).with_context(|| format!("{path} is not as proc(5) says"))
    }

    /// Both kinds together.
    #[must_use]
    pub fn total(self) -> f64 {
        self.user + self.system
    }
}

impl Sub for Cpu {
    type Output = Self;

    fn sub(self, earlier: Self) -> Self {
        Self {
            user: self.user - earlier.user,
            system: self.system - earlier.system,
        }
    }
}

/// utime and stime are fields 14 and 15; the name in field 2 may hold any character, hence the
/// search for its end from the right.
fn parse(stat: &str) -> Option<Cpu> {
    let mut fields = stat.rsplit_once(')')?.1.split_whitespace().skip(11);
    let mut seconds = || {
        let ticks: u32 = fields.next()?.parse().ok()?;
        Some(f64::from(ticks) / TICKS_PER_SECOND)
    };
    Some(Cpu {
        user: seconds()?,
        system: seconds()?,
    })
}

/// The process that was started with `argument`, a path that nobody else has.
///
/// # Errors
/// There is none.
pub fn started_with(argument: &Path) -> Result<Pid> {
    let wanted = argument.as_os_str().as_encoded_bytes();
    for entry in fs::read_dir("/proc").context("read /proc")?.flatten() {
        let pid = entry.file_name().to_str().and_then(|it| it.parse().ok());
        let Some(pid) = pid.and_then(Pid::from_raw) else {
            continue;
        };
        // A process that ended meanwhile has no command line.
        let line = fs::read(entry.path().join("cmdline")).unwrap_or_default();
        if line.split(|byte| *byte == 0).any(|word| word == wanted) {
            return Ok(pid);
        }
    }
    anyhow::bail!("no process was started with {}", argument.display())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_with_a_parenthesis_does_not_shift_the_fields() {
        let stat = "7 (a) b) S 1 7 7 0 -1 4194560 1 0 0 0 150 25 0 0 20 0 3 0 900";
        let expected = Cpu {
            user: 1.5,
            system: 0.25,
        };
        assert_eq!(parse(stat), Some(expected));
    }
}
