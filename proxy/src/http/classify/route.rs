//! One route, ready to be matched.

use regex::Regex;
use writefence_config::{Pattern, Route, RouteVerdict};

use super::Request;

/// A route with its patterns compiled.
#[derive(Debug)]
pub(super) struct Compiled {
    pub(super) route: Route,
    host: Option<Regex>,
    path: Option<Regex>,
    reads: Vec<Regex>,
}

impl Compiled {
    pub(super) fn new(route: &Route) -> Self {
        // Some applications do not mind the case of a path. A route that only makes writes of
        // reads is right to take them all; one that makes reads takes what is written there.
        let raises = route.verdict == RouteVerdict::Write;
        let compile = |pattern: &Option<Pattern>, fold| pattern.as_ref().map(|p| p.regex(fold));
        Self {
            host: compile(&route.host, true),
            path: compile(&route.path, raises),
            reads: route.reads.iter().map(|one| one.regex(false)).collect(),
            route: route.clone(),
        }
    }

    /// Whether it is for such a request, were this its path.
    pub(super) fn fits(&self, request: &Request<'_>, path: &str) -> bool {
        let methods = &self.route.methods;
        let method = methods.is_empty() || methods.iter().any(|one| one == request.method);
        let host = self.host.as_ref();
        method
            && host.is_none_or(|host| host.is_match(bare_host(request.host)))
            && self
                .path
                .as_ref()
                .is_none_or(|pattern| pattern.is_match(path))
    }

    /// Whether a gRPC method, given by its path, is on the list.
    pub(super) fn lists(&self, path: &str) -> bool {
        let method = path.strip_prefix('/').unwrap_or(path);
        self.reads.iter().any(|pattern| pattern.is_match(method))
    }
}

/// A host without its port and without the dot that may end it.
fn bare_host(host: &str) -> &str {
    let end = match host.rfind(']') {
        Some(end) => end + 1,
        None => host.find(':').unwrap_or(host.len()),
    };
    host[..end].trim_end_matches('.')
}

#[cfg(test)]
mod tests {
    use super::bare_host;

    #[test]
    fn a_port_and_a_final_dot_are_no_part_of_a_host() {
        for (host, bare) in [
            ("api.example.com", "api.example.com"),
            ("api.example.com:443", "api.example.com"),
            ("api.example.com.:443", "api.example.com"),
            ("[::1]:80", "[::1]"),
            ("[::1]", "[::1]"),
            ("", ""),
        ] {
            assert_eq!(bare_host(host), bare);
        }
    }
}
