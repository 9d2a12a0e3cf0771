//! The feed against a scripted control plane, on a clock that stands still.

mod ends;
mod restored;
mod rules;
mod scripted;
mod versions;
