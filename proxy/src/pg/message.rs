//! The messages we write ourselves and the heads of those we read.
//!
//! Everything else passes as opaque frames. The types and their codec are pgwire's; the data path
//! does not come through here.

use bytes::BytesMut;
use pgwire::messages::PgWireBackendMessage;
use pgwire::messages::response::{CommandComplete, ReadyForQuery, TransactionStatus};
use pgwire::messages::startup::ParameterStatus;

use super::frame::{HEADER, cstr, put};

/// Fields of an error or a notice, in the order PostgreSQL sends them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Report {
    pub(crate) severity: &'static str,
    pub(crate) sqlstate: String,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Report {
    fn put(&self, out: &mut Vec<u8>, tag: u8) {
        let mut body = Vec::with_capacity(128);
        let mut field = |code: u8, text: &str| {
            body.push(code);
            body.extend(text.bytes().filter(|&b| b != 0));
            body.push(0);
        };
        field(b'S', self.severity);
        field(b'V', self.severity);
        field(b'C', &self.sqlstate);
        field(b'M', &self.message);
        if let Some(detail) = &self.detail {
            field(b'D', detail);
        }
        if let Some(hint) = &self.hint {
            field(b'H', hint);
        }
        body.push(0);
        put(out, tag, &[&body]);
    }

    /// Appends it as an ErrorResponse.
    pub(crate) fn error(&self, out: &mut Vec<u8>) {
        self.put(out, b'E');
    }

    /// Appends it as a NoticeResponse.
    pub(crate) fn notice(&self, out: &mut Vec<u8>) {
        self.put(out, b'N');
    }
}

fn encode(out: &mut Vec<u8>, message: PgWireBackendMessage) {
    let mut buf = BytesMut::new();
    // Encoding fails only where a length passes i32; ours are a few hundred bytes.
    if message.encode(&mut buf).is_ok() {
        out.extend_from_slice(&buf);
    }
}

/// Appends ReadyForQuery with the status byte PostgreSQL uses (`I`, `T`, `E`).
pub(crate) fn ready(out: &mut Vec<u8>, status: u8) {
    let status = match status {
        b'T' => TransactionStatus::Transaction,
        b'E' => TransactionStatus::Error,
        _ => TransactionStatus::Idle,
    };
    encode(
        out,
        PgWireBackendMessage::ReadyForQuery(ReadyForQuery::new(status)),
    );
}

/// Appends CommandComplete.
pub(crate) fn complete(out: &mut Vec<u8>, tag: &str) {
    encode(
        out,
        PgWireBackendMessage::CommandComplete(CommandComplete::new(tag.to_owned())),
    );
}

/// Appends ParameterStatus.
pub(crate) fn parameter(out: &mut Vec<u8>, name: &str, value: &str) {
    encode(
        out,
        PgWireBackendMessage::ParameterStatus(ParameterStatus::new(
            name.to_owned(),
            value.to_owned(),
        )),
    );
}

/// Appends the description of one text column, as SHOW gives it.
pub(crate) fn describe(out: &mut Vec<u8>, name: &str) {
    // RowDescription: one field; no table, type text (25), variable length, no modifier, text format.
    let field: &[u8] = &[
        0, 0, 0, 0, 0, 0, 0, 0, 0, 25, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0,
    ];
    put(
        out,
        b'T',
        &[&1i16.to_be_bytes(), name.as_bytes(), b"\0", field],
    );
}

/// Appends a row of one text column; text and binary format are the same.
pub(crate) fn row(out: &mut Vec<u8>, value: &str) {
    let len = i32::try_from(value.len()).unwrap_or(0);
    put(
        out,
        b'D',
        &[&1i16.to_be_bytes(), &len.to_be_bytes(), value.as_bytes()],
    );
}

/// Appends a simple query.
pub(crate) fn query(out: &mut Vec<u8>, sql: &str) {
    put(out, b'Q', &[sql.as_bytes(), b"\0"]);
}

/// Name of the statements and portals of our own.
pub(crate) const OWN: &str = "writefence own";

/// Appends a statement of our own between the client's groups; it is answered with one
/// ReadyForQuery. By the extended protocol and under a name, since a simple query would destroy the
/// client's unnamed statement, which may have been parsed and not yet run.
pub(crate) fn own(out: &mut Vec<u8>, sql: &str) {
    let name: &[u8] = OWN.as_bytes();
    // Left over where the last one failed; closing what is not there is no error.
    put(out, b'C', &[b"S", name, b"\0"]);
    put(out, b'C', &[b"P", name, b"\0"]);
    put(out, b'P', &[name, b"\0", sql.as_bytes(), b"\0\0\0"]);
    put(out, b'B', &[name, b"\0", name, b"\0", &[0; 6]]);
    put(out, b'E', &[name, b"\0", &[0; 4]]);
    put(out, b'C', &[b"P", name, b"\0"]);
    put(out, b'C', &[b"S", name, b"\0"]);
    put(out, b'S', &[]);
}

/// A field of an ErrorResponse body, by its code.
pub(crate) fn report_field(body: &[u8], code: u8) -> Option<&[u8]> {
    let mut rest = body;
    while let Some((&c, after)) = rest.split_first() {
        if c == 0 {
            return None;
        }
        let (text, after) = cstr(after)?;
        if c == code {
            return Some(text);
        }
        rest = after;
    }
    None
}

/// Body of a frame.
pub(crate) fn body(frame: &[u8]) -> &[u8] {
    frame.get(HEADER..).unwrap_or_default()
}

/// Bytes of a name that PostgreSQL looks at (NAMEDATALEN - 1). Names that differ only behind them
/// are one name.
const NAME: usize = 63;

/// The name of a statement or portal at the front of `buf`, as the server takes it.
pub(crate) fn name(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = cstr(buf)?;
    Some((name.get(..NAME).unwrap_or(name), rest))
}

/// Name and text of a Parse message.
pub(crate) fn parse_head(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (name, rest) = name(body(frame))?;
    let (text, _) = cstr(rest)?;
    Some((name, text))
}

/// Portal and statement of a Bind message.
pub(crate) fn bind_head(frame: &[u8]) -> Option<(&[u8], &[u8])> {
    let (portal, rest) = name(body(frame))?;
    let (statement, _) = name(rest)?;
    Some((portal, statement))
}

/// Portal of an Execute message.
pub(crate) fn execute_head(frame: &[u8]) -> Option<&[u8]> {
    name(body(frame)).map(|(portal, _)| portal)
}

/// Kind (`S` or `P`) and name of a Close or Describe message.
pub(crate) fn target_head(frame: &[u8]) -> Option<(u8, &[u8])> {
    let (&kind, rest) = body(frame).split_first()?;
    name(rest).map(|(name, _)| (kind, name))
}

/// Name and value of a ParameterStatus body.
pub(crate) fn parameter_of(body: &[u8]) -> Option<(&str, &str)> {
    let (name, rest) = cstr(body)?;
    let (value, _) = cstr(rest)?;
    Some((
        std::str::from_utf8(name).ok()?,
        std::str::from_utf8(value).ok()?,
    ))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_carries_its_fields_and_no_stray_nul() {
        let report = Report {
            severity: "ERROR",
            sqlstate: "25006".into(),
            message: "no\0 writes".into(),
            detail: Some("epoch 4".into()),
            hint: None,
        };
        let mut out = Vec::new();
        report.error(&mut out);
        assert_eq!(report_field(body(&out), b'C'), Some(&b"25006"[..]));
        assert_eq!(report_field(body(&out), b'M'), Some(&b"no writes"[..]));
        assert_eq!(report_field(body(&out), b'D'), Some(&b"epoch 4"[..]));
        assert_eq!(report_field(body(&out), b'H'), None);
    }

    #[test]
    fn our_own_messages_are_those_of_the_protocol() {
        let mut out = Vec::new();
        ready(&mut out, b'I');
        complete(&mut out, "BEGIN");
        parameter(&mut out, "TimeZone", "UTC");
        assert_eq!(
            out,
            b"Z\0\0\0\x05IC\0\0\0\x0aBEGIN\0S\0\0\0\x11TimeZone\0UTC\0"
        );
    }

    #[test]
    fn torn_heads_are_none() {
        assert_eq!(parse_head(b"P\0\0\0\x09ab\0se"), None);
        assert_eq!(bind_head(b"B\0\0\0\x05a"), None);
        assert_eq!(target_head(b"C\0\0\0\x04"), None);
        assert_eq!(parameter_of(b"a\0b"), None);
    }
}
