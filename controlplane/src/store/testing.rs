//! Real stores for tests: etcd servers of the test's own, and embedded stores that go away.
//!
//! Behind the cargo feature `testing`, so that the tests of other crates can use them. Everything
//! here panics instead of returning errors, with what to do about it.

mod relay;
mod server;

use std::path::PathBuf;

use tempfile::TempDir;

pub use relay::{Answers, Relay};
pub use server::EtcdServer;

use super::embedded::{EmbeddedConfig, EmbeddedStore};

/// Makes each case a test on the embedded store and one on a real etcd, in a `World` of the module around it.
#[cfg(test)]
macro_rules! on_both_stores {
    ($($case:ident,)*) => {
        mod embedded {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::World::embedded().await).await;
                }
            )*
        }
        mod etcd {
            $(
                #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
                async fn $case() {
                    super::$case(super::World::etcd().await).await;
                }
            )*
        }
    };
}
#[cfg(test)]
pub(crate) use on_both_stores;

/// An embedded store in a temporary directory that goes away with it.
#[derive(Debug)]
pub struct TempStore {
    /// The store.
    pub store: EmbeddedStore,
    directory: TempDir,
}

impl TempStore {
    /// A new, empty store.
    ///
    /// # Panics
    ///
    /// If it cannot be made.
    pub async fn open() -> Self {
        let directory = tempfile::tempdir().expect("a temporary directory can be made");
        let config = EmbeddedConfig::new(directory.path().join("store"));
        let store = EmbeddedStore::open(config).await.expect("it is a new file");
        Self { store, directory }
    }

    /// The store's file.
    pub fn path(&self) -> PathBuf {
        self.directory.path().join("store")
    }
}
