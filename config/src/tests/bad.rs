//! bad/*.toml: one mistake each, and in the `.expected` beside it exactly what is said about it.
//!
//! After a change of words, run once with WRITEFENCE_BLESS=1 to have the expectations rewritten,
//! and read the difference.

use std::ffi::OsStr;
use std::fs;

use super::folder;
use crate::parse;

#[test]
fn each_mistake_is_told_in_the_expected_words() {
    let bless = std::env::var_os("WRITEFENCE_BLESS").is_some();
    let mut files = 0;
    for entry in fs::read_dir(folder().join("bad")).expect("bad/ can be read") {
        let path = entry.expect("its entries can be read").path();
        if path.extension() != Some(OsStr::new("toml")) {
            continue;
        }
        let name = path
            .file_name()
            .and_then(OsStr::to_str)
            .expect("its names are UTF-8");
        let text = fs::read_to_string(&path).expect("a mistake can be read");
        let said = match parse(&text, name) {
            Ok(_) => panic!("{name} has no problem"),
            Err(problems) => format!("{problems}\n"),
        };
        let expected = path.with_extension("expected");
        if bless {
            fs::write(&expected, &said).expect("an expectation can be written");
        }
        let wanted = fs::read_to_string(&expected).unwrap_or_default();
        assert_eq!(said, wanted, "{name}");
        files += 1;
    }
    assert!(files > 40, "only {files} mistakes were found");
}
