//! What is typed: one command with at most one word behind it, or SET. As PgBouncer reads it.

/// A command.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Command {
    /// Its word in lower case, and what stands behind it.
    Verb(String, Option<String>),
    /// SET, of which the name is kept.
    Set(String),
}

/// Reads a command; `None` where it is none.
pub(super) fn parse(text: &str) -> Option<Command> {
    let text = text.trim();
    let text = text.strip_suffix(';').unwrap_or(text).trim_end();
    let (verb, rest) = word(text)?;
    let verb = verb.to_ascii_lowercase();
    if verb == "set" {
        let (name, rest) = word(rest)?;
        let rest = rest.trim_start();
        let assigned = rest.starts_with('=') || rest.to_ascii_lowercase().starts_with("to ");
        return assigned.then_some(Command::Set(name));
    }
    if rest.trim().is_empty() {
        return Some(Command::Verb(verb, None));
    }
    let (argument, rest) = word(rest)?;
    rest.trim()
        .is_empty()
        .then_some(Command::Verb(verb, Some(argument)))
}

/// A word of letters, digits and underscores, or anything in double quotes; and what is behind it.
fn word(text: &str) -> Option<(String, &str)> {
    let text = text.trim_start();
    if let Some(quoted) = text.strip_prefix('"') {
        let mut name = String::new();
        let mut rest = quoted;
        loop {
            let (before, after) = rest.split_once('"')?;
            name.push_str(before);
            match after.strip_prefix('"') {
                Some(more) => {
                    name.push('"');
                    rest = more;
                }
                None => return (!name.is_empty()).then_some((name, after)),
            }
        }
    }
    let end = text
        .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
        .unwrap_or(text.len());
    let (name, rest) = text.split_at(end);
    (!name.is_empty()).then(|| (name.to_owned(), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, verb: &str, argument: Option<&str>) {
        let expected = Command::Verb(verb.to_owned(), argument.map(str::to_owned));
        assert_eq!(parse(text), Some(expected), "{text}");
    }

    #[test]
    fn a_command_is_read_as_pgbouncer_reads_it() {
        check("SHOW POOLS;", "show", Some("POOLS"));
        check(" pause ", "pause", None);
        check("PAUSE \"my \"\"db\"\"\";\n", "pause", Some("my \"db\""));
        check("kill_client 42;", "kill_client", Some("42"));
        assert_eq!(
            parse("SET stats_period = '9'"),
            Some(Command::Set("stats_period".into()))
        );
        for text in [
            "",
            ";",
            "PAUSE; RESUME",
            "SHOW a b",
            "PAUSE \"",
            "SET x",
            "'a'",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }
}
