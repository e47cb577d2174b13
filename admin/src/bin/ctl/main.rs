//! `writefencectl`: the operator's side of the admin socket.
//!
//! It can do nothing that the socket cannot. It asks, follows and prints; the daemon executes.
//! This file only turns a command's end into the exit code of `api::Exit`.

mod abort;
mod advice;
mod args;
mod audit;
mod context;
mod drill;
mod explain_http;
mod explain_sql;
mod failover;
mod follow;
mod open_writes;
mod out;
mod plan_text;
mod preflight;
mod prepare;
mod promote;
mod reload;
mod report;
mod resume;
mod sessions;
mod several;
mod start;
mod status;
mod status_text;
mod switchover;
mod text;
mod unknown;
mod verify;
mod view;
mod watch_drain;

use std::process::ExitCode;

use clap::Parser;
use writefence_admin::api::{ApiError, Code, Exit};

use args::Args;
use context::Context;
use out::Out;

fn main() -> ExitCode {
    let exit = match Args::try_parse() {
        Ok(args) => execute(args),
        Err(error) => usage(&error),
    };
    ExitCode::from(exit.code())
}

fn execute(args: Args) -> Exit {
    let out = Out::new(args.global.json).with_events(args.global.events);
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build();
    let ended = match runtime {
        Ok(runtime) => runtime.block_on(async {
            let (mut global, command) = (args.global, args.command);
            if let args::Command::Audit(args) = &command
                && args.is_offline()
            {
                global.key = None;
            }
            let context = Context::new(global, out)?;
            command.run(&context).await
        }),
        Err(error) => Err(ApiError::new(
            Code::Internal,
            format!("cannot start: {error}"),
        )),
    };
    ended.unwrap_or_else(|error| {
        out.error(&error);
        error.code.exit()
    })
}

/// clap would exit with 2, which here means "daemon unreachable".
fn usage(error: &clap::Error) -> Exit {
    if !error.use_stderr() {
        // --help and --version; a closed pipe is nobody's error.
        let _ = error.print();
        return Exit::Done;
    }
    if std::env::args_os().any(|arg| arg == "--json") {
        let text = error.to_string();
        let said = text
            .trim_start_matches("error: ")
            .lines()
            .take_while(|line| !line.is_empty());
        let sentence = said.map(str::trim).collect::<Vec<_>>().join(" ");
        let hint = "`writefencectl --help` shows what is accepted";
        Out::new(true).error(&ApiError::new(Code::BadRequest, sentence).hint(hint));
    } else {
        let _ = error.print();
    }
    Exit::Usage
}
