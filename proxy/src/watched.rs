//! Files that may change while the daemon runs: certificates, users, maps.
//!
//! What was loaded stays in force until something that can be used has replaced it: a file that is
//! half written, or a certificate whose key has not arrived yet, costs a warning and nothing else.
//! Looked at by their time, length and inode through symbolic links, as orchestrators swap them.

use std::error::Error;
use std::fmt;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, Weak};
use std::time::Duration;

use arc_swap::ArcSwap;

/// Time between two looks. A renewed certificate is renewed days ahead; a changed password is
/// waited for by a person.
pub const LOOK: Duration = Duration::from_secs(2);

type Cause = Box<dyn Error + Send + Sync>;
type Load<T> = Box<dyn Fn() -> Result<T, Cause> + Send + Sync>;

/// Time, length and inode of each file; `None` for one that is not there.
type Stamp = Vec<Option<(i64, i64, u64, u64)>>;

/// A value made of files.
pub struct Watched<T> {
    what: String,
    paths: Vec<PathBuf>,
    seen: Mutex<Stamp>,
    value: ArcSwap<T>,
    load: Load<T>,
}

/// Something that may have changed on disk.
pub trait Refresh: Send + Sync {
    /// Looks, and takes what changed into use. Blocks on the disk.
    fn refresh(&self);
}

impl<T> Watched<T> {
    /// Loads it for the first time; `what` names it in the log.
    ///
    /// # Errors
    /// What the first loading says.
    pub fn new<E: Into<Cause> + 'static>(
        what: String,
        paths: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Before the loading: what changes meanwhile is seen at the next look.
        let seen = Mutex::new(stamp(&paths));
        let value = ArcSwap::from_pointee(load()?);
        let load = Box::new(move || load().map_err(Into::into));
        Ok(Self {
            what,
            paths,
            seen,
            value,
            load,
        })
    }

    /// The value in force.
    pub fn current(&self) -> Arc<T> {
        self.value.load_full()
    }
}

impl<T: Send + Sync> Refresh for Watched<T> {
    fn refresh(&self) {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        let now = stamp(&self.paths);
        if now == *seen {
            return;
        }
        *seen = now;
        match (self.load)() {
            Ok(value) => {
                self.value.store(Arc::new(value));
                tracing::info!(what = %self.what, "files changed and are in use");
            }
            Err(error) => {
                let error = chain(&*error);
                tracing::warn!(what = %self.what, error, "files changed and cannot be used; what was loaded before stays");
            }
        }
    }
}

impl<T> fmt::Debug for Watched<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Watched")
            .field("what", &self.what)
            .finish_non_exhaustive()
    }
}

fn stamp(paths: &[PathBuf]) -> Stamp {
    let one = |path: &PathBuf| {
        let found = fs::metadata(Path::new(path)).ok()?;
        Some((found.mtime(), found.mtime_nsec(), found.len(), found.ino()))
    };
    paths.iter().map(one).collect()
}

fn chain(e: &(dyn Error + 'static)) -> String {
    let mut text = e.to_string();
    let mut cause = e.source();
    while let Some(e) = cause {
        text = format!("{text}: {e}");
        cause = e.source();
    }
    text
}

/// What may change on disk, as long as somebody else uses it.
#[derive(Default)]
pub struct Files(Mutex<Vec<Weak<dyn Refresh>>>);

impl Files {
    /// Looks at these too from now on, until nobody uses them.
    pub fn add(&self, parts: &[Arc<dyn Refresh>]) {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.extend(parts.iter().map(Arc::downgrade));
    }

    fn in_use(&self) -> Vec<Arc<dyn Refresh>> {
        let mut all = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        all.retain(|one| one.strong_count() > 0);
        all.iter().filter_map(Weak::upgrade).collect()
    }
}

/// Looks at all of them, again and again, until told to stop.
pub async fn watch(files: Arc<Files>, stopping: impl Future<Output = ()>) {
    tokio::pin!(stopping);
    loop {
        // Both arms may be dropped: a look that is not waited for ends by itself.
        tokio::select! {
            () = &mut stopping => return,
            () = tokio::time::sleep(LOOK) => {}
        }
        let files = Arc::clone(&files);
        let look = move || files.in_use().iter().for_each(|one| one.refresh());
        if let Err(error) = tokio::task::spawn_blocking(look).await {
            tracing::error!(%error, "looking at changed files failed");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_used_leaves_what_was_loaded() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("n");
        fs::write(&path, "1").unwrap();
        let read = path.clone();
        let load = move || -> Result<u32, Cause> { Ok(fs::read_to_string(&read)?.parse::<u32>()?) };
        let watched = Watched::new("n".into(), vec![path.clone()], load).unwrap();
        fs::write(&path, "not a number").unwrap();
        watched.refresh();
        assert_eq!(*watched.current(), 1);
        fs::write(&path, "23").unwrap();
        watched.refresh();
        assert_eq!(*watched.current(), 23);
        fs::remove_file(&path).unwrap();
        watched.refresh();
        assert_eq!(*watched.current(), 23);
    }
}
