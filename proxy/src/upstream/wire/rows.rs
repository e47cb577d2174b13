//! Result sets of the simple protocol, as text.
//!
//! NULL stays apart from every value: `None` means the server did not say, and no accessor turns
//! it into a zero or an empty text.

use std::str::FromStr;

use bytes::{Buf, Bytes};

/// One row: a text or NULL per column.
pub type Row = Vec<Option<String>>;

/// One result set.
pub type Rows = Vec<Row>;

/// Reads a DataRow's body; `None` when it is malformed.
pub(super) fn parse_row(mut body: Bytes) -> Option<Row> {
    let columns = body.try_get_u16().ok()?;
    let row = (0..columns)
        .map(|_| parse_value(&mut body))
        .collect::<Option<Row>>()?;
    body.is_empty().then_some(row)
}

/// The outer `Option` is malformed or not, the inner one is NULL or not.
fn parse_value(body: &mut Bytes) -> Option<Option<String>> {
    let length = body.try_get_i32().ok()?;
    if length == -1 {
        return Some(None);
    }
    let length = usize::try_from(length)
        .ok()
        .filter(|length| *length <= body.len())?;
    Some(Some(
        String::from_utf8_lossy(&body.split_to(length)).into_owned(),
    ))
}

/// A column of a row as text; `None` for NULL and for a column that is not there.
pub(crate) fn text(row: &Row, column: usize) -> Option<&str> {
    row.get(column)?.as_deref()
}

/// A column read as a value; `None` for NULL, a missing column, and text that cannot be read.
pub(crate) fn value<T: FromStr>(row: &Row, column: usize) -> Option<T> {
    text(row, column)?.parse().ok()
}

/// A boolean column: PostgreSQL writes `t` and `f`.
pub(crate) fn flag(row: &Row, column: usize) -> Option<bool> {
    match text(row, column)? {
        "t" => Some(true),
        "f" => Some(false),
        _ => None,
    }
}
