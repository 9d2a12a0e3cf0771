//! The state directory: who this data plane is, across restarts.
//!
//! | file | what |
//! |---|---|
//! | `lock` | locked exclusively while the process lives: whoever holds it in the same place ([`Place`]) knows that the process before it is dead |
//! | `state_id` | random, written once; with the lock it proves a successor to the control plane (G3) |
//! | `installation` | the installation that was pinned at the first registration (rule 10) |
//! | `witness` | the table that was last acknowledged: it is compared with the store, and routes nobody ([`Witness`]) |
//! | `left` | exists once the registration has ended, until the next table is acknowledged |

mod place;
mod witness;

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
};

use ferrypost_proto::{InstallationId, StateId, routing::v1::Place};
use ferrypost_runtime::Random;

pub use witness::{Acknowledged, Witness};

/// The directory, locked for as long as this value lives.
#[derive(Debug)]
pub struct StateDir {
    path: PathBuf,
    state_id: StateId,
    installation: Option<InstallationId>,
    witness: Arc<Mutex<Witness>>,
    place: Place,
    /// The operating system releases the lock with the file, however the process ends.
    _lock: File,
}

/// Why the state directory cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum StateDirError {
    /// Another process holds it.
    #[error(
        "{path}: another process uses this state directory; every data plane needs its own",
        path = .path.display()
    )]
    InUse {
        /// The directory.
        path: PathBuf,
    },
    /// The operating system refused.
    #[error("{path}: {source}", path = .path.display())]
    Io {
        /// The file or directory.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
    /// A file does not hold what it should.
    #[error(
        "{path}: holds no valid {kind}; restore the file, or empty the directory and expel this \
         instance at the control plane",
        path = .path.display()
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// What it should hold.
        kind: &'static str,
    },
    /// The pin names another installation.
    #[error("{path}: this data plane belongs to installation {pinned}, not {offered}", path = .path.display())]
    OtherInstallation {
        /// The file with the pin.
        path: PathBuf,
        /// Whom we belong to.
        pinned: InstallationId,
        /// Who answered.
        offered: InstallationId,
    },
}

const LOCK: &str = "lock";
const STATE_ID: &str = "state_id";
const INSTALLATION: &str = "installation";

impl StateDir {
    /// Creates the directory if it is missing, locks it, and reads or writes the state id. Blocks on
    /// the disk: call it at start.
    pub fn open(path: &Path, random: &Random) -> Result<Self, StateDirError> {
        create_dir(path).map_err(at(path))?;
        let lock = lock(path)?;
        let state_id = match read(&path.join(STATE_ID), "state id", StateId::parse)? {
            Some(id) => id,
            None => write_new_state_id(path, random)?,
        };
        let installation = read(
            &path.join(INSTALLATION),
            "installation id",
            InstallationId::parse,
        )?;
        let witness = Arc::new(Mutex::new(Witness::open(path)?));
        let place = place::of(&lock, path).map_err(at(path))?;
        Ok(Self {
            path: path.to_owned(),
            state_id,
            installation,
            witness,
            place,
            _lock: lock,
        })
    }

    /// Says who the directory is.
    pub fn state_id(&self) -> &StateId {
        &self.state_id
    }

    /// The pinned installation; `None` before the first registration.
    pub fn installation(&self) -> Option<&InstallationId> {
        self.installation.as_ref()
    }

    /// Where the directory is: what a restart keeps and a copy does not.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// What was last acknowledged. Its writes wait for the disk: make them where no task waits.
    pub fn witness(&self) -> Arc<Mutex<Witness>> {
        Arc::clone(&self.witness)
    }

    /// Pins the installation that answered, durably; checks it if there is a pin already. Blocks on the
    /// disk when it writes, which is once in the directory's life.
    pub fn pin(&mut self, offered: &InstallationId) -> Result<(), StateDirError> {
        match &self.installation {
            Some(pinned) if pinned == offered => Ok(()),
            Some(pinned) => Err(StateDirError::OtherInstallation {
                path: self.path.join(INSTALLATION),
                pinned: pinned.clone(),
                offered: offered.clone(),
            }),
            None => {
                write_synced(&self.path, INSTALLATION, offered.as_str())?;
                self.installation = Some(offered.clone());
                Ok(())
            }
        }
    }
}

fn at(path: &Path) -> impl FnOnce(io::Error) -> StateDirError {
    move |source| StateDirError::Io {
        path: path.to_owned(),
        source,
    }
}

fn create_dir(path: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
}

fn lock(directory: &Path) -> Result<File, StateDirError> {
    let path = directory.join(LOCK);
    let file = OpenOptions::new()
        .create(true)
        .write(true)
        .truncate(false)
        .open(&path)
        .map_err(at(&path))?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(StateDirError::InUse {
            path: directory.to_owned(),
        }),
        Err(TryLockError::Error(source)) => Err(StateDirError::Io { path, source }),
    }
}

fn read<T, E>(
    path: &Path,
    kind: &'static str,
    parse: impl FnOnce(&str) -> Result<T, E>,
) -> Result<Option<T>, StateDirError> {
    let bytes = match fs::read(path) {
        Ok(bytes) => bytes,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(at(path)(error)),
    };
    // Never replaced by a fresh one: a directory that forgets who it was would pass for a stranger, and
    // moves would wait for the one that it was.
    std::str::from_utf8(&bytes)
        .ok()
        .and_then(|text| parse(text.trim_end()).ok())
        .map(Some)
        .ok_or_else(|| StateDirError::Damaged {
            path: path.to_owned(),
            kind,
        })
}

fn write_new_state_id(directory: &Path, random: &Random) -> Result<StateId, StateDirError> {
    let id = StateId::generate(random.bytes());
    write_synced(directory, STATE_ID, id.as_str())?;
    Ok(id)
}

/// Writes a whole file or none: a temporary file, synced, renamed, and the directory synced after it.
fn write_synced(directory: &Path, file: &str, line: &str) -> Result<(), StateDirError> {
    let path = directory.join(file);
    let temporary = directory.join(format!("{file}.new"));
    let write = || -> io::Result<()> {
        let mut new = File::create(&temporary)?;
        writeln!(new, "{line}")?;
        new.sync_all()?;
        fs::rename(&temporary, &path)?;
        sync_directory(directory)
    };
    write().map_err(at(&path))
}

fn sync_directory(directory: &Path) -> io::Result<()> {
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn random() -> Random {
        Random::seeded(5)
    }

    #[test]
    fn the_state_id_survives_a_restart_and_the_lock_ends_with_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b");
        let first = StateDir::open(&path, &random()).unwrap();
        let id = first.state_id().clone();
        assert!(matches!(
            StateDir::open(&path, &random()),
            Err(StateDirError::InUse { .. })
        ));
        drop(first);
        let again = StateDir::open(&path, &Random::seeded(6)).unwrap();
        assert_eq!(*again.state_id(), id);
    }

    #[test]
    fn a_pin_is_kept_and_another_installation_refused() {
        let dir = tempfile::tempdir().unwrap();
        let (ours, other) = (
            InstallationId::generate(random().bytes()),
            InstallationId::generate(Random::seeded(6).bytes()),
        );
        let mut state = StateDir::open(dir.path(), &random()).unwrap();
        assert_eq!(state.installation(), None);
        state.pin(&ours).unwrap();
        state.pin(&ours).unwrap();
        drop(state);
        let mut state = StateDir::open(dir.path(), &random()).unwrap();
        assert_eq!(state.installation(), Some(&ours));
        assert!(matches!(
            state.pin(&other),
            Err(StateDirError::OtherInstallation { .. })
        ));
    }

    #[test]
    fn a_damaged_file_is_an_error_and_not_a_new_identity() {
        let dir = tempfile::tempdir().unwrap();
        for (file, content) in [(STATE_ID, ""), (INSTALLATION, "\u{0}\u{ff}")] {
            fs::write(dir.path().join(file), content).unwrap();
            let error = StateDir::open(dir.path(), &random()).unwrap_err();
            assert!(
                matches!(&error, StateDirError::Damaged { path, .. } if path.ends_with(file)),
                "{error}"
            );
            fs::remove_file(dir.path().join(file)).unwrap();
        }
    }

    #[test]
    fn a_place_that_is_no_directory_is_named() {
        let file = tempfile::NamedTempFile::new().unwrap();
        let error = StateDir::open(file.path(), &random()).unwrap_err();
        assert!(
            error
                .to_string()
                .contains(&file.path().display().to_string())
        );
    }
}
