//! Every configuration that a document shows must load, or a user's first try fails.

use std::fs;
use std::path::Path;

fn root() -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

fn blocks(text: &str) -> Vec<String> {
    text.split("```toml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .map(str::to_owned)
        .collect()
}

#[test]
fn configurations_in_the_readme_load() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md can be read");
    let blocks = blocks(&text);
    assert!(!blocks.is_empty(), "README.md shows no configuration");
    for block in blocks {
        if let Err(problems) = writefence_config::parse(&block, "README.md") {
            panic!("{problems}\n{block}");
        }
    }
}

#[test]
fn configurations_of_the_repository_load() {
    for name in ["example.toml", "minimal.toml"] {
        let path = root().join("config").join(name);
        let text = fs::read_to_string(&path).expect("the file can be read");
        if let Err(problems) = writefence_config::parse(&text, name) {
            panic!("{problems}");
        }
    }
}

#[test]
fn the_readme_names_both_commands_that_do_all_set_up() {
    let text = fs::read_to_string(root().join("README.md")).expect("README.md can be read");
    assert!(text.contains("make demo") && text.contains("make test"));
}
