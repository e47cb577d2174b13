//! How a connection becomes encrypted: arbitrary bytes, honest handshakes with arbitrary bytes behind
//! them, and handshakes that are bent on their way, over real sockets.

#![no_main]

use std::fs;
use std::sync::LazyLock;

use writefence::fuzzing::Negotiation;

static NEGOTIATION: LazyLock<Negotiation> = LazyLock::new(|| {
    let made = rcgen::generate_simple_self_signed(["localhost".to_owned()]).expect("a certificate");
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = (
        folder.path().join("cert.pem"),
        folder.path().join("key.pem"),
    );
    fs::write(&cert, made.cert.pem()).expect("a file");
    fs::write(&key, made.signing_key.serialize_pem()).expect("a file");
    Negotiation::new(&cert, &key)
});

libfuzzer_sys::fuzz_target!(|data: &[u8]| NEGOTIATION.run(data));
