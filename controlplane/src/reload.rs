//! Files whose content is taken over while the process runs: certificates and tokens are renewed
//! under us, and nobody restarts a control plane for that.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use tokio::time::Instant;

/// How often the files are looked at, at most.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why files could not be taken over.
pub(crate) type LoadError = anyhow::Error;

/// A value made from files, made again when one of them has changed.
pub(crate) struct Reloading<T> {
    files: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, LoadError> + Send + Sync>,
    state: Mutex<State<T>>,
}

struct State<T> {
    stamps: Stamps,
    looked: Instant,
    value: Arc<T>,
}

/// What tells two contents of some files apart, by their metadata.
#[derive(Debug, PartialEq, Eq, Clone)]
pub(crate) struct Stamps(Vec<Option<Stamp>>);

/// The inode tells where a renewal swaps a link.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl<T> Reloading<T> {
    /// Loads for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub(crate) fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, LoadError> + Send + Sync + 'static,
    ) -> Result<Self, LoadError> {
        // Stamps first: a file that changes while it is read is read again.
        let stamps = Stamps::of(&files);
        let value = Arc::new(load()?);
        Ok(Self {
            files,
            load: Box::new(load),
            state: Mutex::new(State {
                stamps,
                looked: Instant::now(),
                value,
            }),
        })
    }

    /// The value as the files have it. Files that cannot be used leave the one before in force: half
    /// a renewal must not lock everybody out.
    ///
    /// Looks at the files' metadata at most once a second, which is short enough to do here.
    pub(crate) fn current(&self) -> Arc<T> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let now = Instant::now();
        if now.duration_since(state.looked) < LOOK_EVERY {
            return state.value.clone();
        }
        state.looked = now;
        let stamps = Stamps::of(&self.files);
        if stamps != state.stamps {
            state.stamps = stamps;
            match (self.load)() {
                Ok(value) => {
                    state.value = Arc::new(value);
                    tracing::info!(files = ?self.files, "taken over again");
                }
                Err(error) => {
                    tracing::error!(files = ?self.files, error = format!("{error:#}"),
                        "changed and cannot be used; the content before stays in force");
                }
            }
        }
        state.value.clone()
    }
}

impl<T> fmt::Debug for Reloading<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloading").field(&self.files).finish()
    }
}

impl Stamps {
    /// The files as they are now. One that is not there is told apart from one that is.
    pub(crate) fn of(files: &[PathBuf]) -> Self {
        let stamp = |file| {
            let metadata = std::fs::metadata(file).ok()?;
            Some(Stamp {
                modified: metadata.modified().ok(),
                bytes: metadata.len(),
                inode: metadata.ino(),
            })
        };
        Self(files.iter().map(stamp).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
        let directory = tempfile::tempdir().expect("a directory");
        let file = directory.path().join("number");
        let write = |text: &str| std::fs::write(&file, text).expect("written");
        write("1");
        let path = file.clone();
        let reloading = Reloading::new(vec![file.clone()], move || {
            Ok(std::fs::read_to_string(&path)?.parse::<u32>()?)
        })
        .expect("loaded");
        assert_eq!(*reloading.current(), 1);
        write("22");
        assert_eq!(*reloading.current(), 1, "looked at a moment ago");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(*reloading.current(), 22);
        write("no number");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(*reloading.current(), 22);
    }
}
