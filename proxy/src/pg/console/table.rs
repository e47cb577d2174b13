//! Answers in rows, encoded by pgwire's types.

use bytes::{BufMut, BytesMut};
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::data::{DataRow, FieldDescription, RowDescription};

/// The types that PgBouncer's columns have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Type {
    Text,
    Int,
    Big,
    Numeric,
}

impl Type {
    /// Its number in PostgreSQL and its size.
    fn of(self) -> (u32, i16) {
        match self {
            Self::Text => (25, -1),
            Self::Int => (23, 4),
            Self::Big => (20, 8),
            Self::Numeric => (1700, -1),
        }
    }
}

/// One value; `None` is what is not known.
pub(super) type Value = Option<String>;

/// A value that is known.
pub(super) fn v(value: impl ToString) -> Value {
    Some(value.to_string())
}

/// Columns and rows.
#[derive(Clone, Debug, Default)]
pub(super) struct Table {
    pub(super) columns: Vec<(&'static str, Type)>,
    pub(super) rows: Vec<Vec<Value>>,
}

impl Table {
    /// Columns of these names and types, each type a letter: `s` text, `i` int4, `q` int8, `n` numeric.
    pub(super) fn new(types: &str, names: &[&'static str]) -> Self {
        let types = types.bytes().map(|letter| match letter {
            b'i' => Type::Int,
            b'q' => Type::Big,
            b'n' => Type::Numeric,
            _ => Type::Text,
        });
        let columns: Vec<_> = names.iter().copied().zip(types).collect();
        debug_assert_eq!(columns.len(), names.len(), "a type for each column");
        Self {
            columns,
            rows: Vec::new(),
        }
    }

    /// Adds a row.
    pub(super) fn row(&mut self, values: Vec<Value>) {
        debug_assert_eq!(values.len(), self.columns.len(), "a value for each column");
        self.rows.push(values);
    }

    /// Appends it as messages.
    pub(super) fn put(&self, out: &mut Vec<u8>) {
        let fields = self.columns.iter().map(|(name, kind)| {
            let (oid, size) = kind.of();
            FieldDescription::new((*name).to_owned(), 0, 0, oid, size, -1, 0)
        });
        let head = RowDescription::new(fields.collect());
        encode(out, PgWireBackendMessage::RowDescription(head));
        for row in &self.rows {
            let mut data = BytesMut::new();
            for value in row {
                match value {
                    None => data.put_i32(-1),
                    Some(text) => {
                        data.put_i32(i32::try_from(text.len()).unwrap_or(0));
                        data.put_slice(text.as_bytes());
                    }
                }
            }
            let columns = i16::try_from(row.len()).unwrap_or(0);
            encode(
                out,
                PgWireBackendMessage::DataRow(DataRow::new(data, columns)),
            );
        }
    }
}

fn encode(out: &mut Vec<u8>, message: PgWireBackendMessage) {
    let mut buf = BytesMut::new();
    // Encoding fails only where a length passes i32; these are lines of a table.
    if message.encode(&mut buf).is_ok() {
        out.extend_from_slice(&buf);
    }
}
