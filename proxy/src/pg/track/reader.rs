//! Whether the open transaction is one that PostgreSQL keeps read-only to its end.
//!
//! Begun READ ONLY, a transaction can be made read-write only before its first query has taken a
//! snapshot (PostgreSQL, `check_transaction_read_only`), and in no savepoint. So a transaction whose
//! BEGIN said READ ONLY and whose first statement was a query stays read-only, whatever comes. Only
//! plain words are believed here: what is not understood at a glance may be anything.

use super::group::{Group, Item, Shape};

/// What is known of the open transaction.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Reader {
    /// Nothing.
    #[default]
    Unknown,
    /// It was begun, and nothing else was said.
    Begun,
    /// It was begun READ ONLY, and has run no query.
    ReadOnly,
    /// It is read-only to its end.
    ToItsEnd,
}

impl Reader {
    /// After this group was answered; `idle`: no transaction was open before it.
    pub(super) fn after(self, group: &Group, idle: bool) -> Self {
        let before = if idle { Self::Unknown } else { self };
        match group.shape {
            Shape::CopyEnd | Shape::CopySync => before,
            // It takes a snapshot, and ends no transaction.
            Shape::Function => before.fixed(),
            Shape::Query if group.too_long => Self::Unknown,
            Shape::Query => before.heard(&group.text, idle, group.failed),
            // Which of them had run before the error is not known.
            Shape::Extended if group.failed && group.executes() > 1 => Self::Unknown,
            Shape::Extended => {
                let mut now = before;
                let mut first = idle;
                for item in &group.items {
                    if let Item::Execute(prepared) = item {
                        let text = prepared.as_ref().map_or(&b""[..], |p| p.text());
                        now = now.heard(text, first, group.failed);
                        first = false;
                    }
                }
                now
            }
        }
    }

    /// If these groups, sent and not answered, take nothing of it away.
    pub(super) fn with<'a>(self, mut in_flight: impl Iterator<Item = &'a Group>) -> bool {
        match self {
            Self::ToItsEnd => true,
            Self::ReadOnly => in_flight
                .next()
                .is_some_and(|group| is_query(group.words())),
            Self::Unknown | Self::Begun => false,
        }
    }

    fn fixed(self) -> Self {
        match self {
            Self::ReadOnly | Self::ToItsEnd => Self::ToItsEnd,
            Self::Unknown | Self::Begun => Self::Unknown,
        }
    }

    fn heard(self, text: &[u8], idle: bool, failed: bool) -> Self {
        let Some(text) = alone(text) else {
            return Self::Unknown;
        };
        match (self, failed) {
            // What failed has changed nothing, and may not have taken its snapshot.
            (_, true) => self,
            (Self::ToItsEnd, false) if ends_transaction(text) => Self::Unknown,
            (Self::ToItsEnd, false) => self,
            (Self::ReadOnly, false) if is_query(text) => Self::ToItsEnd,
            (Self::Begun | Self::ReadOnly, false) => {
                match modes(text, &[&["set", "transaction"]]) {
                    Some(true) => Self::ReadOnly,
                    Some(false) | None => Self::Unknown,
                }
            }
            (Self::Unknown, false) if idle => match modes(text, BEGIN) {
                Some(true) => Self::ReadOnly,
                Some(false) => Self::Begun,
                None => Self::Unknown,
            },
            (Self::Unknown, false) => self,
        }
    }
}

/// The longer first: the first that fits is taken.
const BEGIN: &[&[&str]] = &[
    &["begin", "transaction"],
    &["begin", "work"],
    &["begin"],
    &["start", "transaction"],
];

/// Statements that take a snapshot.
const QUERIES: [&str; 7] = [
    "select", "with", "values", "table", "copy", "declare", "explain",
];

/// The text without a semicolon at its end; `None`: there is more than one statement in it.
fn alone(text: &[u8]) -> Option<&[u8]> {
    let text = text.trim_ascii();
    let text = text.strip_suffix(b";").unwrap_or(text);
    (!text.contains(&b';')).then_some(text)
}

fn words(text: &[u8]) -> impl Iterator<Item = &[u8]> {
    let words = text.split(|byte| !byte.is_ascii_alphanumeric() && *byte != b'_');
    words.filter(|word| !word.is_empty())
}

fn is_query(text: &[u8]) -> bool {
    let begins = text.trim_ascii_start();
    let first = words(begins).next().unwrap_or_default();
    begins.starts_with(first)
        && QUERIES
            .iter()
            .any(|q| first.eq_ignore_ascii_case(q.as_bytes()))
}

/// COMMIT and its kin, which AND CHAIN begins the next transaction with; ROLLBACK TO does not.
fn ends_transaction(text: &[u8]) -> bool {
    let is = |word: Option<&[u8]>, all: &[&str]| {
        word.is_some_and(|word| {
            all.iter()
                .any(|one| word.eq_ignore_ascii_case(one.as_bytes()))
        })
    };
    let first = words(text).next();
    let plain = text.first().is_some_and(u8::is_ascii_alphabetic);
    // A comment in front hides the word, and so may be anything.
    !plain
        || is(first, &["commit", "end", "abort", "prepare"])
        || (is(first, &["rollback"]) && !goes_to_savepoint(text))
}

/// ROLLBACK TO, with nothing but blanks between its words: a comment may say TO as well.
fn goes_to_savepoint(rollback: &[u8]) -> bool {
    let words = rollback.split(u8::is_ascii_whitespace);
    let mut words = words.filter(|word| !word.is_empty()).skip(1);
    let is = |word: &[u8], what: &str| word.eq_ignore_ascii_case(what.as_bytes());
    let second = words.next().unwrap_or_default();
    is(second, "to")
        || ((is(second, "work") || is(second, "transaction"))
            && words.next().is_some_and(|word| is(word, "to")))
}

/// Whether a statement that begins so and has transaction modes says READ ONLY; `None`: it is another.
fn modes(text: &[u8], beginnings: &[&[&str]]) -> Option<bool> {
    let plain =
        |byte: &u8| byte.is_ascii_alphabetic() || byte.is_ascii_whitespace() || *byte == b',';
    if !text.iter().all(plain) {
        return None;
    }
    let words: Vec<&[u8]> = words(text).collect();
    let same = |word: &[u8], wanted: &str| word.eq_ignore_ascii_case(wanted.as_bytes());
    let fits = |beginning: &&&[&str]| {
        words.len() >= beginning.len() && words.iter().zip(**beginning).all(|(w, b)| same(w, b))
    };
    let rest = words.get(beginnings.iter().find(fits)?.len()..)?;
    let says = |mode: &str| {
        let mut pairs = rest.windows(2);
        pairs.any(|pair| matches!(pair, [read, what] if same(read, "read") && same(what, mode)))
    };
    (!says("write")).then(|| says("only"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Group {
        Group {
            shape: Shape::Query,
            text: text.as_bytes().to_vec(),
            ..Group::default()
        }
    }

    /// What is known after these statements of one transaction.
    fn after(texts: &[&str]) -> Reader {
        let all = texts.iter().enumerate();
        all.fold(Reader::default(), |now, (n, text)| {
            now.after(&query(text), n == 0)
        })
    }

    #[test]
    fn a_transaction_begun_read_only_reads_to_its_end_from_its_first_query_on() {
        for begin in [
            "BEGIN READ ONLY",
            "begin transaction isolation level repeatable read, read only;",
            "START TRANSACTION READ ONLY ISOLATION LEVEL SERIALIZABLE",
            " BEGIN WORK READ ONLY DEFERRABLE ",
        ] {
            assert_eq!(after(&[begin]), Reader::ReadOnly, "{begin}");
            assert_eq!(after(&[begin, "SELECT 1;"]), Reader::ToItsEnd, "{begin}");
        }
        // pg_dump.
        let dump = [
            "BEGIN",
            "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY",
            "SELECT 1",
            "COPY t TO stdout",
            "SAVEPOINT s",
            "ROLLBACK TO s",
            "rollback  work to savepoint s",
        ];
        assert_eq!(after(&dump), Reader::ToItsEnd);
    }

    #[test]
    fn what_could_still_be_made_read_write_is_not_known_to_read() {
        for texts in [
            &["BEGIN", "SELECT 1"][..],
            &["BEGIN READ WRITE", "SELECT 1"],
            &["BEGIN READ ONLY, READ WRITE", "SELECT 1"],
            &["BEGIN READ ONLY", "SET TRANSACTION READ WRITE", "SELECT 1"],
            &["BEGIN READ ONLY", "SHOW x", "SET TRANSACTION READ WRITE"],
            &[
                "BEGIN READ ONLY",
                "SHOW x; SET TRANSACTION READ WRITE",
                "SELECT 1",
            ],
            &[
                "BEGIN READ ONLY",
                "SET transaction_read_only = off",
                "SELECT 1",
            ],
            &[
                "BEGIN READ ONLY",
                "/* SELECT */ SET TRANSACTION READ WRITE",
                "SELECT 1",
            ],
            &[
                "BEGIN",
                "SAVEPOINT s",
                "SET TRANSACTION READ ONLY",
                "SELECT 1",
            ],
            &["BEGIN; SELECT 1", "SET TRANSACTION READ ONLY", "SELECT 1"],
            &["SELECT 'begin read only'", "SELECT 1"],
            &["BEGIN READ ONLY", "SELECT 1", "COMMIT AND CHAIN"],
            &["BEGIN READ ONLY", "SELECT 1", "/**/ COMMIT AND CHAIN"],
            &["BEGIN READ ONLY", "SELECT 1", "SELECT 1; COMMIT AND CHAIN"],
            &["BEGIN READ ONLY", "SELECT 1", "ROLLBACK AND CHAIN"],
            &["BEGIN READ ONLY", "SELECT 1", "ROLLBACK /* to */ AND CHAIN"],
            &[
                "BEGIN READ ONLY",
                "SELECT 1",
                "ROLLBACK WORK -- TO\nAND CHAIN",
            ],
        ] {
            assert_eq!(after(texts), Reader::Unknown, "{texts:?}");
        }
    }

    #[test]
    fn a_first_query_that_failed_or_is_under_way_has_its_snapshot_only_when_it_runs() {
        let begun = after(&["BEGIN READ ONLY"]);
        let mut failed = query("SELEC 1");
        failed.failed = true;
        assert_eq!(begun.after(&failed, false), Reader::ReadOnly);
        assert!(begun.with([query("SELECT 1")].iter()));
        assert!(!begun.with([query("SET TRANSACTION READ WRITE")].iter()));
        assert!(
            !begun.with([].iter()),
            "the next statement may make it read-write"
        );
        assert!(Reader::ToItsEnd.with([].iter()));
    }

    #[test]
    fn of_a_run_that_failed_nobody_knows_what_had_run_before() {
        let mut run = Group {
            shape: Shape::Extended,
            items: vec![Item::Execute(None), Item::Execute(None)],
            ..Group::default()
        };
        run.failed = true;
        // COMMIT and BEGIN were in it.
        assert_eq!(Reader::ToItsEnd.after(&run, false), Reader::Unknown);
        run.items.pop();
        let alone = Reader::ToItsEnd.after(&run, false);
        assert_eq!(alone, Reader::ToItsEnd, "what failed has done nothing");
    }
}
