//! Arbitrary bytes as a client's SCRAM messages, and as a server's.

#![no_main]

libfuzzer_sys::fuzz_target!(|data: &[u8]| writefence::fuzzing::scram(data));
