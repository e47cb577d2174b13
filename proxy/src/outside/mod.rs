//! Programs and requests of the user's: hooks, checks, evidence, drivers.
//!
//! Each call is bounded in time and in what is read of its answer, and ends with its time: a
//! program that is late is killed together with what it started. Nothing is retried here, and what
//! a failure means is for the caller to say.

mod command;
mod http;

use std::time::Duration;

pub(crate) use command::{Program, run};
pub(crate) use http::{Method, request};

/// Bytes of an answer that are read; more is no answer to such a question.
const ANSWER: usize = 64 << 10;

/// Characters of an answer that are shown in an error.
const SHOWN: usize = 300;

/// Why a call did not do what it should.
#[derive(Debug, thiserror::Error)]
pub(crate) enum OutsideError {
    /// The program is not there, or may not be run.
    #[error("{program} cannot be run: {source}")]
    NotStarted {
        /// The first word of the command.
        program: String,
        /// What the system said.
        source: std::io::Error,
    },
    /// It ended with another code than 0, or by a signal.
    #[error("{program} ended with {status}{}", said(.output))]
    Failed {
        /// The first word of the command.
        program: String,
        /// As the system shows it.
        status: String,
        /// What it wrote last.
        output: String,
    },
    /// Its time was over.
    #[error("{what} did not end within {after:?} and was given up")]
    Late {
        /// The program, or the address.
        what: String,
        /// The time it had.
        after: Duration,
    },
    /// The address cannot be used.
    #[error("{url} is no http address")]
    Address {
        /// As configured.
        url: String,
    },
    /// No answer to a request.
    #[error("{url} did not answer: {why}")]
    Silent {
        /// The address.
        url: String,
        /// The failure.
        why: String,
    },
    /// An answer that is none of success.
    #[error("{url} answered {status}{}", said(.body))]
    Status {
        /// The address.
        url: String,
        /// The status.
        status: u16,
        /// The beginning of the body.
        body: String,
    },
}

/// A text cut to what fits into a sentence.
fn said(text: &str) -> String {
    let line: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.is_empty() {
        return String::new();
    }
    let cut: String = line.chars().take(SHOWN).collect();
    format!(": {cut}")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn program(words: &[&str]) -> Vec<String> {
        words.iter().map(|w| (*w).to_owned()).collect()
    }

    async fn ran(words: &[&str], within: Duration) -> Result<String, OutsideError> {
        let words = program(words);
        let env = [("WRITEFENCE_STEP", "drain".to_owned())];
        let program = Program {
            words: &words,
            env: &env,
            input: b"in",
            timeout: within,
        };
        run(&program).await
    }

    const SOON: Duration = Duration::from_secs(10);

    #[tokio::test]
    async fn a_program_gets_its_environment_and_input_and_its_output_is_the_answer() {
        let out = ran(&["sh", "-c", "echo $WRITEFENCE_STEP; cat"], SOON).await;
        assert_eq!(out.unwrap(), "drain\nin");
    }

    #[tokio::test]
    async fn a_program_that_fails_says_how_and_what_it_wrote() {
        let error = ran(&["sh", "-c", "echo no route >&2; exit 3"], SOON).await;
        let text = error.unwrap_err().to_string();
        assert_eq!(text, "sh ended with exit status: 3: no route");
        let error = ran(&["/nowhere/at-all"], SOON).await.unwrap_err();
        assert!(matches!(error, OutsideError::NotStarted { .. }), "{error}");
    }

    #[tokio::test]
    async fn a_late_program_is_killed_with_what_it_started() {
        let folder = tempfile::tempdir().unwrap();
        let mark = folder.path().join("mark");
        let line = format!("(sleep 1; touch {}) & sleep 60", mark.display());
        let error = ran(&["sh", "-c", &line], Duration::from_millis(100)).await;
        assert!(matches!(error, Err(OutsideError::Late { .. })));
        tokio::time::sleep(Duration::from_millis(1500)).await;
        assert!(!mark.exists(), "its child lived on");
    }

    #[tokio::test]
    async fn what_never_ends_to_write_is_cut_off() {
        let out = ran(
            &["sh", "-c", "head -c 1000000 /dev/zero | tr '\\0' x"],
            SOON,
        )
        .await;
        assert!(out.unwrap_err().to_string().contains("more than"));
    }
}
