//! Files whose content is taken over while the process runs: certificates and tokens are renewed under
//! us, and nobody restarts a mail proxy for that.

use std::{
    fmt,
    os::unix::fs::MetadataExt as _,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError, RwLock},
    time::{Duration, SystemTime},
};

use tokio::time::{Instant, MissedTickBehavior, interval};

/// How often the files are looked at.
pub const LOOK_EVERY: Duration = Duration::from_secs(1);

/// A value made from files, made again when one of them has changed. Files that cannot be used leave the
/// one before in force: half a renewal must not lock everybody out.
pub struct Reloading<T, E> {
    files: Vec<PathBuf>,
    load: Box<dyn Fn() -> Result<T, E> + Send + Sync>,
    looked: Mutex<Looked>,
    value: RwLock<Arc<T>>,
}

struct Looked {
    at: Instant,
    stamps: Stamps,
}

/// What tells two contents of some files apart, by their metadata.
#[derive(Debug, PartialEq, Eq, Clone)]
pub struct Stamps(Vec<Option<Stamp>>);

/// The inode tells where a renewal swaps a link.
#[derive(Debug, PartialEq, Eq, Clone, Copy)]
struct Stamp {
    modified: Option<SystemTime>,
    bytes: u64,
    inode: u64,
}

impl<T, E: fmt::Display> Reloading<T, E> {
    /// Loads for the first time.
    ///
    /// # Errors
    /// Those of `load`.
    pub fn new(
        files: Vec<PathBuf>,
        load: impl Fn() -> Result<T, E> + Send + Sync + 'static,
    ) -> Result<Self, E> {
        // Stamps first: a file that changes while it is read is read again.
        let stamps = Stamps::of(&files);
        let value = RwLock::new(Arc::new(load()?));
        let at = Instant::now();
        Ok(Self {
            files,
            load: Box::new(load),
            looked: Mutex::new(Looked { at, stamps }),
            value,
        })
    }

    /// The value in force. Looks at nothing: for those whose files [`keep_fresh`](Self::keep_fresh) looks
    /// at.
    pub fn current(&self) -> Arc<T> {
        let value = self.value.read();
        Arc::clone(&value.unwrap_or_else(PoisonError::into_inner))
    }

    /// The value as the files have it. Looks at their metadata at most once a second, which is short
    /// enough to do where an operator calls, and not where clients do.
    pub fn fresh(&self) -> Arc<T> {
        self.look(LOOK_EVERY);
        self.current()
    }

    /// Takes the files over if they have changed since they were last looked at; true if they were. What
    /// cannot be used is logged, once. Blocks for as long as reading them takes.
    pub fn reload(&self) -> bool {
        self.look(Duration::ZERO)
    }

    /// Looks at the files every second, on a thread that may block. Never returns.
    pub async fn keep_fresh(self: Arc<Self>)
    where
        T: Send + Sync + 'static,
        E: 'static,
    {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let this = Arc::clone(&self);
            // A panic is in the log by itself, and the next look may do better.
            _ = tokio::task::spawn_blocking(move || this.reload()).await;
        }
    }

    fn look(&self, pause: Duration) -> bool {
        // Somebody else is looking: what is in force serves meanwhile.
        let Ok(mut looked) = self.looked.try_lock() else {
            return false;
        };
        let now = Instant::now();
        if now.duration_since(looked.at) < pause {
            return false;
        }
        looked.at = now;
        let stamps = Stamps::of(&self.files);
        if stamps == looked.stamps {
            return false;
        }
        looked.stamps = stamps;
        match (self.load)() {
            Ok(value) => {
                *self.value.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(value);
                tracing::info!(files = ?self.files, "changed files are in force");
                true
            }
            Err(error) => {
                tracing::error!(files = ?self.files, error = format!("{error:#}"),
                    "changed files cannot be used; what was in force stays so");
                false
            }
        }
    }
}

impl<T, E> fmt::Debug for Reloading<T, E> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Reloading").field(&self.files).finish()
    }
}

impl Stamps {
    /// The files as they are now. One that is not there is told apart from one that is.
    pub fn of(files: &[PathBuf]) -> Self {
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

    type Number = Reloading<u32, Box<dyn std::error::Error>>;

    fn number(text: &str) -> (tempfile::TempDir, PathBuf, Number) {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("number");
        std::fs::write(&file, text).unwrap();
        let path = file.clone();
        let load = move || Ok(std::fs::read_to_string(&path)?.parse()?);
        let reloading = Reloading::new(vec![file.clone()], load).unwrap();
        (directory, file, reloading)
    }

    #[tokio::test(start_paused = true)]
    async fn a_changed_file_is_taken_over_and_a_broken_one_is_not() {
        let (_directory, file, reloading) = number("1");
        assert_eq!(*reloading.fresh(), 1);
        std::fs::write(&file, "22").unwrap();
        assert_eq!(*reloading.fresh(), 1, "looked at a moment ago");
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(*reloading.fresh(), 22);
        std::fs::write(&file, "no number").unwrap();
        tokio::time::advance(LOOK_EVERY).await;
        assert_eq!(*reloading.fresh(), 22);
        std::fs::write(&file, "333").unwrap();
        assert_eq!(*reloading.current(), 22, "it looks at nothing");
        assert!(reloading.reload());
        assert_eq!(*reloading.current(), 333);
        assert!(!reloading.reload(), "nothing has changed");
    }
}
