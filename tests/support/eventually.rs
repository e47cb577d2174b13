//! Waiting with a reason: the only place that sleeps.
//!
//! A test that sleeps for a guessed time is slow on a good day and wrong on a bad one. So a
//! caller says what it waits for and how long that may take, and a wait that fails says both,
//! together with the last thing it saw.

use std::time::{Duration, Instant};

use anyhow::{Result, bail};

/// Time between two questions: short beside anything a test measures, long enough that the
/// asking itself doesn't load a small machine.
const POLL: Duration = Duration::from_millis(5);

/// Asks until there is an answer.
///
/// `what` completes the sentence "waited for …". An error of `ask` counts as "not yet" and is
/// told if the time runs out.
///
/// # Errors
/// No answer within `within`.
pub async fn eventually<T>(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<Option<T>>,
) -> Result<T> {
    let begin = Instant::now();
    loop {
        // An answer that hangs must not outlive the wait.
        let last = match tokio::time::timeout(within, ask()).await {
            Ok(Ok(Some(answer))) => return Ok(answer),
            Ok(Ok(None)) => "not so yet".to_owned(),
            Ok(Err(error)) => format!("{error:#}"),
            Err(_) => "the question itself got no answer".to_owned(),
        };
        if begin.elapsed() >= within {
            bail!("waited {within:?} for {what}; last seen: {last}");
        }
        tokio::time::sleep(POLL).await;
    }
}

/// Like [`eventually`], for a condition that is true or not.
///
/// # Errors
/// Not true within `within`.
pub async fn until(
    what: &str,
    within: Duration,
    mut ask: impl AsyncFnMut() -> Result<bool>,
) -> Result<()> {
    eventually(what, within, async || Ok(ask().await?.then_some(()))).await
}

/// The pause of a client between two operations, of a relay that delays, or of a demonstration
/// that lets its audience look. Never a wait for something to become true.
pub async fn pause(time: Duration) {
    if !time.is_zero() {
        tokio::time::sleep(time).await;
    }
}

/// For `Drop`, where nothing can be awaited: whether `ask` came true within `within`.
#[must_use]
pub fn blocking(within: Duration, mut ask: impl FnMut() -> bool) -> bool {
    let begin = Instant::now();
    loop {
        if ask() {
            return true;
        }
        if begin.elapsed() >= within {
            return false;
        }
        std::thread::sleep(POLL);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_failed_wait_names_its_reason_and_the_last_thing_seen() {
        let result: Result<()> = eventually("the tide", Duration::from_millis(20), async || {
            anyhow::bail!("the sea is at 3 m")
        })
        .await;
        let text = format!("{:#}", result.expect_err("nothing became true"));
        assert!(text.contains("the tide") && text.contains("3 m"), "{text}");
    }

    #[tokio::test]
    async fn an_answer_ends_the_wait() {
        let mut left = 3;
        let answer = eventually("a countdown", Duration::from_secs(5), async || {
            left -= 1;
            Ok((left == 0).then_some("done"))
        });
        assert_eq!(answer.await.expect("it counts down"), "done");
    }
}
