//! What a method says by itself.

/// Whether RFC 9110 (and for QUERY its successor draft) calls the method safe. Methods are
/// case-sensitive: `get` is some other method, and what is not known is a write. CONNECT opens a
/// tunnel, through which anything can be written.
pub(super) fn is_safe(method: &str) -> bool {
    matches!(method, "GET" | "HEAD" | "OPTIONS" | "TRACE" | "QUERY")
}

#[cfg(test)]
mod tests {
    use super::is_safe;

    #[test]
    fn only_the_methods_that_are_called_safe_are() {
        for method in ["GET", "HEAD", "OPTIONS", "TRACE", "QUERY"] {
            assert!(is_safe(method), "{method}");
        }
        for method in [
            "POST",
            "PUT",
            "PATCH",
            "DELETE",
            "CONNECT",
            "PROPFIND",
            "PROPPATCH",
            "MKCOL",
            "LOCK",
            "PURGE",
            "REPORT",
            "SEARCH",
            "get",
            "Get",
            "GET ",
            " GET",
            "GETS",
            "",
            "POST\0GET",
        ] {
            assert!(!is_safe(method), "{method:?}");
        }
    }
}
