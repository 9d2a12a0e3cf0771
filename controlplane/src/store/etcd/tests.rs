//! What only a cluster can show: losing it, sharing it, being locked out of it.

mod access;
mod loss;
mod sharing;
