//! Which users a client certificate is good for, in the spirit of `pg_ident.conf`.
//!
//! Each line is a common name and a user. A name that begins with `/` is a regular expression, and
//! `\1` in its user stands for what its first parentheses matched. Without a map the two are equal.

use std::fs;
use std::path::Path;

use regex::Regex;

use crate::defaults;

/// A map file.
#[derive(Clone, Debug, Default)]
pub struct CertMap {
    lines: Vec<(Name, String)>,
}

#[derive(Clone, Debug)]
enum Name {
    Plain(String),
    Pattern(Regex),
}

impl CertMap {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, with its line.
    pub fn load(path: &Path) -> Result<Self, String> {
        let text = fs::read_to_string(path).map_err(|e| format!("cannot be read: {e}"))?;
        if text.len() > defaults::PASSFILE_BYTES {
            return Err("is larger than 1 MiB".to_owned());
        }
        Self::parse(&text)
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut lines = Vec::new();
        for (n, line) in text.lines().enumerate() {
            let fields =
                fields(line).ok_or_else(|| format!("line {}: a quote does not end", n + 1))?;
            let [name, user] = match <[String; 2]>::try_from(fields) {
                Ok(two) => two,
                Err(none) if none.is_empty() => continue,
                Err(_) => {
                    return Err(format!("line {} is not a common name and a user", n + 1));
                }
            };
            let name = match name.strip_prefix('/') {
                None => Name::Plain(name),
                Some(pattern) => Name::Pattern(
                    // As a whole: an expression that matches a part would let more in than meant.
                    Regex::new(&format!("^(?:{pattern})$"))
                        .map_err(|_| format!("line {}: the expression cannot be read", n + 1))?,
                ),
            };
            lines.push((name, user));
        }
        Ok(Self { lines })
    }

    /// Whether a certificate of this name is good for this user.
    pub fn allows(&self, name: &str, user: &str) -> bool {
        self.lines.iter().any(|(known, mapped)| match known {
            Name::Plain(known) => known == name && mapped == user,
            Name::Pattern(pattern) => pattern.captures(name).is_some_and(|found| {
                let part = found.get(1).map_or("", |part| part.as_str());
                mapped.replace("\\1", part) == user
            }),
        })
    }
}

/// Fields at blanks; in double quotes a field may hold them. `#` begins a comment.
fn fields(line: &str) -> Option<Vec<String>> {
    let mut fields = Vec::new();
    let mut rest = line.trim_start();
    while !rest.is_empty() && !rest.starts_with('#') {
        let (field, after) = match rest.strip_prefix('"') {
            Some(inner) => inner.split_once('"')?,
            None => rest.split_at(rest.find(char::is_whitespace).unwrap_or(rest.len())),
        };
        fields.push(field.to_owned());
        rest = after.trim_start();
    }
    Some(fields)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_is_good_for_its_users_and_no_others() {
        let map = "# comment\nann app\n\"Ann B\" \"app\" # more\n/(.*)@example\\.com \\1\n";
        let map = CertMap::parse(map).unwrap();
        for (name, user) in [("ann", "app"), ("Ann B", "app"), ("bob@example.com", "bob")] {
            assert!(map.allows(name, user), "{name} {user}");
        }
        for (name, user) in [
            ("ann", "ann"),
            ("annx", "app"),
            ("bob@example.com.evil", "bob"),
            ("bob@exampleXcom", "bob"),
        ] {
            assert!(!map.allows(name, user), "{name} {user}");
        }
    }

    #[test]
    fn a_line_that_cannot_be_read_is_named() {
        assert_eq!(
            CertMap::parse("a b\na b c").unwrap_err(),
            "line 2 is not a common name and a user"
        );
        assert_eq!(
            CertMap::parse("\"a b").unwrap_err(),
            "line 1: a quote does not end"
        );
        assert_eq!(
            CertMap::parse("/( a").unwrap_err(),
            "line 1: the expression cannot be read"
        );
    }
}
