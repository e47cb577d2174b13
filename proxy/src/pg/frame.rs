//! Tag and length: where a message begins and ends, and nothing about what it means.
//!
//! Works on bytes in place; nothing is copied or allocated. Limits are checked before anything is
//! read on the strength of a length that a peer sent. (PostgreSQL 18, 54.7 "Message Formats".)

use thiserror::Error;

/// Bytes of a tag and a length.
pub(crate) const HEADER: usize = 5;

/// The most PostgreSQL itself allows in one message (MaxAllocSize, 1 GiB - 1).
pub(crate) const MAX_BODY: usize = 0x3fff_ffff;

/// How much of a message is looked at, and how much of a statement's text is kept by reference.
/// Longer text counts as a write; below this a message is forwarded whole.
pub(crate) const INSPECT: usize = 4 * 1024 + 256;

/// A Parse message is kept whole up to here so that it can be replayed on another server.
pub(crate) const PARSE_KEPT: usize = 64 * 1024;

/// One framed message at the front of a buffer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) tag: u8,
    /// Length of the whole message, tag included.
    pub(crate) total: usize,
}

/// An offence against the framing.
#[derive(Clone, Copy, Debug, Error, PartialEq, Eq)]
pub(crate) enum FrameError {
    #[error("message type 0x{0:02x} does not exist in this direction")]
    UnknownTag(u8),
    #[error("message type 0x{tag:02x} has length {length}, which is not between 4 and {MAX_BODY}")]
    Length { tag: u8, length: u32 },
}

/// Reads the head at the front of `buf`; `None` until five bytes are there.
pub(crate) fn head(buf: &[u8]) -> Result<Option<Head>, FrameError> {
    let Some((&[tag, a, b, c, d], _)) = buf.split_first_chunk::<HEADER>() else {
        return Ok(None);
    };
    let len = u32::from_be_bytes([a, b, c, d]);
    let total = len as usize;
    if !(4..=MAX_BODY).contains(&total) {
        return Err(FrameError::Length { tag, length: len });
    }
    Ok(Some(Head {
        tag,
        total: total + 1,
    }))
}

/// True for the message types a client may send after its login.
pub(crate) fn is_client_tag(tag: u8) -> bool {
    matches!(
        tag,
        b'Q' | b'P' | b'B' | b'D' | b'E' | b'C' | b'S' | b'H' | b'F' | b'X' | b'd' | b'c' | b'f'
    )
}

/// Splits a NUL-terminated string off the front; `None` when there is no NUL.
pub(crate) fn cstr(buf: &[u8]) -> Option<(&[u8], &[u8])> {
    let at = buf.iter().position(|&b| b == 0)?;
    let (s, rest) = buf.split_at(at);
    rest.split_first().map(|(_, rest)| (s, rest))
}

/// Appends a message with this tag and body.
pub(crate) fn put(out: &mut Vec<u8>, tag: u8, body: &[&[u8]]) {
    out.push(tag);
    let len: usize = 4 + body.iter().map(|b| b.len()).sum::<usize>();
    out.extend_from_slice(&u32::try_from(len).unwrap_or(u32::MAX).to_be_bytes());
    for b in body {
        out.extend_from_slice(b);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_needs_five_bytes_and_a_sane_length() {
        assert_eq!(head(b"Q\0\0\0").expect("short"), None);
        assert_eq!(
            head(b"Q\0\0\0\x05\0").expect("whole"),
            Some(Head {
                tag: b'Q',
                total: 6
            })
        );
        assert_eq!(
            head(b"Q\0\0\0\x03"),
            Err(FrameError::Length {
                tag: b'Q',
                length: 3
            })
        );
        assert_eq!(
            head(b"Q\xff\xff\xff\xff"),
            Err(FrameError::Length {
                tag: b'Q',
                length: u32::MAX
            })
        );
    }

    #[test]
    fn put_and_head_agree() {
        let mut out = Vec::new();
        put(&mut out, b'C', &[b"SELECT 1", b"\0"]);
        assert_eq!(
            head(&out).expect("valid"),
            Some(Head {
                tag: b'C',
                total: out.len()
            })
        );
        assert_eq!(cstr(&out[HEADER..]), Some((&b"SELECT 1"[..], &b""[..])));
    }
}
