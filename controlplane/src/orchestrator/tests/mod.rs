//! Moves driven in one process, on real stores, with data planes that only say what they are told to say.

mod crash;
mod doubt;
mod evidence;
mod hooks;
mod moves;
mod plane;
mod prune;
mod queue;
mod takeover;
mod waiting;
mod world;

/// Makes each case a test on the embedded store and one on a real etcd.
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
use on_both_stores;
