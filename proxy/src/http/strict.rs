//! What HTTP/1 leaves to interpretation and is refused here, in the bytes as they came.
//!
//! Two programs that read one connection differently can be made to see different requests. For a
//! fence that is a way around it: what we take for the body of a read may be a write for the server
//! behind. So where RFC 9112 lets a recipient choose, the answer is 400 and the connection ends;
//! nothing is normalised. Pure.

/// Looks through the head of a request, from its first line to the empty one.
pub(super) fn check(head: &[u8]) -> Result<(), &'static str> {
    let head = skip_empty_lines(head);
    let mut lines = lines(head);
    let first = lines.next().ok_or("it is empty")??;
    let line = request_line(first)?;
    let mut seen = Seen::default();
    for header in lines {
        let header = header?;
        if header.is_empty() {
            break;
        }
        seen.take(header)?;
    }
    seen.judge(&line)
}

/// RFC 9112 2.2: empty lines before a request are to be skipped.
fn skip_empty_lines(mut head: &[u8]) -> &[u8] {
    while let Some(rest) = head.strip_prefix(b"\r\n") {
        head = rest;
    }
    head
}

/// The lines of a head; a line end that is not CRLF is an error, and so is any other control.
fn lines(head: &[u8]) -> impl Iterator<Item = Result<&[u8], &'static str>> {
    let mut rest = head;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let end = rest.iter().position(|byte| *byte == b'\n');
        let (line, after) = match end {
            Some(at) => (rest.get(..at)?, rest.get(at + 1..)?),
            None => (rest, &rest[rest.len()..]),
        };
        rest = after;
        let Some(line) = line.strip_suffix(b"\r") else {
            return Some(Err("a line ends in a bare LF"));
        };
        let control = |byte: &u8| (*byte < 0x20 && *byte != b'\t') || *byte == 0x7f;
        match line.iter().any(control) {
            true => Some(Err("a control character is in its head")),
            false => Some(Ok(line)),
        }
    })
}

struct Line<'a> {
    method: &'a [u8],
    target: &'a [u8],
    is_1_0: bool,
}

fn request_line(line: &[u8]) -> Result<Line<'_>, &'static str> {
    let mut words = line.split(|byte| *byte == b' ');
    let (Some(method), Some(target), Some(version), None) =
        (words.next(), words.next(), words.next(), words.next())
    else {
        return Err("its first line is not method, target and version");
    };
    if method.is_empty() || !method.iter().all(|byte| is_token(*byte)) {
        return Err("its method is not a word");
    }
    if target.is_empty() || target.contains(&b'#') {
        return Err("its target is no request target");
    }
    let is_1_0 = match version {
        b"HTTP/1.1" => false,
        b"HTTP/1.0" => true,
        _ => return Err("its version is neither HTTP/1.1 nor HTTP/1.0"),
    };
    Ok(Line {
        method,
        target,
        is_1_0,
    })
}

#[derive(Default)]
struct Seen<'a> {
    host: Option<&'a [u8]>,
    length: bool,
    coding: bool,
}

impl<'a> Seen<'a> {
    fn take(&mut self, line: &'a [u8]) -> Result<(), &'static str> {
        if line.starts_with(b" ") || line.starts_with(b"\t") {
            return Err("a header is folded over two lines");
        }
        let colon = line.iter().position(|byte| *byte == b':');
        let (name, value) = match colon {
            Some(at) => (line.get(..at).unwrap_or_default(), line.get(at + 1..)),
            None => return Err("a header has no colon"),
        };
        if name.is_empty() || !name.iter().all(|byte| is_token(*byte)) {
            return Err("a header's name is not a word that ends at its colon");
        }
        let value = value.unwrap_or_default().trim_ascii();
        if name.eq_ignore_ascii_case(b"host") {
            if self.host.replace(value).is_some() {
                return Err("it has two Host headers");
            }
        } else if name.eq_ignore_ascii_case(b"content-length") {
            if std::mem::replace(&mut self.length, true) {
                return Err("it has two Content-Length headers");
            }
            if value.is_empty() || !value.iter().all(u8::is_ascii_digit) {
                return Err("its Content-Length is not one number");
            }
        } else if name.eq_ignore_ascii_case(b"transfer-encoding") {
            if std::mem::replace(&mut self.coding, true) || !value.eq_ignore_ascii_case(b"chunked")
            {
                return Err("its Transfer-Encoding is not exactly chunked");
            }
        }
        Ok(())
    }

    fn judge(&self, line: &Line<'_>) -> Result<(), &'static str> {
        if self.length && self.coding {
            return Err("it has both Content-Length and Transfer-Encoding");
        }
        if self.coding && line.is_1_0 {
            return Err("it has Transfer-Encoding under HTTP/1.0");
        }
        if self.host.is_none() && !line.is_1_0 {
            return Err("it has no Host header");
        }
        self.judge_target(line)
    }

    /// RFC 9112 3.2: origin form, absolute form, and `*` for OPTIONS.
    fn judge_target(&self, line: &Line<'_>) -> Result<(), &'static str> {
        if line.method == b"CONNECT" {
            return Err("CONNECT is not for a server that is no forward proxy");
        }
        if line.target.starts_with(b"/") || (line.target == b"*" && line.method == b"OPTIONS") {
            return Ok(());
        }
        let after = |prefix: &[u8]| {
            let head = line.target.get(..prefix.len())?;
            head.eq_ignore_ascii_case(prefix)
                .then(|| line.target.get(prefix.len()..))?
        };
        let Some(rest) = after(b"http://").or_else(|| after(b"https://")) else {
            return Err("its target is no request target");
        };
        let end = rest.iter().position(|byte| b"/?".contains(byte));
        let authority = rest.get(..end.unwrap_or(rest.len())).unwrap_or_default();
        match self.host {
            Some(host) if host.eq_ignore_ascii_case(authority) => Ok(()),
            Some(_) => Err("its target names another host than its Host header"),
            None => Ok(()),
        }
    }
}

const fn is_token(byte: u8) -> bool {
    byte.is_ascii_alphanumeric()
        || matches!(
            byte,
            b'!' | b'#'
                | b'$'
                | b'%'
                | b'&'
                | b'\''
                | b'*'
                | b'+'
                | b'-'
                | b'.'
                | b'^'
                | b'_'
                | b'`'
                | b'|'
                | b'~'
        )
}

#[cfg(test)]
mod tests {
    use super::check;

    fn verdict(head: &str) -> Result<(), &'static str> {
        check(head.as_bytes())
    }

    #[test]
    fn plain_requests_pass() {
        let fine = [
            "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
            "\r\nGET /a?b=c HTTP/1.1\r\nHost: a\r\nX: \t y \r\n\r\n",
            "POST /x HTTP/1.1\r\nhost: a\r\ncontent-length: 5\r\n\r\n",
            "POST /x HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
            "GET / HTTP/1.0\r\n\r\n",
            "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
            "GET http://A:80/x HTTP/1.1\r\nHost: a:80\r\n\r\n",
        ];
        for head in fine {
            assert_eq!(verdict(head), Ok(()), "{head:?}");
        }
    }

    #[test]
    fn what_could_be_read_in_two_ways_is_refused() {
        let wrong = [
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n",
                "both",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nContent-Length: 5\r\n\r\n",
                "two Content-Length",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5, 5\r\n\r\n",
                "one number",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: +5\r\n\r\n",
                "one number",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
                "exactly",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
                "exactly",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n",
                "exactly",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding : chunked\r\n\r\n",
                "colon",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nX: 1\r\n Content-Length: 5\r\n\r\n",
                "folded",
            ),
            (
                "POST / HTTP/1.1\r\nHost: a\nContent-Length: 5\r\n\r\n",
                "bare LF",
            ),
            ("POST / HTTP/1.1\nHost: a\n\n", "bare LF"),
            (
                "POST / HTTP/1.1\r\nHost: a\r\nX: a\rContent-Length: 5\r\n\r\n",
                "control",
            ),
            (
                "POST / HTTP/1.0\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n",
                "HTTP/1.0",
            ),
            ("GET / HTTP/1.1\r\n\r\n", "no Host"),
            ("GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n", "two Host"),
            ("GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n", "another host"),
            (
                "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
                "no request target",
            ),
            ("GET a HTTP/1.1\r\nHost: a\r\n\r\n", "no request target"),
            ("CONNECT a:443 HTTP/1.1\r\nHost: a\r\n\r\n", "CONNECT"),
            ("GET  / HTTP/1.1\r\nHost: a\r\n\r\n", "first line"),
            ("GET / HTTP/2.0\r\nHost: a\r\n\r\n", "version"),
            ("GET / HTTP/1.1\r\nHost: a\r\nnonsense\r\n\r\n", "no colon"),
            ("GE\u{1}T / HTTP/1.1\r\nHost: a\r\n\r\n", "control"),
        ];
        for (head, part) in wrong {
            let why = verdict(head).expect_err(head);
            assert!(why.contains(part), "{head:?}: {why}");
        }
    }
}
