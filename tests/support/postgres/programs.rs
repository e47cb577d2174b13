//! Where PostgreSQL's server programs are, and as whom they may run.
//!
//! `PGBIN` decides when it is set; else the first folder that has all of them: PATH, what
//! `pg_config` says, Debian's and Red Hat's folders with the highest version first. The server
//! refuses to run as root, so root hands it to the account `postgres` or `nobody`.

use std::env;
use std::fs;
use std::os::unix::fs::chown;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, bail};

/// Whether tests that need programs of others are left out: `SKIP_E2E=1`. Without it a missing
/// program is a failure, so that nobody believes a machine that tested nothing.
#[must_use]
pub fn skipped() -> bool {
    env::var_os("SKIP_E2E").is_some_and(|value| value == "1")
}

/// What nothing here can do without. pg_rewind is used where it is there.
const NEEDED: [&str; 2] = ["postgres", "initdb"];

/// Folders of packagers, one below per major version.
const PACKAGED: [&str; 2] = ["/usr/lib/postgresql", "/usr/local/lib/postgresql"];

/// The programs of one installation and the account that runs them.
#[derive(Debug, Clone)]
pub struct Programs {
    folder: PathBuf,
    account: Option<Account>,
}

/// An entry of the system's account list.
#[derive(Debug, Clone)]
struct Account {
    uid: u32,
    gid: u32,
}

impl Programs {
    /// Looks for a complete installation.
    ///
    /// # Errors
    /// None is complete; the text names the places and what each lacks.
    pub fn find() -> Result<Self> {
        let account = if rustix::process::getuid().is_root() {
            Some(account()?)
        } else {
            None
        };
        if let Some(folder) = env::var_os("PGBIN") {
            let folder = PathBuf::from(folder);
            return match missing(&folder).as_slice() {
                [] => Ok(Self { folder, account }),
                gone => bail!(
                    "PGBIN is {}, which lacks {}",
                    folder.display(),
                    gone.join(", ")
                ),
            };
        }
        let mut seen = String::new();
        for folder in candidates() {
            let gone = missing(&folder);
            if gone.is_empty() {
                return Ok(Self { folder, account });
            }
            if gone.len() < NEEDED.len() {
                seen += &format!("\n  {} lacks {}", folder.display(), gone.join(", "));
            }
        }
        bail!(
            "PostgreSQL's server programs ({}) were not found: install the server package \
             (Debian: postgresql) or set PGBIN to their folder{seen}",
            NEEDED.join(", ")
        )
    }

    /// The folder they are in.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Whether the installation has this program too.
    pub(super) fn has(&self, program: &str) -> bool {
        self.folder.join(program).is_file()
    }

    /// A command for `program` as the server's account, untouched by the caller's `PG*` variables.
    #[must_use]
    pub fn command(&self, program: &str, folder: &Path) -> Command {
        self.command_at(&self.folder.join(program), folder)
    }

    /// The same for a client's program, which not every installation of a server has: any version's
    /// will do then.
    ///
    /// # Errors
    /// No installation has it.
    pub fn client(&self, program: &str, folder: &Path) -> Result<Command> {
        let own = std::iter::once(self.folder.clone());
        let mut places = own.chain(candidates()).map(|place| place.join(program));
        let found = places.find(|place| place.is_file());
        let found = found.with_context(|| format!("no installation has {program}"))?;
        Ok(self.command_at(&found, folder))
    }

    fn command_at(&self, program: &Path, folder: &Path) -> Command {
        let mut command = Command::new(program);
        command.current_dir(folder).env("LC_ALL", "C");
        for (key, _) in env::vars_os() {
            if key.to_str().is_some_and(|key| key.starts_with("PG")) {
                command.env_remove(key);
            }
        }
        if let Some(account) = &self.account {
            // The standard library drops root's other groups together with the uid.
            command.uid(account.uid).gid(account.gid);
        }
        command
    }

    /// Gives a file or folder to the server's account.
    ///
    /// # Errors
    /// Not permitted.
    pub fn own(&self, path: &Path) -> Result<()> {
        match &self.account {
            Some(account) => chown(path, Some(account.uid), Some(account.gid))
                .with_context(|| format!("give {} to the server's account", path.display())),
            None => Ok(()),
        }
    }

    /// Writes a file that the server's account owns.
    ///
    /// # Errors
    /// The file can't be written.
    pub fn write(&self, path: &Path, text: &str) -> Result<()> {
        fs::write(path, text).with_context(|| format!("write {}", path.display()))?;
        self.own(path)
    }
}

fn missing(folder: &Path) -> Vec<&'static str> {
    NEEDED
        .into_iter()
        .filter(|name| !folder.join(name).is_file())
        .collect()
}

fn candidates() -> Vec<PathBuf> {
    let path = env::var_os("PATH").unwrap_or_default();
    let mut folders: Vec<PathBuf> = env::split_paths(&path).collect();
    if let Ok(output) = Command::new("pg_config").arg("--bindir").output() {
        folders.push(String::from_utf8_lossy(&output.stdout).trim().into());
    }
    for base in PACKAGED {
        let entries = fs::read_dir(base).into_iter().flatten().flatten();
        let mut versions: Vec<u32> = entries
            .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
            .collect();
        versions.sort_unstable_by(|a, b| b.cmp(a));
        folders.extend(
            versions
                .iter()
                .map(|v| Path::new(base).join(v.to_string()).join("bin")),
        );
    }
    folders.push("/usr/pgsql/bin".into());
    folders
}

fn account() -> Result<Account> {
    let list = fs::read_to_string("/etc/passwd").context("read /etc/passwd")?;
    for wanted in ["postgres", "nobody"] {
        for line in list.lines() {
            let mut fields = line.split(':');
            if fields.next() != Some(wanted) {
                continue;
            }
            if let (Some(Ok(uid)), Some(Ok(gid))) =
                (fields.nth(1).map(str::parse), fields.next().map(str::parse))
            {
                return Ok(Account { uid, gid });
            }
        }
    }
    bail!("PostgreSQL refuses to run as root, and there is no account postgres or nobody")
}
