//! Passwords, from a file in libpq's `.pgpass` format or from an environment variable.
//!
//! The configuration itself never holds a password. A passfile is read whole when the
//! configuration is loaded, so that a missing or readable-by-all file is found by `check` and not
//! in the middle of a failover; a reload reads it again.

use std::env;
use std::fs::File;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};

use toml::de::DeValue;

use crate::defaults;
use crate::error::ProblemKind;
use crate::raw::{Findings, Section};
use crate::secret::Secret;
use crate::value::{self, Wrong};

const ACCEPTED: &str = "a file in .pgpass format that only its owner may read (mode 0600)";
const VARIABLE: &str = "the name of an environment variable that is set";

/// Where a login's password comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Password {
    /// None is configured; only a server that asks for none will let us in.
    None,
    /// From the environment.
    Value(Secret<String>),
    /// From a passfile, by server, database and user.
    File(Passfile),
}

impl Password {
    /// Reads `passfile` and `password_env` of a section, of which at most one may be given.
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        if section.is_given("passfile") && section.is_given("password_env") {
            let wrong = Wrong::value("is given beside passfile", "one of the two");
            let key = section.path("password_env");
            found.problem(
                section.at("password_env"),
                key,
                ProblemKind::Conflict,
                wrong,
            );
        }
        let file = section.read("passfile", found, passfile).map(Self::File);
        let variable = section
            .read("password_env", found, variable)
            .map(Self::Value);
        file.or(variable).unwrap_or(Self::None)
    }

    /// The password for this login, if there is one.
    pub fn lookup(
        &self,
        host: &str,
        port: u16,
        database: &str,
        user: &str,
    ) -> Option<Secret<String>> {
        match self {
            Self::None => None,
            Self::Value(secret) => Some(secret.clone()),
            Self::File(file) => file.lookup(host, port, database, user),
        }
    }
}

fn passfile(value: &DeValue<'_>) -> Result<Passfile, Wrong> {
    Passfile::load(Path::new(&value::text(ACCEPTED)(value)?))
}

fn variable(value: &DeValue<'_>) -> Result<Secret<String>, Wrong> {
    let name = value::text(VARIABLE)(value)?;
    // The name is not repeated: a password written here by mistake would be printed.
    let secret = env::var(name).map_err(|_| Wrong::value("names no variable", VARIABLE))?;
    Ok(Secret::new(secret))
}

/// A file of `host:port:database:user:password` lines.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Passfile {
    path: PathBuf,
    entries: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Entry {
    matches: [Option<String>; 4],
    password: Secret<String>,
}

impl Passfile {
    /// Reads a passfile, with libpq's rule that nobody but its owner may read it.
    ///
    /// # Errors
    /// What is wrong, and what would be accepted.
    pub(crate) fn load(path: &Path) -> Result<Self, Wrong> {
        let wrong = |what: String| Wrong::value(what, ACCEPTED);
        let unreadable = |error: io::Error| wrong(format!("cannot be read: {error}"));
        let file = File::open(path).map_err(unreadable)?;
        let metadata = file.metadata().map_err(unreadable)?;
        if !metadata.is_file() {
            return Err(wrong("is not a plain file".to_owned()));
        }
        let mode = metadata.permissions().mode() & 0o777;
        if mode & 0o077 != 0 {
            return Err(wrong(format!("has mode {mode:04o}, so others may read it")));
        }
        if metadata.len() > defaults::PASSFILE_BYTES as u64 {
            return Err(wrong("is too large".to_owned()));
        }
        let text = io::read_to_string(file).map_err(unreadable)?;
        let entries = text.lines().filter_map(Entry::parse).collect();
        Ok(Self {
            path: path.to_owned(),
            entries,
        })
    }

    /// The password of the first line that matches, as libpq does it: each of the four fields is
    /// equal or `*`. A replication login asks for the database `replication`.
    pub fn lookup(
        &self,
        host: &str,
        port: u16,
        database: &str,
        user: &str,
    ) -> Option<Secret<String>> {
        let port = port.to_string();
        let asked = [host, port.as_str(), database, user];
        let entry = self.entries.iter().find(|entry| entry.matches(asked))?;
        Some(entry.password.clone())
    }

    /// The file it was read from.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

impl Entry {
    /// One line; empty lines, comments, and lines without a password are passed over, as by
    /// libpq. Only a bare `*` matches anything; `\*` is a star.
    fn parse(line: &str) -> Option<Self> {
        if line.starts_with('#') {
            return None;
        }
        let mut fields = fields(line).into_iter();
        let mut next = || {
            fields
                .next()
                .map(|field| (field != "*").then(|| unescaped(field)))
        };
        let matches = [next()?, next()?, next()?, next()?];
        let password = fields
            .next()
            .map(unescaped)
            .filter(|password| !password.is_empty())?;
        Some(Self {
            matches,
            password: Secret::new(password),
        })
    }

    fn matches(&self, asked: [&str; 4]) -> bool {
        let equal = |(wanted, asked): (&Option<String>, &str)| {
            wanted.as_deref().is_none_or(|wanted| wanted == asked)
        };
        self.matches.iter().zip(asked).all(equal)
    }
}

/// The fields of a line as written: they end at a colon that no backslash precedes.
fn fields(line: &str) -> Vec<&str> {
    let mut escaped = false;
    line.split(|c| {
        let ends = c == ':' && !escaped;
        escaped = c == '\\' && !escaped;
        ends
    })
    .collect()
}

/// A backslash takes the next character as it is.
fn unescaped(field: &str) -> String {
    let mut text = String::new();
    let mut rest = field.chars();
    while let Some(c) = rest.next() {
        match c {
            '\\' => text.extend(rest.next()),
            c => text.push(c),
        }
    }
    text
}
