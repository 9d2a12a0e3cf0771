//! Ferrypost's control plane: it knows where every account lives, moves accounts, and tells every
//! data plane.
//!
//! ```text
//!   operator ── gRPC ──▶ service ──▶ store ──watch──▶ mirror ──▶ change log ──▶ feed ──▶ data planes
//!                           │          ▲                 │                       │
//!                           │          └── orchestrator ◀┘ (the leader's)        │
//!                           │          ▲                                         │
//!                           │          └────── registrations, drained reports ◀──┘
//!                           └── commands to data planes ──▶ fleet ──▶ feed
//! ```
//!
//! The store is the one truth and every decision is a guarded transaction of it; what the process
//! holds in memory is a mirror that may be lost at any moment. Any number of replicas serve any call
//! and any stream; one of them, the leader, drives migrations.
//!
//! [`app::build`] puts it all together, for the program as well as for tests.

mod admin;
pub mod app;
pub mod config;
pub mod domain;
pub mod failpoint;
pub mod fleet;
mod grpc;
pub mod hook;
mod installation;
pub mod kv;
pub mod leader;
pub mod metrics;
pub mod mirror;
mod net;
pub mod orchestrator;
pub mod refusal;
pub mod routing_file;
pub mod service;
pub mod store;
mod tls;
pub mod wall_clock;
