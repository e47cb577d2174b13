//! What a GraphQL request does, told by the operations that it selects.
//!
//! It is a read only if every document in it parses and nothing but queries and subscriptions can
//! be meant. Servers differ in what they make of a field given twice, of a body beside a parameter,
//! of a name that selects nothing; wherever two of them could differ, it is a write.

use std::fmt;

use async_graphql_parser::parse_query;
use async_graphql_parser::types::{ExecutableDocument, OperationType};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde::de::{MapAccess, Visitor};
use serde_json::Value;

use super::overrides::{decoded, parameters};
use super::rule;

/// Brackets within one another. The parser descends into each, on this stack; clients write a
/// dozen.
const DEEPEST: usize = 64;

/// `Ok` with the rule if it reads, else the rule by which it is a write.
pub(super) type Found = Result<&'static str, &'static str>;

/// The parameters of a URL that make a GraphQL request, each at most once.
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct InUrl {
    document: Option<String>,
    operation: Option<String>,
    /// A persisted query's name, or anything else that may name one.
    named: bool,
    twice: bool,
}

impl InUrl {
    pub(super) fn read(query: Option<&str>) -> Self {
        let mut found = Self::default();
        for (name, value) in query.into_iter().flat_map(parameters) {
            let value = decoded(value);
            // Some servers do not mind its case, and others take `query[]` for it.
            let name = decoded(name).to_ascii_lowercase();
            let place = match name.split('[').next().unwrap_or_default() {
                "query" => &mut found.document,
                "operationname" => &mut found.operation,
                "extensions" | "id" | "documentid" | "doc_id" | "hash" => {
                    found.named = true;
                    continue;
                }
                _ => continue,
            };
            found.twice |= place.replace(value).is_some();
        }
        found
    }

    /// A request that is all in its URL.
    pub(super) fn judge(&self) -> Found {
        match &self.document {
            _ if self.twice => Err(rule::GRAPHQL_REQUEST),
            _ if self.named => Err(rule::GRAPHQL_PERSISTED),
            Some(text) => selected(text, self.operation.as_deref()),
            None => Err(rule::GRAPHQL_PERSISTED),
        }
    }

    /// Whether it could change what the body means.
    pub(super) fn interferes(&self) -> bool {
        self.twice || self.named || self.document.is_some() || self.operation.is_some()
    }
}

/// A request whose body is of this content type.
pub(super) fn judge_body(content_type: &str, body: &[u8]) -> Found {
    let mut parts = content_type.split(';').map(str::trim);
    let kind = parts.next().unwrap_or_default().to_ascii_lowercase();
    let utf8 = parts.all(|part| {
        let part = part.to_ascii_lowercase();
        !part.starts_with("charset")
            || ["charset=utf-8", "charset=\"utf-8\""].contains(&part.as_str())
    });
    match kind.as_str() {
        _ if !utf8 => Err(rule::GRAPHQL_FORM),
        "application/json" => judge_json(body),
        "application/graphql" => match std::str::from_utf8(body) {
            Ok(text) => selected(text, None),
            Err(_) => Err(rule::GRAPHQL_DOCUMENT),
        },
        _ => Err(rule::GRAPHQL_FORM),
    }
}

fn judge_json(body: &[u8]) -> Found {
    let first = body.iter().find(|byte| !byte.is_ascii_whitespace());
    if first != Some(&b'[') {
        let one = serde_json::from_slice(body).map_err(|_| rule::GRAPHQL_REQUEST)?;
        return judge_one(&one);
    }
    let batch: Vec<Fields> = serde_json::from_slice(body).map_err(|_| rule::GRAPHQL_REQUEST)?;
    if batch.is_empty() {
        return Err(rule::GRAPHQL_REQUEST);
    }
    batch
        .iter()
        .try_fold(rule::GRAPHQL_QUERY, |_, one| judge_one(one))
}

fn judge_one(request: &Fields) -> Found {
    let (mut document, mut operation, mut hash) = (None, None, None);
    for (name, value) in &request.0 {
        match (name.as_str(), value) {
            ("query", Value::String(text)) => document = Some(text.as_str()),
            ("operationName", Value::String(name)) => operation = Some(name.as_str()),
            ("query" | "operationName" | "extensions", Value::Null) => {}
            ("variables", Value::Null | Value::Object(_)) => {}
            ("extensions", Value::Object(extensions)) => hash = extensions.get("persistedQuery"),
            // Another field may name another document.
            _ => return Err(rule::GRAPHQL_REQUEST),
        }
    }
    let Some(document) = document.filter(|text| !text.is_empty()) else {
        return Err(rule::GRAPHQL_PERSISTED);
    };
    match hash {
        Some(hash) if !is_hash_of(hash, document) => Err(rule::GRAPHQL_PERSISTED),
        _ => selected(document, operation),
    }
}

/// A server that looks at the name first must find this very document under it.
fn is_hash_of(persisted: &Value, document: &str) -> bool {
    let given = persisted.get("sha256Hash").and_then(Value::as_str);
    let digest = ring::digest::digest(&ring::digest::SHA256, document.as_bytes());
    let hex: String = digest
        .as_ref()
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect();
    given.is_some_and(|given| given == hex || given == STANDARD.encode(digest.as_ref()))
}

/// What a document does if this operation of it is asked for.
fn selected(text: &str, name: Option<&str>) -> Found {
    if is_deep(text) {
        return Err(rule::GRAPHQL_DOCUMENT);
    }
    let document = parse_query(text).map_err(|_| rule::GRAPHQL_DOCUMENT)?;
    let named = name.filter(|name| !name.is_empty());
    let mut found = None;
    for kind in kinds(&document, named) {
        if kind == OperationType::Mutation {
            return Err(rule::GRAPHQL_MUTATION);
        }
        found = Some(rule::GRAPHQL_QUERY);
    }
    found.ok_or(rule::GRAPHQL_DOCUMENT)
}

/// The operations that may be meant: that of the name, or without one all of them.
fn kinds<'d>(
    document: &'d ExecutableDocument,
    name: Option<&'d str>,
) -> impl Iterator<Item = OperationType> + 'd {
    let meant = move |own: Option<&str>| name.is_none_or(|name| own == Some(name));
    let operations = document.operations.iter();
    operations
        .filter(move |(own, _)| meant(own.map(|own| own.as_str())))
        .map(|(_, operation)| operation.node.ty)
}

/// Whether brackets stand deeper within one another than [`DEEPEST`]. What no string can be is
/// where the parser gives up too, so brackets behind it are never descended into.
fn is_deep(text: &str) -> bool {
    let mut depth = 0_usize;
    let mut rest = text.as_bytes();
    while let Some((&byte, after)) = rest.split_first() {
        rest = match byte {
            b'"' => behind_string(rest),
            b'#' => behind(after, |byte| matches!(byte, b'\n' | b'\r')),
            _ => after,
        };
        match byte {
            b'{' | b'[' | b'(' => depth += 1,
            b'}' | b']' | b')' => depth = depth.saturating_sub(1),
            _ => {}
        }
        if depth > DEEPEST {
            return true;
        }
    }
    false
}

/// What follows the first byte of which `ends` is true.
fn behind(text: &[u8], ends: impl Fn(u8) -> bool) -> &[u8] {
    let at = text.iter().position(|byte| ends(*byte));
    at.map_or(&[], |at| &text[at + 1..])
}

/// What follows the string that `text` begins with.
fn behind_string(text: &[u8]) -> &[u8] {
    let (quote, escape): (&[u8], &[u8]) = match text.starts_with(br#"""""#) {
        true => (br#"""""#, br#"\""""#),
        false => (br#"""#, br"\"),
    };
    let mut rest = &text[quote.len()..];
    while !rest.is_empty() {
        if rest.starts_with(escape) {
            // One more byte than a lone backslash: the one that it escapes.
            rest = rest.get(escape.len().max(2)..).unwrap_or_default();
        } else if rest.starts_with(quote) {
            return &rest[quote.len()..];
        } else if quote.len() == 1 && matches!(rest[0], b'\n' | b'\r') {
            return rest;
        } else {
            rest = &rest[1..];
        }
    }
    rest
}

/// The fields of a JSON object as they stand, each once: servers differ in which of two counts.
struct Fields(Vec<(String, Value)>);

impl<'de> Deserialize<'de> for Fields {
    fn deserialize<D: serde::Deserializer<'de>>(from: D) -> Result<Self, D::Error> {
        struct Each;
        impl<'de> Visitor<'de> for Each {
            type Value = Fields;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a GraphQL request")
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Fields, A::Error> {
                let mut fields: Vec<(String, Value)> = Vec::new();
                while let Some((name, value)) = map.next_entry::<String, Value>()? {
                    if fields.iter().any(|(known, _)| *known == name) {
                        return Err(serde::de::Error::custom("a field is given twice"));
                    }
                    fields.push((name, value));
                    if fields.len() > MOST_FIELDS {
                        return Err(serde::de::Error::custom("too many fields"));
                    }
                }
                Ok(Fields(fields))
            }
        }
        from.deserialize_map(Each)
    }
}

/// Fields of a request: four are known, so more need not be looked at.
const MOST_FIELDS: usize = 16;
