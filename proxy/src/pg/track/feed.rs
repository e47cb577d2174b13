//! From the messages as they pass to what the track keeps of them.

use super::{Prepared, Track};
use crate::pg::frame::{Head, INSPECT, PARSE_KEPT};
use crate::pg::message::{bind_head, body, execute_head, name, parse_head, target_head};

/// How much of a client's message has to be there before it is sent on.
pub(crate) fn window(head: Head) -> usize {
    if head.tag == b'P' && head.total <= PARSE_KEPT {
        head.total
    } else {
        head.total.min(INSPECT)
    }
}

impl Track {
    /// A message of the client's goes upstream; `seen` is what is there of it.
    pub(crate) fn sent(&mut self, tag: u8, seen: &[u8], whole: bool) {
        match tag {
            // The server ignores all up to the Sync.
            b'Q' | b'F' if self.skipping() => {}
            b'Q' => self.query(whole.then(|| body(seen).strip_suffix(b"\0").unwrap_or_default())),
            b'P' => match parse_head(seen) {
                Some((name, _)) => {
                    let prepared = if whole {
                        Prepared::new(seen, self.reading())
                    } else {
                        Prepared::unkept()
                    };
                    self.parse(name, prepared);
                }
                None => match name(body(seen)) {
                    Some((name, _)) => self.parse(name, Prepared::unkept()),
                    None => self.bind_unread(),
                },
            },
            b'B' => match bind_head(seen) {
                Some((portal, statement)) => self.bind(portal, statement),
                None => self.bind_unread(),
            },
            b'E' => match execute_head(seen) {
                Some(portal) => self.execute(portal),
                None => self.execute_unread(),
            },
            b'C' => match target_head(seen) {
                Some((kind, name)) => self.close(kind, name),
                None => self.touch(),
            },
            b'D' => self.touch(),
            // A Flush alone asks for nothing that would have to be answered.
            b'H' if self.unsynced() => self.touch(),
            b'S' => self.sync(),
            b'F' => self.function_call(),
            b'c' | b'f' => self.copy_end(),
            _ => {}
        }
        match tag {
            b'P' | b'B' | b'E' | b'D' | b'C' => self.unflushed = true,
            b'Q' | b'F' | b'H' => self.unflushed = false,
            _ => {}
        }
    }

    /// An answer of the server's came that ends neither group nor transaction.
    pub(crate) fn received(&mut self, tag: u8, frame: &[u8]) {
        match tag {
            b'C' => self.completed(body(frame).strip_suffix(b"\0").unwrap_or_default()),
            b'1' => self.parsed(),
            b'I' | b's' => self.passed(),
            b'G' => self.copy_in(),
            _ => {}
        }
    }
}
