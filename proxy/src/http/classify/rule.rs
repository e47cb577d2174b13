//! The rules that can decide, as the short stable words `explain-http` prints.
//!
//! A word stays once it was released: operators search logs for it.

/// The method is one that RFC 9110 calls safe.
pub const SAFE_METHOD: &str = "safe-method";
/// Any other method, known or not.
pub const METHOD: &str = "method";
/// A header or parameter that stands in for the method.
pub const OVERRIDE: &str = "method-override";
/// A path that can be spelled in several ways, one of which leads to a write.
pub const SPELLING: &str = "path-spelling";
/// A route says that it reads.
pub const ROUTE_READ: &str = "route-read";
/// A route says that it writes.
pub const ROUTE_WRITE: &str = "route-write";
/// A WebSocket that may write.
pub const WEBSOCKET: &str = "websocket";
/// A WebSocket that only reads, as configured.
pub const WEBSOCKET_READ: &str = "websocket-read";
/// A gRPC method on its route's list.
pub const GRPC_READ: &str = "grpc-read";
/// A gRPC method that is not on its route's list, or no gRPC at all.
pub const GRPC: &str = "grpc";

/// A GraphQL request whose body decides.
pub const GRAPHQL_BODY: &str = "graphql-body";
/// The selected operations are queries or subscriptions.
pub const GRAPHQL_QUERY: &str = "graphql-query";
/// A mutation is selected, or cannot be excluded.
pub const GRAPHQL_MUTATION: &str = "graphql-mutation";
/// No document, only the name of one that the server knows.
pub const GRAPHQL_PERSISTED: &str = "graphql-persisted";
/// A document that cannot be parsed, is nested too deeply or names no operation.
pub const GRAPHQL_DOCUMENT: &str = "graphql-document";
/// A body that is no GraphQL request in JSON, or says more than such a request does.
pub const GRAPHQL_REQUEST: &str = "graphql-request";
/// A body in a form that is not looked into: multipart, form, compressed.
pub const GRAPHQL_FORM: &str = "graphql-form";
/// A body larger than the route allows.
pub const GRAPHQL_LARGE: &str = "graphql-large";

/// All of them.
pub const ALL: &[&str] = &[
    SAFE_METHOD,
    METHOD,
    OVERRIDE,
    SPELLING,
    ROUTE_READ,
    ROUTE_WRITE,
    WEBSOCKET,
    WEBSOCKET_READ,
    GRPC_READ,
    GRPC,
    GRAPHQL_BODY,
    GRAPHQL_QUERY,
    GRAPHQL_MUTATION,
    GRAPHQL_PERSISTED,
    GRAPHQL_DOCUMENT,
    GRAPHQL_REQUEST,
    GRAPHQL_FORM,
    GRAPHQL_LARGE,
];
