//! Configuration of writefence: one TOML file in, one typed [`Config`] or all [`Problems`] out.
//!
//! Two doors: [`load`] for a path, [`parse`] for text. The way is read (`raw`), refuse what nobody
//! knows (`unknown`, by the table in `keys`), give each section its types and defaults (`admin`,
//! `gate`, `pg`, `http`, `tcp`, `upstream`, …), then the rules between sections (`resolve`). Every number lives
//! in `defaults`. [`reload`] tells what a changed file can change in a running daemon.
//!
//! The phase of a gate is never configuration. Relative paths are relative to the daemon's working
//! directory, as on a command line.

mod address;
mod admin;
mod certmap;
mod config;
mod defaults;
mod effect;
mod entries;
mod error;
mod gate;
mod group;
mod http;
mod keys;
mod keywords;
mod limits;
mod listen;
mod names;
mod network;
mod passfile;
mod pattern;
mod pg;
mod raw;
pub mod reload;
mod resolve;
mod secret;
mod tcp;
mod telemetry;
mod tls;
mod units;
mod unknown;
mod upstream;
mod userlist;
mod value;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use toml::de::DeTable;

pub use admin::Admin;
pub use certmap::CertMap;
pub use config::Config;
pub use effect::Effect;
pub use error::{Place, Problem, ProblemKind, Problems, Warning};
pub use gate::{Answer, Begin, Drain, Fence, Order, Run, Scope};
pub use group::Group;
pub use http::{Cors, HttpListener, HttpTls, Route, RouteVerdict, Streams};
pub use limits::{Console, Limits, Tcp};
pub use listen::{Listener, ListenerKind};
pub use network::Network;
pub use passfile::{Passfile, Password};
pub use pattern::Pattern;
pub use pg::{Auth, PgListener, Sql, Sqlstate, Volatile};
pub use secret::Secret;
pub use tcp::{NewConnections, OldConnections, TcpListener};
pub use telemetry::{Log, LogFormat, LogLevel};
pub use tls::{Demand, RegionTls, ServerTls, Verify};
pub use upstream::{
    Away, Driver, Endpoint, HttpVersion, Method, Objectives, Observer, Reads, Region,
};
pub use userlist::{Stored, Userlist};

use raw::{Findings, Section};
use value::Wrong;

/// A configuration, and what is legal in it but unlikely to be meant.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// What to run with.
    pub config: Config,
    /// What to tell the operator.
    pub warnings: Vec<Warning>,
}

/// Reads and checks a file.
///
/// # Errors
/// Everything that is wrong with it, or why it could not be read.
pub fn load(path: &Path) -> Result<Loaded, Problems> {
    let name = path.display().to_string();
    let text = read(path).map_err(|what| {
        let mut found = Findings::new(&name, "");
        let wrong = Wrong::value(what, "a TOML file in UTF-8 of up to 1 MiB");
        found.problem(0, String::new(), ProblemKind::Unreadable, wrong);
        Problems::new(found.problems)
    })?;
    parse(&text, &name)
}

fn read(path: &Path) -> Result<String, String> {
    let unreadable = |error: io::Error| format!("cannot be read: {error}");
    let mut bytes = Vec::new();
    let limit = defaults::FILE_BYTES as u64 + 1;
    File::open(path)
        .map_err(unreadable)?
        .take(limit)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    String::from_utf8(bytes).map_err(|error| {
        let valid = error.utf8_error().valid_up_to();
        format!("is not UTF-8 from byte {valid} on")
    })
}

/// Checks a configuration's text; `name` stands for the file in messages. Passfiles and variables
/// that the text names are read.
///
/// # Errors
/// Everything that is wrong with it.
pub fn parse(text: &str, name: &str) -> Result<Loaded, Problems> {
    let mut found = Findings::new(name, text);
    if text.len() > defaults::FILE_BYTES {
        let wrong = Wrong::value("is too large", "a file of up to 1 MiB");
        found.problem(0, String::new(), ProblemKind::Unreadable, wrong);
        return Err(Problems::new(found.problems));
    }
    let (document, errors) = DeTable::parse_recoverable(text);
    if !errors.is_empty() {
        return Err(syntax(&errors, found));
    }
    unknown::check(document.get_ref(), &mut found);
    let config = resolve::resolve(&Section::root(&document), &mut found);
    match config {
        Some(config) if found.problems.is_empty() => Ok(Loaded {
            config,
            warnings: found.warnings,
        }),
        _ => Err(Problems::new(found.problems)),
    }
}

/// With broken syntax the tree is a guess, and what it seems to lack or to hold would mislead; so
/// the syntax is all that is reported.
fn syntax(errors: &[toml::de::Error], mut found: Findings<'_>) -> Problems {
    for error in errors.iter().take(defaults::SYNTAX_PROBLEMS) {
        let at = error.span().map_or(0, |span| span.start);
        let wrong = Wrong::value(
            format!("is not TOML: {}", error.message()),
            "TOML; texts, durations and sizes stand in double quotes",
        );
        found.problem(at, String::new(), ProblemKind::Syntax, wrong);
    }
    Problems::new(found.problems)
}
