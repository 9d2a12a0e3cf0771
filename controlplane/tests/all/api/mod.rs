//! The operators' API over real gRPC: a whole control plane in this process on the embedded store, tonic
//! clients, and data planes that are scripted streams.

mod access;
mod certs;
mod data_plane;
mod migrations;
mod placements;
mod replicas;
mod routing_config;
mod stats;
mod versions;
mod world;
