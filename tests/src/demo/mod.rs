//! What `make demo`, `make demo-up` and `make demo-down` run: an installation on this machine and a
//! tour of it.

mod console;
mod down;
mod env_file;
mod installed;
mod tour;
mod up;

use std::path::{Path, PathBuf};

use crate::dovecot::Pace;
use crate::postfix;
use crate::tools::repository;
use crate::world::{Builder, World};

pub use down::down;
pub use tour::tour;
pub use up::up;

/// The accounts of the demo. The first one is who moves in the tour.
const ACCOUNTS: [&str; 24] = [
    "alice@example.org",
    "bob@example.org",
    "carol@example.org",
    "dave@example.org",
    "erin@example.org",
    "frank@example.org",
    "grace@example.org",
    "heidi@example.org",
    "ivan@example.org",
    "judy@example.org",
    "karl@example.org",
    "laura@example.org",
    "mallory@example.org",
    "nina@example.org",
    "olivia@example.org",
    "peggy@example.org",
    "quentin@example.org",
    "rupert@example.org",
    "sybil@example.org",
    "trent@example.org",
    "ursula@example.org",
    "victor@example.org",
    "wendy@example.org",
    "xavier@example.org",
];

/// What the tour shows and what `demo-up` leaves running. Nothing is made faster than Dovecot comes.
pub fn world() -> Builder {
    let builder = World::builder()
        .data_planes(2)
        .delta_hook(true)
        .pace(Pace::AsShipped)
        .accounts(&ACCOUNTS)
        .deliveries()
        .cyruses();
    // Root alone can start a Postfix; without one there is no submission, and no mail arrives.
    if postfix::can_start() {
        builder.split_mail()
    } else {
        builder
    }
}

/// Where what runs is written down.
struct Paths {
    folder: PathBuf,
}

impl Paths {
    fn new() -> Self {
        Self {
            folder: repository().join("target/demo"),
        }
    }

    fn folder(&self) -> &Path {
        &self.folder
    }

    /// For those who attach from outside. Its presence means that all is up.
    fn env(&self) -> PathBuf {
        self.folder.join("env")
    }

    /// For `demo-down`: the installation's folder and its processes.
    fn installed(&self) -> PathBuf {
        self.folder.join("installed")
    }
}
