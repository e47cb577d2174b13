//! Durations and sizes: a number with its unit, always.
//!
//! A bare number is refused. `hold = 20` would be seconds to one reader and milliseconds to
//! another, and a fence that opens too late or a drain that gives up too early is how that
//! misunderstanding ends. Sizes take binary units only, because KB means 1000 to some and 1024 to
//! PostgreSQL.

use std::time::Duration;

use toml::de::DeValue;

use crate::defaults::Bounds;
use crate::value::{Wrong, shown};

const DURATIONS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1_000),
    ("m", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];

const SIZES: [(&str, u64); 4] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
];

/// Reads a duration within its bounds.
pub(crate) fn duration(
    bounds: &Bounds<Duration>,
) -> impl FnOnce(&DeValue<'_>) -> Result<Duration, Wrong> {
    let &Bounds { least, most, .. } = bounds;
    move |value| {
        let accepted = || {
            let (least, most) = (show_duration(least), show_duration(most));
            format!("a duration from \"{least}\" to \"{most}\" with its unit: ms, s, m, h or d")
        };
        let millis =
            number_with_unit(value, &DURATIONS).map_err(|what| Wrong::value(what, accepted()))?;
        Some(Duration::from_millis(millis))
            .filter(|duration| (least..=most).contains(duration))
            .ok_or_else(|| Wrong::value(format!("{} is out of range", shown(value)), accepted()))
    }
}

/// Reads a size within its bounds, in bytes.
pub(crate) fn size(bounds: &Bounds<usize>) -> impl FnOnce(&DeValue<'_>) -> Result<usize, Wrong> {
    let &Bounds { least, most, .. } = bounds;
    move |value| {
        let accepted = || {
            let (least, most) = (show_size(least), show_size(most));
            format!("a size from \"{least}\" to \"{most}\" with its unit: B, KiB, MiB or GiB")
        };
        let bytes =
            number_with_unit(value, &SIZES).map_err(|what| Wrong::value(what, accepted()))?;
        usize::try_from(bytes)
            .ok()
            .filter(|bytes| (least..=most).contains(bytes))
            .ok_or_else(|| Wrong::value(format!("{} is out of range", shown(value)), accepted()))
    }
}

fn number_with_unit(value: &DeValue<'_>, units: &[(&str, u64)]) -> Result<u64, String> {
    if matches!(value, DeValue::Integer(_) | DeValue::Float(_)) {
        return Err(format!("{} has no unit", shown(value)));
    }
    let text = value
        .as_str()
        .ok_or_else(|| format!("{} is not a text", shown(value)))?;
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    if number.is_empty() {
        return Err(format!(
            "{} does not start with a whole number",
            shown(value)
        ));
    }
    if unit.is_empty() {
        return Err(format!("{} has no unit", shown(value)));
    }
    let (_, factor) = units
        .iter()
        .find(|(name, _)| *name == unit)
        .ok_or_else(|| format!("{} has no unit that is known here", shown(value)))?;
    let number: u64 = number
        .parse()
        .map_err(|_| format!("{} is too large", shown(value)))?;
    number
        .checked_mul(*factor)
        .ok_or_else(|| format!("{} is too large", shown(value)))
}

/// A duration as the file would have it: the largest unit that divides it.
pub(crate) fn show_duration(duration: Duration) -> String {
    show(duration.as_millis(), &DURATIONS, "0s")
}

/// A size as the file would have it.
pub(crate) fn show_size(bytes: usize) -> String {
    show(bytes as u128, &SIZES, "0B")
}

fn show(number: u128, units: &[(&str, u64)], zero: &str) -> String {
    let divides = |(_, factor): &&(&str, u64)| number.is_multiple_of(u128::from(*factor));
    match units.iter().rev().find(divides) {
        Some((unit, factor)) if number > 0 => format!("{}{unit}", number / u128::from(*factor)),
        _ => zero.to_owned(),
    }
}
