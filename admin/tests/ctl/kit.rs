//! A server with a fake behind it, and the built command in front.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::Value;
use tokio::runtime::Runtime;
use tokio::sync::oneshot;
use tokio::task::JoinHandle;
use writefence_admin::client::Client;
use writefence_admin::server;

use crate::fake::Fake;

/// Nothing that is to come takes longer, on a busy machine.
const LONG: Duration = Duration::from_secs(30);

/// Who says nothing for this long to garbage says nothing.
const SILENT: Duration = Duration::from_secs(2);

/// A running server; dropped, it is gone.
pub(crate) struct Server {
    pub(crate) fake: Fake,
    pub(crate) socket: PathBuf,
    pub(crate) runtime: Runtime,
    stop: Option<oneshot::Sender<()>>,
    serving: Option<JoinHandle<()>>,
    _dir: tempfile::TempDir,
}

impl Server {
    pub(crate) fn start() -> Self {
        Self::with_groups(&["main"])
    }

    pub(crate) fn with_groups(groups: &[&str]) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let socket = dir.path().join("admin.sock");
        let runtime = Runtime::new().unwrap();
        let fake = Fake::new(groups);
        let listener = runtime.block_on(async { server::bind(&socket) }).unwrap();
        let (stop, stopped) = oneshot::channel::<()>();
        let shutdown = async {
            let _ = stopped.await;
        };
        let serving = server::serve(listener, Arc::new(fake.clone()), shutdown);
        let serving = Some(runtime.spawn(serving));
        Self {
            fake,
            socket,
            runtime,
            stop: Some(stop),
            serving,
            _dir: dir,
        }
    }

    /// Asks the server to stop and waits until it has; the time it took.
    pub(crate) fn shut_down(&mut self) -> Duration {
        let began = Instant::now();
        self.stop.take().unwrap().send(()).unwrap();
        self.runtime.block_on(self.serving.take().unwrap()).unwrap();
        began.elapsed()
    }

    pub(crate) fn client(&self) -> Client {
        Client::new(&self.socket, LONG)
    }

    pub(crate) fn command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_writefencectl"));
        command
            .env("WRITEFENCE_SOCKET", &self.socket)
            .args(args)
            .stdin(Stdio::null());
        command
    }

    pub(crate) fn ctl(&self, args: &[&str]) -> Ran {
        Ran::of(self.command(args).output().unwrap())
    }

    /// Sends bytes as they are, says that no more follow, and reads what comes back.
    pub(crate) fn garbage(&self, bytes: &[u8]) -> String {
        let shut = |stream: &UnixStream| drop(stream.shutdown(Shutdown::Write));
        self.raw(bytes, SILENT, shut)
    }

    /// Reads until the server closes or falls silent.
    fn raw(&self, bytes: &[u8], silent: Duration, then: impl FnOnce(&UnixStream)) -> String {
        let mut stream = UnixStream::connect(&self.socket).unwrap();
        stream.set_read_timeout(Some(silent)).unwrap();
        // The server may close while this is still writing.
        let _ = stream.write_all(bytes);
        then(&stream);
        let mut answer = Vec::new();
        let _ = stream.read_to_end(&mut answer);
        String::from_utf8_lossy(&answer).into_owned()
    }

    /// One HTTP request; status and document.
    pub(crate) fn http(&self, method: &str, path: &str, body: &str) -> (u16, Value) {
        let answer = self.raw(
            format!(
                "{method} {path} HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\
                 content-length: {}\r\n\r\n{body}",
                body.len()
            )
            .as_bytes(),
            LONG,
            |_| {},
        );
        let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
        let status = head.split(' ').nth(1).unwrap_or_default().parse().unwrap();
        assert!(head.contains("application/json"), "{head}");
        (status, serde_json::from_str(body).unwrap())
    }
}

/// What a command printed and how it ended.
pub(crate) struct Ran {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Ran {
    pub(crate) fn of(output: Output) -> Self {
        Self {
            code: output.status.code(),
            stdout: String::from_utf8(output.stdout).unwrap(),
            stderr: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// The one document that `--json` prints.
    pub(crate) fn document(&self) -> Value {
        assert_eq!(self.stdout.lines().count(), 1, "{}", self.stdout);
        let document: Value = serde_json::from_str(&self.stdout).unwrap();
        assert_eq!(document["api"], 1, "{document}");
        document
    }
}

/// Waits for a condition; the only place here that sleeps.
pub(crate) fn eventually(what: &str, condition: impl Fn() -> bool) {
    let began = Instant::now();
    while !condition() {
        assert!(began.elapsed() < LONG, "waited in vain: {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
