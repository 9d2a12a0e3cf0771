//! The control plane from outside: its API, its program, its hook. One program, linked once.

mod api;
mod hook;
mod program;
