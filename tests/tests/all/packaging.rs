//! What a package has: programs that run as their own user, units that are sound and hardened, the API's descriptors.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs::Permissions;
use std::os::unix::fs::{PermissionsExt as _, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use ferrypost_tests::process::find_program;
use ferrypost_tests::tools::{repository, tool};
use ferrypost_tests::world::{DATA_PLANE, program};
use tempfile::TempDir;

/// A package of the programs that the tests have, unpacked.
struct Unpacked(TempDir);

impl Unpacked {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let programs = std::env::current_exe().unwrap();
        let programs = programs.ancestors().nth(2).unwrap();
        let built = folder.path().join("built");
        std::fs::create_dir(&built).unwrap();
        run(Command::new("make")
            .current_dir(repository())
            .args(["deb", "COMPRESSION=-Znone"])
            .arg(format!("PROGRAMS={}", programs.display()))
            .arg(format!("built={}", built.display())));
        let files = std::fs::read_dir(&built).unwrap();
        let package = files.map(|it| it.unwrap().path());
        let package = package.filter(|it| it.extension().is_some_and(|it| it == "deb"));
        let root = folder.path().join("root");
        run(Command::new("dpkg-deb").arg("-x").args(package).arg(&root));
        // Its programs are for everybody.
        run(Command::new("chmod").arg("755").arg(folder.path()));
        Self(folder)
    }

    fn path(&self, inside: &str) -> PathBuf {
        self.0.path().join("root").join(inside)
    }

    fn units(&self) -> Vec<PathBuf> {
        let folder = std::fs::read_dir(self.path("usr/lib/systemd/system")).unwrap();
        folder.map(|it| it.unwrap().path()).collect()
    }
}

/// What it says.
fn run(command: &mut Command) -> String {
    let output = command.output().unwrap();
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{command:?}: {output:?}");
    said
}

fn analyze(args: &[&str], unit: &Path) -> String {
    let program = find_program(Path::new("systemd-analyze")).unwrap();
    run(Command::new(program).args(args).arg(unit))
}

#[test]
fn the_package_has_programs_for_everybody_the_api_s_descriptors_and_units_that_may_do_little() {
    let unpacked = Unpacked::new();
    programs_run_as_nobody(&unpacked);
    descriptors_name_every_service(&unpacked);
    units_are_sound_and_may_do_little(&unpacked);
}

fn programs_run_as_nobody(unpacked: &Unpacked) {
    for program in ["ferrypost-dataplane", "ferrypost-controlplane"] {
        let said = run(Command::new("setpriv")
            .args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"])
            .arg(unpacked.path("usr/bin").join(program))
            .arg("--version"));
        assert!(said.starts_with(program), "{said}");
    }
}

fn descriptors_name_every_service(unpacked: &Unpacked) {
    let protoset = unpacked.path("usr/share/ferrypost/ferrypost.protoset");
    let services = run(Command::new(tool("grpcurl").unwrap())
        .arg("-protoset")
        .arg(protoset)
        .arg("list"));
    for service in ["Migration", "Placement", "RoutingConfig", "Stats"] {
        let service = format!("ferrypost.v1.{service}Service");
        assert!(services.lines().any(|line| line == service), "{services}");
    }
}

/// What stands in for a program: it notes what it is told, and does what a line says.
fn stand_in(folder: &Path, name: &str, does: &str) {
    let noted = folder.join(format!("{name}.said")).display().to_string();
    let script = format!("#!/bin/sh\necho \"$@\" >> {noted}\n{does}\n");
    let file = folder.join(name);
    std::fs::write(&file, script).unwrap();
    std::fs::set_permissions(&file, Permissions::from_mode(0o755)).unwrap();
}

/// The steps of the Dockerfile's compile stage, in a tree without anything built and with a compiler that brings programs
/// which are there already. `make images` has them compiled.
#[test]
fn the_dockerfile_s_compile_stage_compiles_what_it_lays_out() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| {
        let place = folder.path().join(name);
        std::fs::create_dir(&place).unwrap();
        place
    };
    let (tree, tools, nothing) = (place("tree"), place("tools"), place("programs"));
    for entry in std::fs::read_dir(repository()).unwrap() {
        let (name, path) = entry.map(|it| (it.file_name(), it.path())).unwrap();
        if name != "target" && name != ".git" {
            symlink(path, tree.join(name)).unwrap();
        }
    }
    let built = program(DATA_PLANE).unwrap();
    let built = built.parent().unwrap().display().to_string();
    let all =
        format!("{built}/ferrypost {built}/ferrypost-dataplane {built}/ferrypost-controlplane");
    let compiles = format!(
        "[ \"$CARGO_PROFILE_RELEASE_DEBUG,$RUSTUP_TOOLCHAIN\" = none,1.95.0 ] || exit 1\n\
         mkdir -p target/release && ln -s {all} target/release"
    );
    stand_in(&tools, "cargo", &compiles);
    stand_in(&tools, "apt-get", "");

    let dockerfile = std::fs::read_to_string(repository().join("Dockerfile")).unwrap();
    let step = dockerfile
        .lines()
        .find(|it| it.starts_with("RUN "))
        .unwrap();
    let (_, step) = step.split_once("target=/programs ").unwrap();
    let images = folder.path().join("images");
    let step = step
        .replace(" /programs", &format!(" {}", nothing.display()))
        .replace(" /images", &format!(" {}", images.display()));
    let path = format!("{}:{}", tools.display(), std::env::var("PATH").unwrap());
    run(Command::new("sh")
        .args(["-ec", &step])
        .current_dir(&tree)
        .env_remove("CARGO_TARGET_DIR")
        .env("PATH", path)
        .env("RUST_VERSION", "1.95.0"));

    let said = |name: &str| std::fs::read_to_string(tools.join(format!("{name}.said"))).unwrap();
    let built = said("cargo");
    assert!(built.starts_with("build --release --locked -p "), "{built}");
    for name in ["ferrypost", "ferrypost-dataplane", "ferrypost-controlplane"] {
        assert!(images.join(format!("{name}/usr/bin/{name}")).is_file());
        let asked = format!(" --bin {name}");
        assert!(
            built
                .trim_end()
                .split(" --")
                .any(|it| format!(" --{it}") == asked),
            "{built}"
        );
    }
    // What a build of ours needs of Debian is said in one more place.
    let install = std::fs::read_to_string(repository().join("tests/tools/install")).unwrap();
    let needed = install
        .lines()
        .find_map(|it| it.strip_prefix("build=("))
        .unwrap();
    let needed = needed.trim_end_matches(')').split(' ');
    for package in needed.filter(|it| !it.starts_with("python3")) {
        assert!(
            said("apt-get").contains(&format!(" {package}")),
            "{package}"
        );
    }
}

fn units_are_sound_and_may_do_little(unpacked: &Unpacked) {
    let units = unpacked.units();
    assert_eq!(units.len(), 2, "{units:?}");
    for unit in units {
        // Of 100 for a service without any restriction.
        analyze(
            &["security", "--no-pager", "--offline=true", "--threshold=25"],
            &unit,
        );
        let text = std::fs::read_to_string(&unit).unwrap();
        let programs = unpacked.path("usr/bin");
        let text = text.replace("/usr/bin", &programs.display().to_string());
        std::fs::write(&unit, text).unwrap();
        analyze(&["verify", "--man=no"], &unit);
    }
}
