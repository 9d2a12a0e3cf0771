//! The feed against a scripted control plane, on a clock that stands still.

mod cookie_keys;
mod ends;
mod restored;
mod rules;
mod scripted;
mod versions;
