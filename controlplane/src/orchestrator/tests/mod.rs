//! Moves driven in one process, on real stores, with data planes that only say what they are told to say.

mod cookie_keys;
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

use crate::store::testing::on_both_stores;
