//! Failures as the operator reads them: a stable word, a sentence, the way on.
//!
//! The chain of causes is printed here, once, into the sentence.

use std::error::Error;

use writefence_admin::api::{ApiError, Code};

use crate::fleet::StoreError;

/// An error with its causes, outermost first, as one line.
pub fn chain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}

/// A durable write that did not happen.
pub(crate) fn storage(error: &StoreError) -> ApiError {
    ApiError::new(Code::Storage, chain(error))
        .hint("nothing was done after it; make the state directory writable and repeat the command")
}

/// A precondition with its word and sentence.
pub(crate) fn refused(code: Code, message: impl Into<String>) -> ApiError {
    ApiError::new(code, message)
}

/// A rule of the journal that the daemon itself was about to break.
pub(crate) fn internal(what: impl Into<String>) -> ApiError {
    ApiError::new(Code::Internal, what)
        .hint("this is a fault of the daemon; `writefencectl status` shows where the group stands")
}
