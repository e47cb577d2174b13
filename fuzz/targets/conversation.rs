//! Arbitrary bytes in both directions through framing, message heads and the count of what is in
//! flight. No panic, and nothing that was sent stops counting without a ReadyForQuery.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| writefence::fuzzing::conversation(data));
