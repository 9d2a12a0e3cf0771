//! Ferrypost on real processes and servers. One program with a module for each file of this folder:
//! linking both planes once is quicker than once a file, and the tests wait side by side.
//!
//! A world has the machine together with others, or alone: `Builder::alone`.

mod announcement;
mod browser;
mod cli;
mod compression;
mod contract;
mod cyrus;
mod cyrus_mail;
mod demo;
mod destinations;
mod docs;
mod examples;
mod failpoints;
mod fixtures;
mod grpcurl;
mod guessing;
mod guide;
mod helm;
mod http;
mod inbound;
mod large_mail;
mod large_upload;
mod leniency;
mod lifecycle;
mod lmtp;
mod lookups;
mod managesieve;
mod memory;
mod metrics;
mod monitoring;
mod moves;
mod packaging;
mod partitions;
mod pop3;
mod processes;
mod readme;
mod real_clients;
mod reload;
mod restore;
mod second_names;
mod shell;
mod sidecar;
mod stubborn;
mod submission;
mod telemetry;
mod thin_road;
mod tokens;
mod torture;
mod unlisted;
mod versions;
mod walkthrough;

/// A file that is not named above would be a test that never runs.
#[test]
fn every_file_here_is_a_module() {
    let here = ferrypost_tests::tools::repository().join("tests/tests/all");
    for file in std::fs::read_dir(here).expect("the folder of this file") {
        let path = file.expect("an entry").path();
        let name = path.file_stem().expect("a name").to_string_lossy();
        let module = format!("mod {name};");
        let named = include_str!("main.rs").lines().any(|line| line == module);
        assert!(name == "main" || named, "main.rs does not say `{module}`");
    }
}
