//! The daemon's command line: `writefence serve` and `writefence check`.

use std::path::PathBuf;
use std::process::ExitCode;
use std::thread;

use clap::{Parser, Subcommand};
use writefence::control::chain;
use writefence::error::StartError;
use writefence_config as config;

/// A proxy that owns the write path to PostgreSQL
#[derive(Debug, Parser)]
#[command(version)]
struct Args {
    #[command(subcommand)]
    verb: Verb,
}

#[derive(Debug, Subcommand)]
enum Verb {
    /// Serves until SIGTERM or SIGINT; SIGHUP reads the file again
    Serve {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
    /// Reads a configuration and says everything that is wrong with it; exit 1 if anything is
    Check {
        /// The configuration
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
    },
}

fn main() -> ExitCode {
    let done = match Args::parse_or_usage() {
        Ok(Verb::Serve { config }) => serve(config),
        Ok(Verb::Check { config }) => check(&config),
        Err(code) => return code,
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("writefence: {}", chain(&error));
            ExitCode::FAILURE
        }
    }
}

impl Args {
    /// clap would exit with 2, which operators know as "daemon unreachable".
    fn parse_or_usage() -> Result<Verb, ExitCode> {
        Self::try_parse().map(|args| args.verb).map_err(|error| {
            let failed = error.use_stderr();
            // Nothing is left to do if even this cannot be written.
            let _ = error.print();
            if failed {
                ExitCode::FAILURE
            } else {
                ExitCode::SUCCESS
            }
        })
    }
}

fn serve(path: PathBuf) -> Result<(), StartError> {
    let loaded = config::load(&path).map_err(StartError::Config)?;
    let cores = thread::available_parallelism().map_or(1, usize::from);
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(cores)
        .thread_name("writefence")
        .enable_all()
        .build()
        .map_err(|source| StartError::System {
            what: "start the runtime",
            source,
        })?;
    let served = runtime.block_on(writefence::app::serve(path, loaded));
    // A file write that hangs must not keep the process from ending.
    runtime.shutdown_timeout(std::time::Duration::from_secs(1));
    served
}

#[expect(clippy::print_stdout, reason = "the answer to the command")]
fn check(path: &std::path::Path) -> Result<(), StartError> {
    let loaded = config::load(path).map_err(StartError::Config)?;
    for warning in &loaded.warnings {
        println!("warning: {warning}");
    }
    let mut problems = writefence::material::problems(&loaded.config);
    let Some(last) = problems.pop() else {
        println!("{}: no problems", path.display());
        return Ok(());
    };
    for problem in &problems {
        println!("{}", chain(problem));
    }
    Err(last)
}
