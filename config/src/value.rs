//! From one value of the file to one typed value: words, texts, numbers, switches.
//!
//! Each reader is a function from a value to a result, so that it can be tested without a file.
//! Readers of durations and sizes are in `units`, of addresses in `address`.

use toml::Spanned;
use toml::de::DeValue;

use crate::defaults::{self, Bounds};
use crate::error::ProblemKind;

/// Why a value was not accepted.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Wrong {
    pub(crate) kind: ProblemKind,
    pub(crate) what: String,
    pub(crate) accepted: String,
}

impl Wrong {
    pub(crate) fn value(what: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::Value,
            what: what.into(),
            accepted: accepted.into(),
        }
    }

    pub(crate) fn later(what: impl Into<String>, accepted: impl Into<String>) -> Self {
        Self {
            kind: ProblemKind::NotInThisVersion,
            what: what.into(),
            accepted: accepted.into(),
        }
    }
}

/// A closed set of words, as a choice is written in the file.
pub(crate) trait Word: Copy + PartialEq + 'static {
    /// Each word with what it stands for.
    const WORDS: &'static [(&'static str, Self)];
    /// Words that are right and belong to a feature this version does not have.
    const LATER: &'static [&'static str] = &[];

    /// The word for a value.
    fn word(self) -> &'static str {
        let found = Self::WORDS.iter().find(|(_, value)| *value == self);
        found.expect("every variant has its word").0
    }

    /// Reads one of the words.
    fn read(value: &DeValue<'_>) -> Result<Self, Wrong> {
        let accepted = words(Self::WORDS.iter().map(|(word, _)| *word));
        let Some(text) = value.as_str() else {
            return Err(Wrong::value(
                format!("{} is not a word", shown(value)),
                accepted,
            ));
        };
        if let Some((_, value)) = Self::WORDS.iter().find(|(word, _)| *word == text) {
            return Ok(*value);
        }
        if Self::LATER.contains(&text) {
            return Err(Wrong::later(
                format!("{text:?} is not in this version"),
                accepted,
            ));
        }
        Err(Wrong::value(
            format!("{text:?} is not one of its words"),
            accepted,
        ))
    }
}

fn words<'a>(words: impl Iterator<Item = &'a str>) -> String {
    words
        .map(|word| format!("{word:?}"))
        .collect::<Vec<_>>()
        .join(", ")
}

/// A value as it is named in a message: short, and never more than its beginning, because a
/// password may have been pasted where it does not belong.
pub(crate) fn shown(value: &DeValue<'_>) -> String {
    match value {
        DeValue::String(text) if text.len() <= 16 => format!("{text:?}"),
        DeValue::String(_) => "this text".to_owned(),
        DeValue::Integer(number) if number.as_str().len() <= 24 => number.to_string(),
        DeValue::Integer(_) => "this number".to_owned(),
        DeValue::Float(_) => "a number with a point".to_owned(),
        DeValue::Boolean(on) => on.to_string(),
        DeValue::Datetime(_) => "a date or time".to_owned(),
        DeValue::Array(_) => "a list".to_owned(),
        DeValue::Table(_) => "a section".to_owned(),
    }
}

/// Text that is not empty and holds no control character.
pub(crate) fn text(accepted: &str) -> impl FnOnce(&DeValue<'_>) -> Result<String, Wrong> {
    move |value| match value.as_str() {
        None => Err(Wrong::value(
            format!("{} is not a text", shown(value)),
            accepted,
        )),
        Some("") => Err(Wrong::value("is empty", accepted)),
        Some(text) if text.chars().any(char::is_control) => {
            Err(Wrong::value("holds a control character", accepted))
        }
        Some(text) => Ok(text.to_owned()),
    }
}

/// A list of such texts; one given twice counts once.
pub(crate) fn texts(accepted: &str) -> impl FnOnce(&DeValue<'_>) -> Result<Vec<String>, Wrong> {
    move |value| {
        let mut texts = Vec::new();
        for element in elements(value, accepted)? {
            let one = text(accepted)(element.get_ref())?;
            if !texts.contains(&one) {
                texts.push(one);
            }
        }
        Ok(texts)
    }
}

/// A list of words, each once.
pub(crate) fn list_of<W: Word>(value: &DeValue<'_>) -> Result<Vec<W>, Wrong> {
    let accepted = format!(
        "a list of {}",
        words(W::WORDS.iter().map(|(word, _)| *word))
    );
    let mut found = Vec::new();
    for element in elements(value, &accepted)? {
        let word = W::read(element.get_ref()).map_err(|wrong| Wrong {
            accepted: accepted.clone(),
            ..wrong
        })?;
        if !found.contains(&word) {
            found.push(word);
        }
    }
    Ok(found)
}

/// A list of names, at least one.
pub(crate) fn names(value: &DeValue<'_>) -> Result<Vec<String>, Wrong> {
    let accepted = format!("a list of 1 to {} names", defaults::NAMES);
    let found = elements(value, &accepted)?;
    if found.is_empty() || found.len() > defaults::NAMES {
        return Err(Wrong::value(format!("has {} names", found.len()), accepted));
    }
    let name = |element: &Spanned<DeValue<'_>>| text(&accepted)(element.get_ref());
    found.iter().map(name).collect()
}

fn elements<'a, 'v>(
    value: &'a DeValue<'v>,
    accepted: &str,
) -> Result<&'a [Spanned<DeValue<'v>>], Wrong> {
    let list = value.as_array().map(|array| &array[..]);
    list.ok_or_else(|| Wrong::value(format!("{} is not a list", shown(value)), accepted))
}

/// `true` or `false`.
pub(crate) fn switch(value: &DeValue<'_>) -> Result<bool, Wrong> {
    let wrong = || Wrong::value(format!("{} is neither", shown(value)), "true, false");
    value.as_bool().ok_or_else(wrong)
}

/// A whole number within its bounds.
pub(crate) fn count(bounds: &Bounds<usize>) -> impl FnOnce(&DeValue<'_>) -> Result<usize, Wrong> {
    let &Bounds { least, most, .. } = bounds;
    move |value| {
        let accepted = format!("a whole number from {least} to {most}");
        let wrong = || Wrong::value(format!("{} does not fit", shown(value)), accepted);
        let number = value
            .as_integer()
            .and_then(|number| usize::from_str_radix(number.as_str(), number.radix()).ok());
        number
            .filter(|number| (least..=most).contains(number))
            .ok_or_else(wrong)
    }
}
