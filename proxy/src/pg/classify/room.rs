//! Where texts are judged: in place when they are small, else where their depth and their length
//! harm nobody.
//!
//! The parser measures its own stack and gives up at 2 MB of it. What comes after it (decoding,
//! walking, dropping the tree) recurses as deep as the tree and does not measure, so it gets a
//! thread whose stack is large enough for every tree the parser lets through. Its pages are only
//! touched, and so only exist, as far as the tree is really deep.

use std::thread;

use tokio::runtime::{Handle, RuntimeFlavor};
use tokio::sync::Semaphore;

/// Stack for the deepest tree that the parser can hand over, several times what a test measures.
const ROOM: usize = 512 << 20;

/// Most tokens of a text that is judged on the caller's own stack. A token deepens the tree by at
/// most four messages, and a test has the deepest such texts judged on half of an ordinary stack.
const SHALLOW: usize = 200;

/// Texts up to this length, in bytes, are judged between two turns of a session. It takes about
/// a millisecond; the worst texts of full length take a hundred.
const QUICK: usize = 4 << 10;

/// At most so many long texts are judged at once, so that there are always threads left to relay.
static LONG: Semaphore = Semaphore::const_new(2);

/// Runs `work`, which recurses no deeper than the parser lets it; `None` if there is no thread to
/// be had, or if it panicked.
pub(crate) fn with_room<T: Send>(work: impl FnOnce() -> T + Send) -> Option<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("judge".to_owned())
            .stack_size(ROOM);
        thread.spawn_scoped(scope, work).ok()?.join().ok()
    })
}

/// Whether the text's tree cannot be deep, whatever it says.
pub(super) fn is_shallow(text: &str) -> bool {
    let is_word = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii();
    let mut before = b' ';
    let starts = text.bytes().filter(|&byte| {
        let within = is_word(byte) && is_word(before);
        before = byte;
        !within && !byte.is_ascii_whitespace() && byte != b','
    });
    starts.take(SHALLOW + 1).count() <= SHALLOW
}

/// Judges so many bytes with `work` without holding up other sessions.
#[expect(
    clippy::disallowed_methods,
    reason = "what is judged is borrowed from the session, so it cannot go to another thread; \
              the session is one task, and the thread's others are handed on first"
)]
pub(crate) async fn at_length<T>(bytes: usize, work: impl FnOnce() -> T) -> T {
    if bytes <= QUICK {
        return work();
    }
    let _turn = LONG.acquire().await;
    match Handle::current().runtime_flavor() {
        RuntimeFlavor::CurrentThread => work(),
        // Hands the other sessions of this thread to another one first.
        _ => tokio::task::block_in_place(work),
    }
}
