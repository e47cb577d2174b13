//! What can be told of code that is not parsed: PL/pgSQL and the other languages.
//!
//! The code is cut into tokens as SQL is, and looked through for names whose effects PostgreSQL's
//! read-only mode lets pass, for statements that have them, and for names of the user's own objects.
//! Strings are looked into as well where the code runs text. More is found than is there (a name in
//! a branch that is never taken), never less but for text that is put together from pieces.

use std::collections::BTreeSet;

use super::nature::Nature;
use crate::pg::classify::{Effect, effect_of, is_read_only_setting, runs_text};

/// Strings within strings that are looked into.
const DEEPEST: usize = 3;

/// What was found in a piece of code.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Scan {
    /// What its own words say.
    pub(super) nature: Nature,
    /// Names followed by a parenthesis.
    pub(super) called: BTreeSet<String>,
    /// All names.
    pub(super) named: BTreeSet<String>,
    /// Operators.
    pub(super) operators: BTreeSet<String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Token {
    Word(String),
    Text(String),
    Operator(String),
    Other(char),
}

/// Looks code through. `sql_like`: its strings and comments are SQL's; otherwise every word counts.
pub(super) fn scan(code: &str, sql_like: bool) -> Scan {
    let mut scan = Scan::default();
    if sql_like {
        scan.sql(code, 0);
    } else {
        let tokens = words(code);
        scan.tokens(&tokens);
    }
    scan
}

impl Scan {
    fn sql(&mut self, code: &str, depth: usize) {
        let tokens = cut(code);
        self.tokens(&tokens);
        let runs_text = depth > 0
            || tokens
                .iter()
                .any(|t| matches!(t, Token::Word(w) if w == "execute" || runs_text(w)));
        if !runs_text || depth == DEEPEST {
            return;
        }
        for token in &tokens {
            if let Token::Text(text) = token {
                self.sql(text, depth + 1);
            }
        }
    }

    fn tokens(&mut self, tokens: &[Token]) {
        for (at, token) in tokens.iter().enumerate() {
            let next = tokens.get(at + 1);
            match token {
                Token::Word(word) => {
                    self.named.insert(word.clone());
                    if next == Some(&Token::Other('(')) {
                        self.called.insert(word.clone());
                        self.call(word, tokens.get(at + 2..).unwrap_or_default());
                    }
                    let before = at.checked_sub(1).and_then(|at| tokens.get(at));
                    self.word(word, before, tokens.get(at + 1..).unwrap_or_default());
                }
                Token::Operator(operator) => {
                    self.operators.insert(operator.clone());
                }
                Token::Text(_) | Token::Other(_) => {}
            }
        }
    }

    fn has(&mut self, effect: Effect) {
        self.nature.effects = self.nature.effects.with(effect);
    }

    fn call(&mut self, name: &str, arguments: &[Token]) {
        if let Some(effect) = effect_of(name) {
            self.has(effect);
        }
        if name != "set_config" {
            return;
        }
        self.nature.way_out |= match arguments {
            [Token::Text(setting), Token::Other(','), ..] => is_read_only_setting(setting),
            _ => true,
        };
    }

    fn word(&mut self, word: &str, before: Option<&Token>, rest: &[Token]) {
        let follows = |words: &[&str]| matches!(before, Some(Token::Word(word)) if words.contains(&word.as_str()));
        let is = |at: usize, expected: &str| matches!(rest.get(at), Some(Token::Word(word)) if word == expected);
        if is_read_only_setting(word) && follows(&["set", "local", "session", "reset"])
            || word == "read" && is(0, "write")
            || word == "pg_settings" && follows(&["update"])
            || word == "update" && is(0, "pg_catalog") && is(2, "pg_settings")
        {
            self.nature.way_out = true;
        }
        let begins = match before {
            None | Some(Token::Other(';')) => true,
            Some(Token::Word(_)) => follows(&["begin", "then", "else", "loop", "execute"]),
            Some(_) => false,
        };
        if !begins {
            return;
        }
        match word {
            "notify" => self.has(Effect::Notify),
            "analyze" | "analyse" | "vacuum" | "reindex" | "cluster" => {
                self.has(Effect::Maintenance);
            }
            "lock" if !is_weaker_lock(rest) => self.has(Effect::Lock),
            "load" => self.has(Effect::Load),
            "alter" if is(0, "system") => self.has(Effect::AlterSystem),
            "copy" => self.copy(rest),
            _ => {}
        }
    }

    fn copy(&mut self, rest: &[Token]) {
        let mut statement = rest
            .iter()
            .take_while(|token| **token != Token::Other(';'))
            .peekable();
        while let Some(token) = statement.next() {
            let to = matches!(token, Token::Word(word) if word == "to");
            let outside = match statement.peek() {
                Some(Token::Word(word)) => word == "program",
                Some(Token::Text(_)) => to,
                Some(_) | None => false,
            };
            if outside {
                return self.has(Effect::ServerFiles);
            }
        }
    }
}

/// A LOCK that names a mode other than ACCESS EXCLUSIVE, which is the one without a name.
fn is_weaker_lock(rest: &[Token]) -> bool {
    let statement = rest.iter().take_while(|token| **token != Token::Other(';'));
    let words: Vec<&str> = statement
        .filter_map(|token| match token {
            Token::Word(word) => Some(word.as_str()),
            Token::Text(_) | Token::Operator(_) | Token::Other(_) => None,
        })
        .collect();
    let modes: [&[&str]; 6] = [
        &["access", "share"],
        &["row", "share"],
        &["row", "exclusive"],
        &["share"],
        &["share", "row", "exclusive"],
        &["exclusive"],
    ];
    let more = ["share", "update", "exclusive"];
    let words = words.strip_suffix(&["nowait"]).unwrap_or(&words);
    words.strip_suffix(&["mode"]).is_some_and(|words| {
        let begin = words.iter().rposition(|word| *word == "in");
        begin
            .and_then(|at| words.get(at + 1..))
            .is_some_and(|mode| modes.contains(&mode) || mode == more)
    })
}

/// Every word of a text, whatever is around it.
fn words(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let end = if is_start(first) {
            word_end(rest)
        } else {
            first.len_utf8()
        };
        let (token, after) = rest.split_at(end);
        if is_start(first) {
            tokens.push(Token::Word(token.to_lowercase()));
        } else if !first.is_whitespace() {
            tokens.push(Token::Other(first));
        }
        rest = after;
    }
    tokens
}

fn is_start(c: char) -> bool {
    c.is_ascii_alphabetic() || c == '_' || !c.is_ascii()
}

fn word_end(text: &str) -> usize {
    let inside = |c: char| is_start(c) || c.is_ascii_digit() || c == '$';
    text.find(|c| !inside(c)).unwrap_or(text.len())
}

/// SQL's tokens. What does not end ends with the code.
fn cut(code: &str) -> Vec<Token> {
    let mut tokens = Vec::new();
    let mut rest = code;
    while let Some(first) = rest.chars().next() {
        let end = if rest.starts_with("--") {
            rest.find('\n').unwrap_or(rest.len())
        } else if rest.starts_with("/*") {
            comment_end(rest)
        } else if first == '\'' {
            let (text, end) = quoted(rest, '\'', false);
            tokens.push(Token::Text(text));
            end
        } else if first == '"' {
            let (name, end) = quoted(rest, '"', false);
            tokens.push(Token::Word(name));
            end
        } else if let Some((text, end)) = dollar_quoted(rest) {
            tokens.push(Token::Text(text));
            end
        } else if matches!(first, 'e' | 'E') && rest[1..].starts_with('\'') {
            let (text, end) = quoted(&rest[1..], '\'', true);
            tokens.push(Token::Text(text));
            end + 1
        } else if is_start(first) {
            let end = word_end(rest);
            tokens.push(Token::Word(rest[..end].to_lowercase()));
            end
        } else if is_operator(first) {
            let end = operator_end(rest);
            tokens.push(Token::Operator(rest[..end].to_owned()));
            end
        } else {
            if !first.is_whitespace() {
                tokens.push(Token::Other(first));
            }
            first.len_utf8()
        };
        rest = rest.get(end..).unwrap_or_default();
    }
    tokens
}

fn is_operator(c: char) -> bool {
    "~!@#^&|`?+-*/%<>=".contains(c)
}

/// An operator ends where a comment begins.
fn operator_end(text: &str) -> usize {
    let run = text.find(|c| !is_operator(c)).unwrap_or(text.len());
    let comment = ["--", "/*"]
        .iter()
        .filter_map(|mark| text[..run].find(mark))
        .filter(|at| *at > 0)
        .min();
    comment.unwrap_or(run)
}

fn comment_end(text: &str) -> usize {
    let bytes = text.as_bytes();
    let (mut at, mut depth) = (0, 0);
    while at < bytes.len() {
        match bytes.get(at..at + 2) {
            Some(b"/*") => (depth, at) = (depth + 1, at + 2),
            Some(b"*/") => (depth, at) = (depth - 1, at + 2),
            Some(_) | None => at += 1,
        }
        if depth == 0 {
            return at;
        }
    }
    bytes.len()
}

/// The content of a quoted piece, and where it ends.
fn quoted(text: &str, quote: char, escapes: bool) -> (String, usize) {
    let mut content = String::new();
    let mut chars = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = chars.next() {
        if escapes && c == '\\' {
            // \t and its like separate words; what stands for another character is not resolved.
            let escaped = chars.next().map(|(_, c)| c);
            content.extend(escaped.map(|c| if "btnfr".contains(c) { ' ' } else { c }));
        } else if c != quote {
            content.push(c);
        } else if chars.next_if(|(_, c)| *c == quote).is_some() {
            content.push(quote);
        } else {
            return (content, at + quote.len_utf8());
        }
    }
    (content, text.len())
}

fn dollar_quoted(text: &str) -> Option<(String, usize)> {
    let tag_end = text.strip_prefix('$')?.find('$')? + 2;
    let tag = text.get(..tag_end)?;
    let inside = tag.trim_matches('$');
    let named = inside.chars().next().is_none_or(is_start) && word_end(inside) == inside.len();
    if !named || inside.contains('$') {
        return None;
    }
    let body = text.get(tag_end..)?;
    let length = body.find(tag).unwrap_or(body.len());
    let end = (tag_end + length + tag.len()).min(text.len());
    Some((body.get(..length)?.to_owned(), end))
}

#[cfg(test)]
mod tests;
