//! What a run does besides its own steps: `[[hook]]`, `[[check]]`, and the commands of evidence.
//!
//! A command is a program with its arguments, never a shell's line: what a tired person would have
//! to quote is quoted by nobody. Hooks and checks run in the order of the file.

use std::time::Duration;

use toml::de::DeValue;

use crate::defaults;
use crate::error::ProblemKind;
use crate::names;
use crate::raw::{Findings, Section};
use crate::value::{self, Word, Wrong};

/// A program with its arguments.
pub type Program = Vec<String>;

/// When a hook runs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Moment {
    /// Conditions are met, writes still pass.
    BeforeFence,
    /// Nothing that was admitted runs any more.
    AfterDrain,
    /// The last moment before the point of no return.
    BeforePromote,
    /// The candidate is proven to be the new primary.
    AfterPromote,
    /// Just before writes pass again.
    BeforeOpen,
    /// Writes pass again.
    AfterOpen,
    /// The move is verified: the old primary may be brought back as a standby.
    Rejoin,
    /// The run went back.
    OnAbort,
    /// The run ended without reaching its aim.
    OnFailure,
}

/// What becomes of the run when a hook or a check fails.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OnFailure {
    /// It stops, or goes back by itself; behind the point of no return it is an exception only.
    Stop,
    /// It goes on, and the failure is among its exceptions.
    Continue,
}

/// How something outside is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Means {
    /// A program.
    Command(Program),
    /// A request; hooks send a POST, checks a GET.
    Http(String),
    /// A query of the observer, for checks.
    Sql(String),
}

/// `[[hook]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hook {
    /// Its name, unique among hooks.
    pub name: String,
    /// The only group it is for; none: every group.
    pub group: Option<String>,
    /// When it runs.
    pub at: Moment,
    /// What it does.
    pub means: Means,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: usize,
    /// What its failure means.
    pub on_failure: OnFailure,
}

/// When a check is made.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckAt {
    /// Before the fence.
    Before,
    /// After the opening, as a part of `verify`.
    After,
    /// Both.
    Both,
}

/// Which server a query of a check is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CheckOf {
    /// The primary in force at that time.
    Primary,
    /// The candidate before the move, the old primary after it.
    Other,
}

/// `[[check]]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Check {
    /// Its name, unique among checks.
    pub name: String,
    /// The only group it is for; none: every group.
    pub group: Option<String>,
    /// When it is made.
    pub at: CheckAt,
    /// How.
    pub means: Means,
    /// Which server a query is for.
    pub of: CheckOf,
    /// A query's first value, a number, may not be above it.
    pub most: Option<Duration>,
    /// A query's first value after the move is not below the one before it.
    pub keeps: bool,
    /// The slowest of a hundred may take this long.
    pub p99: Option<Duration>,
    /// Attempts that must all succeed, …
    pub times: usize,
    /// … this far apart.
    pub every: Duration,
    /// Every attempt must fail instead: what is to be given up is really gone.
    pub fails: bool,
    /// How long one attempt may take.
    pub timeout: Duration,
    /// What its failure means before the move.
    pub on_failure: OnFailure,
}

/// `[group.X.evidence]`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Evidence {
    /// Succeeds only where the old primary is stopped and stays so.
    pub stopped: Option<Program>,
    /// Cuts the old primary off or powers it down, and succeeds only when that is done.
    pub stonith: Option<Program>,
    /// How long each may take.
    pub timeout: Duration,
}

impl Evidence {
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Self {
        Self {
            stopped: section.read("stopped", found, program),
            stonith: section.read("stonith", found, program),
            timeout: section.duration("timeout", &defaults::EVIDENCE_TIMEOUT, found),
        }
    }
}

impl Hook {
    /// Reads one hook; `None` if it has a problem.
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Option<Self> {
        let name = name(section, found);
        let at = section.require(
            "at",
            found,
            "a moment such as \"after_promote\"",
            Moment::read,
        );
        let means = means(section, &["command", "http"], found);
        Some(Self {
            name: name?,
            group: section.read("group", found, value::text("a group's name")),
            at: at?,
            means: means?,
            timeout: section.duration("timeout", &defaults::HOOK_TIMEOUT, found),
            retries: section.count("retries", &defaults::HOOK_RETRIES, found),
            on_failure: section.word("on_failure", defaults::ON_FAILURE, found),
        })
    }
}

impl Check {
    /// Reads one check; `None` if it has a problem.
    pub(crate) fn read(section: &Section<'_>, found: &mut Findings<'_>) -> Option<Self> {
        let name = name(section, found);
        let means = means(section, &["command", "http", "sql"], found);
        let mut time =
            |key| section.read(key, found, crate::units::duration(&defaults::CHECK_MOST));
        let (most, p99) = (time("most"), time("p99"));
        let mut switch = |key| section.read(key, found, value::switch).unwrap_or(false);
        let (keeps, fails) = (switch("keeps"), switch("fails"));
        Some(Self {
            name: name?,
            group: section.read("group", found, value::text("a group's name")),
            at: section.word("at", CheckAt::Both, found),
            means: means?,
            of: section.word("of", CheckOf::Primary, found),
            most,
            keeps,
            p99,
            times: section.count("times", &defaults::CHECK_TIMES, found),
            every: section.duration("every", &defaults::CHECK_EVERY, found),
            fails,
            timeout: section.duration("timeout", &defaults::HOOK_TIMEOUT, found),
            on_failure: section.word("on_failure", defaults::ON_FAILURE, found),
        })
    }
}

fn name(section: &Section<'_>, found: &mut Findings<'_>) -> Option<String> {
    let name = section.require("name", found, "a name", value::text("a name"))?;
    names::check(&name, section, found);
    Some(name)
}

/// The one of these keys that says what to do; two or none is a mistake.
fn means(section: &Section<'_>, keys: &[&str], found: &mut Findings<'_>) -> Option<Means> {
    let given: Vec<&str> = keys
        .iter()
        .copied()
        .filter(|key| section.is_given(key))
        .collect();
    let accepted = format!("one of {}", keys.join(", "));
    let [key] = given.as_slice() else {
        let what = match given.is_empty() {
            true => "does not say what to do".to_owned(),
            false => format!("has {}", given.join(" and ")),
        };
        let wrong = Wrong::value(what, accepted);
        let (at, kind) = (section.start(), ProblemKind::Conflict);
        found.problem(at, section.name().to_owned(), kind, wrong);
        return None;
    };
    match *key {
        "command" => section.read("command", found, program).map(Means::Command),
        "http" => section.read("http", found, url).map(Means::Http),
        _ => section
            .read("sql", found, value::text("a query"))
            .map(Means::Sql),
    }
}

/// A program with its arguments.
pub(crate) fn program(value: &DeValue<'_>) -> Result<Program, Wrong> {
    let accepted = "a list such as [\"/usr/local/bin/program\", \"argument\"]";
    let wrong = || Wrong::value(format!("{} is no command", value::shown(value)), accepted);
    let words = value.as_array().ok_or_else(wrong)?;
    let words: Option<Program> = words
        .iter()
        .map(|word| word.get_ref().as_str().map(str::to_owned))
        .collect();
    let words = words.ok_or_else(wrong)?;
    match words.first() {
        Some(first) if !first.is_empty() && !words.iter().any(|w| w.contains('\0')) => Ok(words),
        _ => Err(wrong()),
    }
}

/// An address of plain HTTP. TLS is for a command to do: what it has to trust is not ours to say.
pub(crate) fn url(value: &DeValue<'_>) -> Result<String, Wrong> {
    let accepted = "\"http://HOST[:PORT]/PATH\"; for https use a command such as curl";
    let wrong = || {
        Wrong::value(
            format!("{} is no such address", value::shown(value)),
            accepted,
        )
    };
    let text = value.as_str().ok_or_else(wrong)?;
    let rest = text.strip_prefix("http://").ok_or_else(wrong)?;
    let host = rest.split('/').next().unwrap_or_default();
    let plain = text.bytes().all(|b| b.is_ascii_graphic());
    if host.is_empty() || !plain || host.contains('@') {
        return Err(wrong());
    }
    Ok(text.to_owned())
}

/// One or several such addresses.
pub(crate) fn urls(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let Some(list) = value.as_array() else {
        return Ok(vec![url(value)?]);
    };
    if list.is_empty() {
        return Err(Wrong::value("is empty", "at least one address"));
    }
    list.iter().map(|one| url(one.get_ref())).collect()
}

impl Moment {
    /// Whether a failure there may still stop the run.
    #[must_use]
    pub const fn may_stop(self) -> bool {
        matches!(
            self,
            Self::BeforeFence | Self::AfterDrain | Self::BeforePromote
        )
    }

    /// Its word, as in the file.
    #[must_use]
    pub fn name(self) -> &'static str {
        self.word()
    }
}

impl Word for Moment {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("before_fence", Self::BeforeFence),
        ("after_drain", Self::AfterDrain),
        ("before_promote", Self::BeforePromote),
        ("after_promote", Self::AfterPromote),
        ("before_open", Self::BeforeOpen),
        ("after_open", Self::AfterOpen),
        ("rejoin", Self::Rejoin),
        ("on_abort", Self::OnAbort),
        ("on_failure", Self::OnFailure),
    ];
}

impl Word for OnFailure {
    const WORDS: &'static [(&'static str, Self)] =
        &[("stop", Self::Stop), ("continue", Self::Continue)];
}

impl Word for CheckAt {
    const WORDS: &'static [(&'static str, Self)] = &[
        ("before", Self::Before),
        ("after", Self::After),
        ("both", Self::Both),
    ];
}

impl Word for CheckOf {
    const WORDS: &'static [(&'static str, Self)] =
        &[("primary", Self::Primary), ("other", Self::Other)];
}
