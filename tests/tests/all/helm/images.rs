//! The images of the Dockerfile, run as the chart's pods ask for it.

use std::fs;
use std::os::unix::fs::MetadataExt as _;

use ferrypost_tests::image::{Image, Images};
use ferrypost_tests::world::{CONTROL_PLANE, DATA_PLANE, World, program};
use serde_json::json;

use super::installed::{LIMIT, LINES, Release, ReplicaPorts, doors, one_of_each};

/// Of all of an image's files together, with programs of the tests, which are somewhat larger than a release's without line
/// tables.
const SIZE: u64 = 64 << 20;

/// What an image has beside its program and libraries.
const BESIDE: [&str; 6] = [
    "/etc/group",
    "/etc/nsswitch.conf",
    "/etc/passwd",
    "/etc/ssl/certs/ca-certificates.crt",
    "/usr/share/doc/ferrypost/LICENSE",
    "/usr/share/ferrypost/ferrypost.protoset",
];

#[tokio::test]
async fn the_images_hold_a_program_each_and_run_the_chart_s_pods_as_their_own_user() {
    let programs = program(DATA_PLANE).unwrap();
    let images = Images::build(programs.parent().unwrap()).unwrap();
    for (target, name) in [
        ("dataplane", DATA_PLANE),
        ("controlplane", CONTROL_PLANE),
        ("cli", "ferrypost"),
    ] {
        holds_its_program_alone(&images.image(target).unwrap(), name);
    }
    runs_the_chart_s_pods(images).await;
}

fn holds_its_program_alone(image: &Image, name: &str) {
    let own = format!("/usr/bin/{name}");
    assert_eq!(image.entry(), [own.as_str()]);
    assert_eq!(image.user(), "65532:65532");
    let version = image.label("org.opencontainers.image.version");
    assert_eq!(
        version,
        env!("CARGO_PKG_VERSION"),
        "the Dockerfile's VERSION"
    );
    assert_eq!(
        image.label("org.opencontainers.image.licenses"),
        "Apache-2.0"
    );
    let mut more = Vec::new();
    for file in image.files() {
        let path = file.path.to_str().unwrap();
        assert_eq!(
            file.mode & 0o6022,
            0,
            "{path} lends rights, or is written to"
        );
        assert_eq!(file.owner, 0, "{path}");
        let is_library = path.starts_with("/lib") && path.contains(".so");
        if path != own && !is_library {
            more.push(path);
        }
    }
    more.sort_unstable();
    assert_eq!(more, BESIDE, "{name}");
    let size = image.files().iter().map(|file| file.size).sum::<u64>();
    println!("image of {name}: {} MiB", size >> 20);
    assert!(size < SIZE, "{size}");
}

async fn runs_the_chart_s_pods(images: Images) {
    let world = World::builder().data_planes(1).start().await.unwrap();
    let replica = ReplicaPorts::reserve();
    let stream = [replica.stream.addr()];
    let mut release = Release::new(&world, "minimal", &json!({}), &stream);
    release.images = Some(images);
    let (process, pod) = one_of_each(&mut release, &replica).await;
    let (image, user) = pod.asks_for();
    assert_eq!(
        image,
        concat!("ferrypost/dataplane:", env!("CARGO_PKG_VERSION"))
    );
    let state = fs::metadata(pod.path("/var/lib/ferrypost/state")).unwrap();
    assert_eq!(u64::from(state.uid()), user, "who runs the data plane");

    let operators = replica.operators.addr();
    let (passed, said) = release.helm_test(operators, |_| {}).await;
    assert!(passed, "{said}");
    assert_eq!(doors(&said, "ok ").len(), LINES.len(), "{said}");

    let images = release.images.take().unwrap();
    let said = command_line(&images, &release, operators.port(), "dataplanes").await;
    assert!(said.contains("ferrypost-dataplane-5d4f8-x7k2p"), "{said}");
    let said = command_line(&images, &release, operators.port(), "check").await;
    let seen = "ok  those between here and the control plane, too\n";
    assert!(said.contains(seen), "{said}");
    // The hook before a stop has no shell to run in, and needs none.
    let image = images.image("dataplane").unwrap();
    let log = release.folder.path().join("drain.log");
    let drain = pod.contained_before_stop(&image, &log).unwrap();
    let mut drain = drain.start().unwrap();
    let drained = drain.wait(LIMIT).await.unwrap();
    assert!(drained.success(), "{}", drain.log().tail());
    let ended = release.processes[process].terminate(LIMIT).await.unwrap();
    assert!(ended.success(), "{ended}");
    world.stop().await.unwrap();
}

/// What the command line's image says, in a container that believes the planes' authority as other machines believe
/// those of the Web.
async fn command_line(images: &Images, release: &Release, port: u16, asked: &str) -> String {
    let image = images.image("cli").unwrap();
    let endpoint = format!("--endpoint=https://127.0.0.1:{port}");
    let token = "--token-file=/etc/ferrypost/tokens/operator";
    let words = [&endpoint, token, asked].map(str::to_owned);
    let command = [image.entry(), words.to_vec()].concat();
    let believed = ("SSL_CERT_FILE", "/etc/ferrypost/planes/ca.crt");
    let believed = [(believed.0.to_owned(), believed.1.to_owned())];
    let settings = "ferrypost-controlplane-0/etc/ferrypost";
    let mounts = [(release.folder.path().join(settings), "/etc/ferrypost")];
    let log = release.folder.path().join(format!("{asked}.log"));
    let asking = image.spawn(&command, &believed, &mounts, &log).unwrap();
    asking.start().unwrap().wait(LIMIT).await.unwrap();
    fs::read_to_string(&log).unwrap()
}
