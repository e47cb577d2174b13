//! Where the daemon's binaries are.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};

const NEEDED: [&str; 2] = ["writefence", "writefencectl"];

/// `WRITEFENCE_BIN`, or beside this program: a test lies one folder below the binaries.
pub(super) fn folder() -> Result<PathBuf> {
    if let Some(folder) = env::var_os("WRITEFENCE_BIN") {
        let folder = PathBuf::from(folder);
        if has_all(&folder) {
            return Ok(folder);
        }
        bail!(
            "WRITEFENCE_BIN is {}, which lacks {}",
            folder.display(),
            NEEDED.join(" or ")
        );
    }
    let program = env::current_exe().context("the path of this program")?;
    let found = program
        .ancestors()
        .skip(1)
        .take(2)
        .find(|folder| has_all(folder));
    found.map(Path::to_owned).with_context(|| {
        format!(
            "{} are not beside {}: run `cargo build --workspace --bins` with the same profile, or \
             set WRITEFENCE_BIN to their folder",
            NEEDED.join(" and "),
            program.display()
        )
    })
}

fn has_all(folder: &Path) -> bool {
    NEEDED.iter().all(|name| folder.join(name).is_file())
}
