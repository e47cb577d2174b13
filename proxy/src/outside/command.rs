//! A program of the user's: its words, environment and input; its output as the answer.

use std::process::Stdio;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process_group};
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt};
use tokio::process::{Child, Command};
use tokio::time::timeout;

use super::{ANSWER, OutsideError};

/// What is to be run.
pub(crate) struct Program<'a> {
    /// The program and its arguments; no shell reads them.
    pub(crate) words: &'a [String],
    /// Added to our own environment.
    pub(crate) env: &'a [(&'static str, String)],
    /// Its standard input.
    pub(crate) input: &'a [u8],
    /// For all of it.
    pub(crate) timeout: Duration,
}

/// Runs a program to its end and answers with its standard output.
///
/// # Errors
/// It could not be run, failed, or took too long; it does not run on then.
pub(crate) async fn run(program: &Program<'_>) -> Result<String, OutsideError> {
    let (first, rest) = program
        .words
        .split_first()
        .ok_or_else(|| OutsideError::NotStarted {
            program: "an empty command".to_owned(),
            source: std::io::ErrorKind::InvalidInput.into(),
        })?;
    let started = Command::new(first)
        .args(rest)
        .envs(program.env.iter().map(|(key, value)| (key, value)))
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        // A group of its own, so that it can be ended with all that it started.
        .process_group(0)
        .kill_on_drop(true)
        .spawn();
    let child = started.map_err(|source| OutsideError::NotStarted {
        program: first.clone(),
        source,
    })?;
    let mut group = Group(child.id());
    let ended = timeout(program.timeout, talk(child, program.input)).await;
    let Ok(ended) = ended else {
        drop(group);
        return Err(OutsideError::Late {
            what: first.clone(),
            after: program.timeout,
        });
    };
    // What a program leaves running on purpose is its own affair once it has ended.
    group.0 = None;
    let failed = |status: String, output: String| OutsideError::Failed {
        program: first.clone(),
        status,
        output,
    };
    let (status, out, err) = ended.map_err(|e| failed(e.to_string(), String::new()))?;
    if !status.success() {
        let output = if err.trim().is_empty() { out } else { err };
        return Err(failed(status.to_string(), output));
    }
    if out.len() > ANSWER {
        return Err(failed(
            format!("more than {ANSWER} bytes of output"),
            String::new(),
        ));
    }
    Ok(out)
}

/// Ends the process group when dropped: also when the caller does not wait any longer.
struct Group(Option<u32>);

impl Drop for Group {
    fn drop(&mut self) {
        let pid = self
            .0
            .and_then(|id| i32::try_from(id).ok())
            .and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Gone already is as good.
            let _ = kill_process_group(pid, Signal::KILL);
        }
    }
}

async fn talk(
    mut child: Child,
    input: &[u8],
) -> std::io::Result<(std::process::ExitStatus, String, String)> {
    let (stdin, stdout, stderr) = (child.stdin.take(), child.stdout.take(), child.stderr.take());
    let write = async {
        if let Some(mut stdin) = stdin {
            // A program that does not read its input is none the worse for it.
            let _ = stdin.write_all(input).await;
        }
    };
    let ((), out, err) = tokio::join!(write, head(stdout), head(stderr));
    let status = child.wait().await?;
    Ok((status, out?, err?))
}

/// The beginning of a stream; the rest is read and dropped, so that the writer can end.
async fn head(from: Option<impl AsyncRead + Unpin>) -> std::io::Result<String> {
    let Some(from) = from else {
        return Ok(String::new());
    };
    let mut kept = Vec::new();
    let mut from = from.take(ANSWER as u64 + 1);
    from.read_to_end(&mut kept).await?;
    tokio::io::copy(&mut from.into_inner(), &mut tokio::io::sink()).await?;
    Ok(String::from_utf8_lossy(&kept).into_owned())
}
