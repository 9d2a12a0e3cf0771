//! A mail system, the dock, and two servers in one process.

mod fences;
mod hostile;
mod messages;
mod server;
mod smtp;
mod world;
