//! Who has the machine when. Worlds live side by side, since most of their time they wait; one that
//! measures, or loads the machine as hard as it can, is alone.

use tokio::sync::{RwLock, RwLockReadGuard, RwLockWriteGuard};

/// Fair: whoever asks to be alone is not overtaken by those who share.
static MACHINE: RwLock<()> = RwLock::const_new(());

/// The machine, shared or not, until this is dropped. A test that holds one must not take another:
/// when somebody asks to be alone between the two, both would wait for ever.
#[derive(Debug)]
pub enum Turn {
    /// Beside others of its kind.
    Shared(RwLockReadGuard<'static, ()>),
    /// Beside nobody in this process.
    Alone(RwLockWriteGuard<'static, ()>),
}

impl Turn {
    /// Waits until nobody is alone, or to be `alone`, until there is nobody.
    pub async fn take(alone: bool) -> Self {
        if alone {
            Self::Alone(MACHINE.write().await)
        } else {
            Self::Shared(MACHINE.read().await)
        }
    }
}
