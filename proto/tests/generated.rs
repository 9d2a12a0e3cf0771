//! Keeps `src/gen` in step with the `.proto` files. `make gen` (this test with `UPDATE_GEN=1`)
//! writes them; without it the test fails when they are stale.

use std::{fs, path::Path};

const FILES: &[&str] = &[
    "ferrypost/v1/common.proto",
    "ferrypost/v1/migration.proto",
    "ferrypost/v1/placement.proto",
    "ferrypost/v1/routing_config.proto",
    "ferrypost/v1/stats.proto",
    "ferrypost/routing/v1/routing.proto",
    "ferrypost/store/v1/store.proto",
];

const OUTPUTS: &[&str] = &[
    "ferrypost.v1.rs",
    "ferrypost.routing.v1.rs",
    "ferrypost.store.v1.rs",
    "descriptor.bin",
];

#[test]
fn generated_code_is_current() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let fresh = tempfile::tempdir().expect("a temporary directory");
    tonic_prost_build::configure()
        .bytes(".ferrypost.store.v1")
        .bytes(".ferrypost.routing.v1")
        // Values of the store are the same octets whenever they say the same.
        .btree_map(".")
        // They say which key it is, and not what it is: see `secrets`.
        .skip_debug([
            "ferrypost.store.v1.CookieKey",
            "ferrypost.routing.v1.CookieKey",
        ])
        .file_descriptor_set_path(fresh.path().join("descriptor.bin"))
        .out_dir(fresh.path())
        .compile_protos(
            &FILES.iter().map(|f| root.join(f)).collect::<Vec<_>>(),
            &[root.to_path_buf()],
        )
        .expect(
            "the protos compile (needs protoc: Debian's protobuf-compiler and libprotobuf-dev)",
        );
    let committed = root.join("src/gen");
    for name in OUTPUTS {
        let new = fs::read(fresh.path().join(name)).expect("generated");
        if std::env::var_os("UPDATE_GEN").is_some() {
            fs::write(committed.join(name), new).expect("writable");
        } else {
            let old = fs::read(committed.join(name)).unwrap_or_default();
            assert!(old == new, "src/gen/{name} is stale: run `make gen`");
        }
    }
}
