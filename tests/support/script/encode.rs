//! Messages of a client, from one line of text each.
//!
//! | text | message |
//! |---|---|
//! | `Q SELECT 1` | Query |
//! | `P name SELECT $1` | Parse; `-` is the empty name |
//! | `B portal name a NULL 0x2a` | Bind: a text, NULL, and a binary value, which also asks for binary results |
//! | `E portal 3` | Execute of at most 3 rows |
//! | `D S name`, `C P name` | Describe, Close of a statement (`S`) or a portal (`P`) |
//! | `S`, `H`, `c`, `X` | Sync, Flush, CopyDone, Terminate |
//! | `d 1\tx\n` | CopyData |
//! | `f reason` | CopyFail |
//! | `F 177 1 2` | FunctionCall of an oid with texts |
//! | `m Q 53 00` | a message of this tag and body, in hexadecimal |
//! | `raw 51 00` | these bytes |
//!
//! `@5000` stands for that many letters.

use anyhow::{Context, Result, bail};

/// The message that a line of a script stands for.
///
/// # Errors
/// There is no such message.
pub fn message(text: &str) -> Result<Vec<u8>> {
    let (tag, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_start();
    if tag == "raw" {
        return hex(rest);
    }
    if tag == "m" {
        let (tag, body) = rest.split_once(' ').unwrap_or((rest, ""));
        return framed(tag, &hex(body)?);
    }
    let mut body = Vec::new();
    match tag {
        "Q" => string(&mut body, &letters(rest)),
        "P" => {
            let (name, sql) = rest.split_once(' ').unwrap_or((rest, ""));
            string(&mut body, &named(name));
            string(&mut body, &letters(sql));
            body.extend([0, 0]);
        }
        "B" => bind(&mut body, rest)?,
        "E" => {
            let mut words = rest.split_whitespace();
            string(&mut body, &named(words.next().unwrap_or("-")));
            let most: i32 = words.next().unwrap_or("0").parse()?;
            body.extend(most.to_be_bytes());
        }
        "D" | "C" => {
            let (kind, name) = rest.split_once(' ').context("S or P, and a name")?;
            body.extend(kind.bytes());
            string(&mut body, &named(name));
        }
        "S" | "H" | "c" | "X" => {}
        "d" => body.extend(letters(&rest.replace("\\t", "\t").replace("\\n", "\n")).bytes()),
        "f" => string(&mut body, rest),
        "F" => function(&mut body, rest)?,
        _ => bail!("{text:?} is no message"),
    }
    framed(tag, &body)
}

fn framed(tag: &str, body: &[u8]) -> Result<Vec<u8>> {
    let mut out = tag.as_bytes().to_vec();
    out.extend(u32::try_from(body.len() + 4)?.to_be_bytes());
    out.extend(body);
    Ok(out)
}

fn bind(body: &mut Vec<u8>, rest: &str) -> Result<()> {
    let mut words = rest.split_whitespace();
    string(body, &named(words.next().context("a portal")?));
    string(body, &named(words.next().context("a statement")?));
    let values: Vec<&str> = words.collect();
    let binary = |value: &str| value.starts_with("0x");
    let count = u16::try_from(values.len())?.to_be_bytes();
    body.extend(count);
    for value in &values {
        body.extend([0, u8::from(binary(value))]);
    }
    body.extend(count);
    for value in &values {
        argument(body, value)?;
    }
    if values.iter().any(|value| binary(value)) {
        body.extend([0, 1, 0, 1]);
    } else {
        body.extend([0, 0]);
    }
    Ok(())
}

fn function(body: &mut Vec<u8>, rest: &str) -> Result<()> {
    let mut words = rest.split_whitespace();
    let oid: u32 = words.next().context("an oid")?.parse()?;
    let values: Vec<&str> = words.collect();
    body.extend(oid.to_be_bytes());
    body.extend([0, 0]);
    body.extend(u16::try_from(values.len())?.to_be_bytes());
    for value in values {
        argument(body, value)?;
    }
    body.extend([0, 0]);
    Ok(())
}

fn argument(body: &mut Vec<u8>, value: &str) -> Result<()> {
    let bytes = match value.strip_prefix("0x") {
        _ if value == "NULL" => {
            body.extend((-1i32).to_be_bytes());
            return Ok(());
        }
        Some(digits) => hex(digits)?,
        None => value.as_bytes().to_vec(),
    };
    body.extend(u32::try_from(bytes.len())?.to_be_bytes());
    body.extend(bytes);
    Ok(())
}

fn named(name: &str) -> String {
    if name == "-" {
        String::new()
    } else {
        letters(name)
    }
}

fn string(body: &mut Vec<u8>, text: &str) {
    body.extend(text.bytes());
    body.push(0);
}

/// Puts letters where `@N` stands.
fn letters(text: &str) -> String {
    let Some((before, after)) = text.split_once('@') else {
        return text.to_owned();
    };
    let end = after
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(after.len());
    let count = after[..end].parse().unwrap_or(0);
    format!("{before}{}{}", "x".repeat(count), &after[end..])
}

fn hex(text: &str) -> Result<Vec<u8>> {
    let digits: Vec<u8> = text.bytes().filter(u8::is_ascii_hexdigit).collect();
    digits
        .chunks(2)
        .map(|pair| Ok(u8::from_str_radix(std::str::from_utf8(pair)?, 16)?))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_becomes_the_message_of_the_protocol() {
        let of = |text| message(text).expect("it is a message");
        assert_eq!(of("Q SELECT 1"), b"Q\0\0\0\x0dSELECT 1\0");
        assert_eq!(of("P - SELECT 1"), b"P\0\0\0\x10\0SELECT 1\0\0\0");
        assert_eq!(
            of("B p s a NULL"),
            b"B\0\0\0\x1b\x70\0s\0\0\x02\0\0\0\0\0\x02\0\0\0\x01a\xff\xff\xff\xff\0\0"
        );
        assert_eq!(of("E - 3"), b"E\0\0\0\x09\0\0\0\0\x03");
        assert_eq!(of("d a\\tb\\n"), b"d\0\0\0\x08a\tb\n");
        assert_eq!(of("m Q 5300"), b"Q\0\0\0\x06S\0");
        assert_eq!(of("Q @3"), b"Q\0\0\0\x08xxx\0");
        assert!(message("? 1").is_err());
    }
}
