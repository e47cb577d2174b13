//! The exit codes of `writefencectl`: one table, and part of the contract.
//!
//! Scripts and runbooks branch on these numbers, so a number never changes its meaning.
//! Which error leads to which exit code is decided in `error.rs`, beside the code words.

/// How a command ended, as a shell sees it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Exit {
    /// Done; also a repeat of what is already so.
    Done = 0,
    /// Wrong usage or configuration, or not in this version. Nothing was changed.
    Usage = 1,
    /// No daemon, or none that gave a trustworthy answer. What it did is unknown: ask `status`.
    Unreachable = 2,
    /// A precondition is not met: preflight blocks, wrong region, evidence missing.
    Precondition = 3,
    /// The drain's time ran out; the fence stays.
    DrainTimedOut = 4,
    /// The run was aborted or rolled back.
    Aborted = 5,
    /// Superseded, another epoch than expected, or another's run.
    Superseded = 6,
    /// Verification failed; audit damage too.
    VerifyFailed = 7,
    /// Ctrl-C while following: the run goes on in the daemon. 128 + SIGINT, as shells have it.
    Interrupted = 130,
}

impl Exit {
    /// Every exit code with its meaning, in order; printed by `--help` and compared in tests.
    pub const TABLE: [(Self, &'static str); 9] = [
        (Self::Done, "done"),
        (
            Self::Usage,
            "usage or configuration, or not in this version",
        ),
        (
            Self::Unreachable,
            "daemon unreachable, or no answer in time",
        ),
        (Self::Precondition, "precondition not met"),
        (Self::DrainTimedOut, "drain timed out"),
        (Self::Aborted, "aborted or rolled back"),
        (Self::Superseded, "superseded, wrong epoch, another's run"),
        (Self::VerifyFailed, "verification failed"),
        (
            Self::Interrupted,
            "Ctrl-C while following; the run goes on in the daemon",
        ),
    ];

    /// From what a person has to look at first to what is well: one command for several groups ends
    /// with the first of these that one of them ended with. What is damaged or not known comes before
    /// what was stopped in good order.
    pub const WORST_FIRST: [Self; 9] = [
        Self::VerifyFailed,
        Self::Unreachable,
        Self::Interrupted,
        Self::Aborted,
        Self::DrainTimedOut,
        Self::Superseded,
        Self::Precondition,
        Self::Usage,
        Self::Done,
    ];

    /// The one of several that stands for all of them; none at all is done.
    pub fn fold(all: impl IntoIterator<Item = Self>) -> Self {
        let place = |exit: &Self| Self::WORST_FIRST.iter().position(|known| known == exit);
        all.into_iter().min_by_key(place).unwrap_or(Self::Done)
    }

    /// The number handed to the shell.
    pub const fn code(self) -> u8 {
        self as u8
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_worst_of_several_stands_for_all_and_every_code_has_its_place() {
        assert_eq!(
            Exit::fold([Exit::Done, Exit::Precondition, Exit::Done]),
            Exit::Precondition
        );
        assert_eq!(
            Exit::fold([Exit::DrainTimedOut, Exit::Unreachable]),
            Exit::Unreachable
        );
        assert_eq!(Exit::fold([]), Exit::Done);
        for (exit, _) in Exit::TABLE {
            assert!(Exit::WORST_FIRST.contains(&exit), "{exit:?}");
        }
    }
}
