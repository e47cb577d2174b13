//! libpq's keyword/value strings: `host=db1 port=5432`, with its quoting rules.
//!
//! Spaces around `=` are allowed; a value with spaces stands in single quotes; inside and outside
//! of quotes a backslash takes the next character as it is. Which keywords have a meaning is
//! decided by the caller. Messages never repeat the text, which may hold a password.

use std::iter::Peekable;
use std::str::Chars;

/// Every `keyword=value` pair in order; a keyword given twice is a mistake here.
pub(crate) fn parse(text: &str) -> Result<Vec<(String, String)>, String> {
    let mut rest = text.chars().peekable();
    let mut pairs: Vec<(String, String)> = Vec::new();
    loop {
        skip_spaces(&mut rest);
        if rest.peek().is_none() {
            return Ok(pairs);
        }
        let keyword = keyword(&mut rest)?;
        let value = value(&mut rest)?;
        if pairs.iter().any(|(known, _)| *known == keyword) {
            return Err("a keyword is given twice".to_owned());
        }
        pairs.push((keyword, value));
    }
}

fn skip_spaces(rest: &mut Peekable<Chars<'_>>) {
    while rest.next_if(|c| c.is_whitespace()).is_some() {}
}

fn keyword(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let mut keyword = String::new();
    while let Some(c) = rest.next_if(|c| c.is_ascii_alphanumeric() || *c == '_') {
        keyword.push(c);
    }
    skip_spaces(rest);
    if keyword.is_empty() || rest.next_if_eq(&'=').is_none() {
        return Err("is not of the form keyword=value".to_owned());
    }
    skip_spaces(rest);
    Ok(keyword)
}

fn value(rest: &mut Peekable<Chars<'_>>) -> Result<String, String> {
    let quoted = rest.next_if_eq(&'\'').is_some();
    let mut value = String::new();
    loop {
        let next = if quoted {
            rest.next()
        } else {
            rest.next_if(|c| !c.is_whitespace())
        };
        match next {
            Some('\'') if quoted => return Ok(value),
            Some('\\') => value.extend(rest.next()),
            Some(c) => value.push(c),
            None if quoted => return Err("a quoted value has no end".to_owned()),
            None => return Ok(value),
        }
    }
}
