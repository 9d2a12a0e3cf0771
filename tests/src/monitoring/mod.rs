//! What operators watch: two Grafana dashboards, made from the tables here, and the alert rules beside them.
//!
//! `helm/monitoring` has the dashboards as Grafana reads them and the rules as Prometheus reads them. A test holds the
//! dashboards current with these tables, and another puts every query to a real Prometheus that watched a move.

mod grafana;
mod moves;
mod operations;
mod picture;
mod prometheus;

pub use grafana::{Dashboard, Panel, Query, Row, Unit};
pub use moves::MOVES;
pub use operations::OPERATIONS;
pub use picture::{lines, picture};
pub use prometheus::{Prometheus, Sample, Target};

/// What `helm/monitoring` has under this name.
pub fn shipped(file: &str) -> std::path::PathBuf {
    crate::tools::repository()
        .join("helm/monitoring")
        .join(file)
}

/// Both dashboards.
pub const DASHBOARDS: &[&Dashboard] = &[&OPERATIONS, &MOVES];
