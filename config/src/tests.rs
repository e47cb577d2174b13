//! The file as a whole: the example is the defaults, every key is known in every place it must be
//! known in, each mistake is told in the right words, and no input panics.

mod bad;
mod cross;
mod example;
mod hostile;
mod keyfile;
mod reload;

use std::path::PathBuf;

use crate::{Config, Problems, parse};

const EXAMPLE: &str = include_str!("../example.toml");
const MINIMAL: &str = include_str!("../minimal.toml");

/// The configuration of a text that must be fine.
fn config(text: &str) -> Config {
    let loaded = parse(text, "test.toml");
    loaded
        .unwrap_or_else(|problems| panic!("{problems}\nin\n{text}"))
        .config
}

/// The problems of a text that must have some.
fn problems(text: &str) -> Problems {
    parse(text, "test.toml").expect_err("this configuration has a problem")
}

fn folder() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}
