//! Users with their secrets, from a file in PgBouncer's format: `"name" "secret"` on each line.
//!
//! A secret is a SCRAM verifier as `pg_authid.rolpassword` holds it, or a password. An md5 hash
//! proves nothing to SCRAM, so it is refused by name instead of failing every login of its user.

use std::collections::HashMap;
use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use crate::defaults;
use crate::secret::Secret;

/// Which secret stands in a line.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// `SCRAM-SHA-256$iterations:salt$StoredKey:ServerKey`, unchecked.
    Verifier(Secret<String>),
    /// A password.
    Password(Secret<String>),
}

/// A users file.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Userlist {
    users: HashMap<String, Stored>,
}

impl Userlist {
    /// Reads a file.
    ///
    /// # Errors
    /// What is wrong with it, with its line; never a secret.
    pub fn load(path: &Path) -> Result<Self, String> {
        let unreadable = |e: io::Error| format!("cannot be read: {e}");
        let mut text = String::new();
        let limit = defaults::USERS_BYTES as u64 + 1;
        let file = File::open(path).map_err(unreadable)?;
        file.take(limit)
            .read_to_string(&mut text)
            .map_err(unreadable)?;
        if text.len() > defaults::USERS_BYTES {
            return Err("is larger than 64 MiB".to_owned());
        }
        Self::parse(&text)
    }

    /// Reads the text of one.
    ///
    /// # Errors
    /// As [`load`](Self::load).
    pub fn parse(text: &str) -> Result<Self, String> {
        let mut users = HashMap::new();
        for (n, line) in text.lines().enumerate() {
            let line = line.trim_start();
            if line.is_empty() || line.starts_with([';', '#']) {
                continue;
            }
            let fields = quoted(line).and_then(|(name, rest)| Some((name, quoted(rest)?.0)));
            let Some((name, secret)) = fields else {
                return Err(format!(
                    "line {} is not of the form \"name\" \"secret\"",
                    n + 1
                ));
            };
            let stored = stored(secret).map_err(|what| {
                let name = name.escape_debug();
                format!("line {}: the secret of \"{name}\" is {what}", n + 1)
            })?;
            // The first one counts, as in PgBouncer.
            users.entry(name).or_insert(stored);
        }
        Ok(Self { users })
    }

    /// What is known of a user.
    pub fn get(&self, user: &str) -> Option<&Stored> {
        self.users.get(user)
    }

    /// All users.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &Stored)> {
        self.users
            .iter()
            .map(|(name, stored)| (name.as_str(), stored))
    }
}

fn stored(secret: String) -> Result<Stored, &'static str> {
    let hash = secret.strip_prefix("md5");
    if hash.is_some_and(|hash| hash.len() == 32 && hash.bytes().all(|b| b.is_ascii_hexdigit())) {
        return Err(
            "an md5 hash, which SCRAM cannot use; write the role's SCRAM verifier \
                    (pg_authid.rolpassword after setting its password anew) or its password",
        );
    }
    if secret.is_empty() {
        return Err("empty, so nobody could log in with it");
    }
    let secret_of = Secret::new;
    if secret.starts_with("SCRAM-SHA-256$") {
        return Ok(Stored::Verifier(secret_of(secret)));
    }
    Ok(Stored::Password(secret_of(secret)))
}

/// A text in double quotes, in which two of them stand for one, and what follows it.
fn quoted(line: &str) -> Option<(String, &str)> {
    let rest = line.trim_start().strip_prefix('"')?;
    let mut text = String::new();
    let mut chars = rest.char_indices().peekable();
    while let Some((at, c)) = chars.next() {
        if c != '"' {
            text.push(c);
        } else if chars.peek().is_some_and(|(_, next)| *next == '"') {
            text.push('"');
            chars.next();
        } else {
            return Some((text, rest.get(at + 1..)?));
        }
    }
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pgbouncers_own_files_are_read() {
        let text = "; comment\n\"ann\" \"secret\" anything\n\n  \"o\"\"neil\"\t\"a\"\"b\"\n\
                    \"scram\" \"SCRAM-SHA-256$4096:c2FsdA==$a:b\"\n\"ann\" \"second\"\n";
        let list = Userlist::parse(text).unwrap();
        let password = |s: &str| Stored::Password(Secret::new(s.to_owned()));
        assert_eq!(list.get("ann"), Some(&password("secret")));
        assert_eq!(list.get("o\"neil"), Some(&password("a\"b")));
        assert!(matches!(list.get("scram"), Some(Stored::Verifier(_))));
        assert_eq!(list.iter().count(), 3);
    }

    #[test]
    fn what_cannot_be_used_is_named_with_its_line_and_without_the_secret() {
        let hash = "\"a\" \"x\"\n\"old\" \"md50123456789abcdef0123456789abcdef\"";
        let said = Userlist::parse(hash).unwrap_err();
        assert!(
            said.starts_with("line 2: the secret of \"old\" is an md5 hash"),
            "{said}"
        );
        assert!(!said.contains("0123456789"));
        for broken in ["ann secret", "\"ann\"", "\"ann\" \"sec", "\"ann"] {
            let said = Userlist::parse(broken).unwrap_err();
            assert_eq!(said, "line 1 is not of the form \"name\" \"secret\"");
        }
        assert!(Userlist::parse("\"a\" \"\"").unwrap_err().contains("empty"));
    }
}
