//! The operator's guide is true: its commands are typed, page by page and in their order, at an installation with two real
//! Dovecots, and its configurations are read by the programs that they are for.
//!
//! A fenced block says what it is: `sh` is typed, and a `text` behind it holds lines that must be printed, in this order;
//! `mail` marks what needs mail systems, which root alone can start; `sh service` is told to the manager of services, whose place
//! the test takes; `sh notrun WHY` is not typed, but read as a shell reads it; `toml gateway` is a whole file, `toml gateway part`
//! more of one; `yaml` are values of the chart; `conf FILE` is one of the examples. `<!-- test: ... -->` is what happens meanwhile.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use ferrypost_tests::dovecot::Role;
use ferrypost_tests::helm::{chart, helm};
use ferrypost_tests::postfix::{self, Postfix};
use ferrypost_tests::process::find_program;
use ferrypost_tests::recipes::Entrances;
use ferrypost_tests::shell::shell_within;
use ferrypost_tests::story::short_limits;
use ferrypost_tests::tools::{repository, tool};
use ferrypost_tests::world::{COMMAND_LINE, CONTROL_PLANE, DATA_PLANE, World, program};
use tempfile::TempDir;

use super::readme::write_named_files;

/// Longer than any block here waits by itself.
const LIMIT: Duration = Duration::from_mins(6);

/// Why a block may not be typed here: it needs root and changes the machine, a mail server that is not the test's, or a
/// cluster.
const NOT_HERE: [&str; 3] = ["root", "server", "cluster"];

/// A fenced block, or a stage direction, whose `info` is `stage`.
#[derive(Debug, Clone)]
struct Block {
    /// Page and line, for messages.
    place: String,
    info: String,
    text: String,
}

impl Block {
    fn words(&self) -> Vec<&str> {
        self.info.split_whitespace().collect()
    }
}

/// All blocks of the guide, in its order.
fn guide() -> Vec<Block> {
    let pages = fs::read_dir(repository().join("docs/guide")).unwrap();
    let mut pages: Vec<_> = pages.map(|it| it.unwrap().path()).collect();
    pages.sort();
    pages.iter().flat_map(|page| blocks(page)).collect()
}

fn blocks(page: &Path) -> Vec<Block> {
    let name = page.file_name().unwrap().to_string_lossy();
    let text = fs::read_to_string(page).unwrap();
    let mut blocks = Vec::new();
    let mut open: Option<Block> = None;
    for (n, line) in (1..).zip(text.lines()) {
        let place = format!("{name}:{n}");
        match (&mut open, line.strip_prefix("```")) {
            (None, Some(info)) => {
                let info = info.to_owned();
                assert!(!info.is_empty(), "{place}: a block of no kind");
                open = Some(Block {
                    place,
                    info,
                    text: String::new(),
                });
            }
            (Some(_), Some(_)) => blocks.extend(open.take()),
            (Some(block), None) => block.text.extend([line, "\n"]),
            (None, None) => {
                let stage = line.strip_prefix("<!-- test: ");
                blocks.extend(stage.map(|direction| Block {
                    place,
                    info: "stage".to_owned(),
                    text: direction.trim_end_matches(" -->").to_owned(),
                }));
            }
        }
    }
    assert!(open.is_none(), "{name}: a block without an end");
    blocks
}

#[test]
fn few_of_the_guide_s_commands_are_left_untyped_and_each_for_a_reason_that_is_known() {
    let guide = guide();
    let is_typed =
        |block: &&Block| matches!(block.words()[..], ["sh"] | ["sh", "mail" | "service"]);
    let typed = guide.iter().filter(is_typed).count();
    let mut untyped = 0;
    for block in &guide {
        match block.words()[..] {
            ["sh", "notrun", why] if NOT_HERE.contains(&why) => {
                is_read_by_a_shell(block);
                untyped += 1;
            }
            ["sh" | "text" | "stage" | "yaml"]
            | ["sh" | "text", "mail"]
            | ["sh", "service"]
            | ["toml" | "conf", _]
            | ["toml", _, "part" | "part-of-store"] => {}
            _ => panic!("{}: {:?} is no kind of block", block.place, block.info),
        }
    }
    assert!(typed >= 40, "{typed}");
    assert!(untyped <= 5, "{untyped}");
}

fn is_read_by_a_shell(block: &Block) {
    let mut shell = Command::new("sh");
    let read = shell.args(["-n", "-c", &block.text]).output().unwrap();
    let said = String::from_utf8_lossy(&read.stderr).into_owned();
    assert!(read.status.success(), "{}: {said}", block.place);
}

#[test]
fn every_configuration_of_the_guide_is_read_by_the_program_that_it_is_for() {
    let guide = guide();
    let whole = |kind: &str| {
        let mut all = guide.iter();
        all.find(|it| it.words() == ["toml", kind])
            .unwrap_or_else(|| panic!("no whole {kind}"))
    };
    for block in &guide {
        match block.words()[..] {
            ["toml", kind] => check(block, kind, &block.text),
            ["toml", "routing", "part"] => {
                check(
                    block,
                    "routing",
                    &in_each_destination(&whole("routing").text, block),
                );
            }
            ["toml", kind, "part"] => {
                check(
                    block,
                    kind,
                    &format!("{}\n{}", whole(kind).text, block.text),
                );
            }
            ["toml", kind, "part-of-store"] => {
                check(
                    block,
                    kind,
                    &in_place_of_its_store(&whole(kind).text, block),
                );
            }
            ["yaml"] => render(block),
            ["conf", example] => {
                let file = repository().join("docs/examples").join(example);
                assert_eq!(
                    block.text,
                    fs::read_to_string(file).unwrap(),
                    "{}",
                    block.place
                );
            }
            _ => {}
        }
    }
}

/// What one destination speaks all must.
fn in_each_destination(routing: &str, part: &Block) -> String {
    let between = format!("\n{}\n[[destinations]]\n", part.text);
    let (before, destinations) = routing.split_once("[[destinations]]\n").unwrap();
    let destinations = destinations.replace("\n[[destinations]]\n", &between);
    format!("{before}[[destinations]]\n{destinations}\n{}", part.text)
}

fn in_place_of_its_store(text: &str, part: &Block) -> String {
    let (before, rest) = text.split_once("[store]\n").unwrap();
    let (_, after) = rest.split_once("\n\n").unwrap();
    format!("{before}{}\n{after}", part.text)
}

fn check(block: &Block, kind: &str, text: &str) {
    let folder = tempfile::tempdir().unwrap();
    let here = folder.path();
    write_named_files(here);
    for file in ["routing.toml", "controlplane.toml", "gateway.toml"] {
        let example = repository().join("docs/examples/two-servers").join(file);
        fs::copy(example, here.join(file)).unwrap();
    }
    fs::write(here.join(kind).with_extension("toml"), text).unwrap();
    let (name, file) = match kind {
        "gateway" => (DATA_PLANE, "gateway.toml"),
        "controlplane" | "routing" => (CONTROL_PLANE, "controlplane.toml"),
        _ => panic!("{}: no program reads {kind}", block.place),
    };
    let checked = Command::new(program(name).unwrap())
        .args(["check", "--config"])
        .arg(here.join(file))
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&checked.stderr).into_owned();
    assert!(checked.status.success(), "{}: {said}", block.place);
}

fn render(block: &Block) {
    let folder = tempfile::tempdir().unwrap();
    let values = folder.path().join("values.yaml");
    fs::write(&values, &block.text).unwrap();
    let rendered = helm(&chart(), &["template", "ferrypost"], &[values]).unwrap();
    let said = String::from_utf8_lossy(&rendered.stderr).into_owned();
    assert!(rendered.status.success(), "{}: {said}", block.place);
}

/// Somebody who follows the guide.
struct Reader {
    world: World,
    desk: TempDir,
    /// What the guide says, and what it is here.
    here: Vec<(String, String)>,
    /// Lines by which earlier blocks have set their shell's environment.
    exports: String,
    printed: String,
    /// The last block that copies mailboxes.
    copying: Option<Block>,
}

impl Reader {
    async fn sits_down() -> Self {
        let world = World::builder()
            .accounts(&[
                "alice@example.org",
                "bob@example.org",
                "carol@example.org",
                "dora@example.org",
            ])
            .data_planes(2)
            .delta_hook(true)
            .cyruses()
            .limits(short_limits());
        let world = if postfix::can_start() {
            world.split_mail()
        } else {
            world
        };
        let world = world.start().await.unwrap();
        let desk = tempfile::tempdir().unwrap();
        let programs = desk.path().join("bin");
        fs::create_dir(&programs).unwrap();
        for name in [COMMAND_LINE, CONTROL_PLANE, DATA_PLANE] {
            symlink(program(name).unwrap(), programs.join(name)).unwrap();
        }
        symlink(tool("grpcurl").unwrap(), programs.join("grpcurl")).unwrap();
        Self {
            here: places(&world, desk.path()),
            exports: format!("PATH={}:$PATH\n", programs.display()),
            world,
            desk,
            printed: String::new(),
            copying: None,
        }
    }

    async fn follows(&mut self, block: &Block) {
        let has_mail = self.world.postfix(Role::Target).is_some();
        match block.words()[..] {
            [_, "mail"] if !has_mail => {}
            ["sh"] | ["sh", "mail"] => self.types(block).await,
            ["sh", "service"] => self.tells_the_manager(block).await,
            ["text"] | ["text", "mail"] => self.compares(block),
            ["stage"] => self.acts(block).await,
            _ => {}
        }
    }

    async fn types(&mut self, block: &Block) {
        let mut script = block.text.clone();
        if script.contains("dsync-server") {
            self.copying = Some(block.clone());
        }
        for (said, here) in &self.here {
            script = script.replace(said, here);
        }
        let folder = self.desk.path().display();
        let whole = format!("exec 2>&1\ncd {folder}\n{}{script}", self.exports);
        let printed = shell_within(LIMIT, &whole).await;
        self.printed = printed.unwrap_or_else(|error| panic!("{}: {error}", block.place));
        let exports = script.lines().filter(|line| line.starts_with("export "));
        self.exports.extend(exports.map(|line| format!("{line}\n")));
    }

    fn compares(&self, block: &Block) {
        let mut rest = self.printed.as_str();
        for line in block.text.lines() {
            let found = rest.split_once(line);
            let (place, printed) = (&block.place, &self.printed);
            rest = found
                .unwrap_or_else(|| panic!("{place}: no {line:?} in its place:\n{printed}"))
                .1;
        }
    }

    /// Waits until `ferrypost dataplanes` has a line like this.
    async fn sees(&mut self, block: &Block, line: &str) {
        let text = format!("until ferrypost dataplanes | grep -E '{line}'; do sleep 0.2; done\n");
        let (place, info) = (block.place.clone(), block.info.clone());
        self.types(&Block { place, info, text }).await;
    }

    async fn acts(&mut self, block: &Block) {
        match block.text.as_str() {
            "copy again" => {
                let copying = self.copying.clone().expect("a block that copies");
                self.types(&copying).await;
            }
            "kill gateway-2" => {
                self.world.data_plane(1).kill();
                self.sees(block, "^gateway-2 +[^ ]+ +no ").await;
            }
            other => panic!("{}: nobody can {other}", block.place),
        }
    }

    async fn tells_the_manager(&mut self, block: &Block) {
        for line in block.text.lines() {
            let words: Vec<_> = line.split_whitespace().collect();
            let ["systemctl", verb, units @ ..] = &words[..] else {
                panic!("{}: {line:?} is for a shell", block.place);
            };
            for unit in units.iter().filter(|it| **it != "--now") {
                let file = format!("docs/packaging/systemd/{unit}.service");
                assert!(repository().join(file).is_file(), "{}: {unit}", block.place);
                self.manages(block, verb, unit).await;
            }
        }
    }

    /// Does what the manager of services does with a unit.
    async fn manages(&mut self, block: &Block, verb: &str, unit: &str) {
        let is_gateway = unit == "ferrypost-dataplane";
        if verb == "disable" && is_gateway {
            // The second one, if it lives, stands for a machine of its own.
            self.world.data_plane(1).kill();
        }
        let plane = match unit {
            "ferrypost-dataplane" => self.world.data_plane(0),
            "ferrypost-controlplane" => self.world.control_plane(0),
            _ => panic!("{}: nobody runs {unit}", block.place),
        };
        match verb {
            "enable" => plane.check().unwrap(),
            "start" => plane.start().unwrap(),
            "stop" | "disable" => plane.stop().await.unwrap(),
            "restart" => {
                plane.stop().await.unwrap();
                plane.start().unwrap();
            }
            "reload" => {
                let log = plane.log().from_now();
                let hang_up = format!("kill -HUP {}", plane.id().unwrap());
                shell_within(LIMIT, &hang_up).await.unwrap();
                let read = "the configuration was read again";
                log.wait_for(&[read], LIMIT).await.unwrap();
            }
            _ => panic!("{}: nobody knows how to {verb}", block.place),
        }
        match (verb, is_gateway) {
            ("start" | "restart", true) => self.world.wait_until_ready(0).await.unwrap(),
            ("start" | "restart", false) => self.world.wait_for_leader(0).await.unwrap(),
            _ => {}
        }
    }
}

/// What the guide says, and what it is in this world; the longer one first where one is part of another.
fn places(world: &World, desk: &Path) -> Vec<(String, String)> {
    let replica = &world.control_planes()[0];
    let plane = &world.data_planes()[0];
    let doveadm = find_program(Path::new("doveadm")).unwrap();
    let shown = |path: PathBuf| path.display().to_string();
    let reload = format!(
        "{} -c {} reload",
        doveadm.display(),
        world.source().configuration().display()
    );
    let places = [
        ("127.0.0.1:9080", replica.operators().to_string()),
        ("127.0.0.1:9443", plane.admin().to_string()),
        ("old.example.org:993", Entrances::of_source(world).imaps),
        (
            "/etc/ferrypost/controlplane.toml",
            shown(replica.plane.config().to_owned()),
        ),
        (
            "/etc/ferrypost/dataplane.toml",
            shown(plane.plane.config().to_owned()),
        ),
        (
            "/etc/ferrypost/operator.token",
            shown(world.operator_token_file()),
        ),
        (
            "/etc/ferrypost/admin.token",
            shown(world.admin_token_file()),
        ),
        ("doveadm reload", reload),
        ("/usr/bin/doveadm", shown(doveadm)),
        (
            "/var/lib/ferrypost/controlplane",
            shown(replica.plane.config().with_file_name("")),
        ),
        ("/var/backups", shown(desk.to_owned())),
        (
            "/etc/dovecot/old.conf",
            shown(world.source().configuration()),
        ),
        (
            "/etc/dovecot/new.conf",
            shown(world.target().configuration()),
        ),
        ("password", world.password().to_owned()),
    ];
    let mut places: Vec<_> = places.map(|(said, it)| (said.to_owned(), it)).into();
    for host in ["mail.example.org", "gateway-1.example.org"] {
        places.extend(ports(world).map(|(port, it)| (format!("{host}:{port}"), it)));
        let web = plane.web().map(|it| format!("https://{it}"));
        places.extend(web.map(|it| (format!("https://{host}"), it)));
    }
    if let Some(folder) = world.postfix(Role::Target).map(Postfix::configuration) {
        for command in ["postqueue -", "postmap -", "postconf -", "postfix reload"] {
            let (program, rest) = command.split_once(' ').unwrap();
            let here = format!("{program} -c {} {rest}", folder.display());
            places.push((command.to_owned(), here));
        }
    }
    let [lookups, _] = plane.lookups();
    places.push(("127.0.0.1:2527".to_owned(), lookups.to_string()));
    places
}

/// The first data plane's ports, as the guide counts them, and where each is.
fn ports(world: &World) -> impl Iterator<Item = (u16, String)> {
    let plane = &world.data_planes()[0];
    let entrances = Entrances::of_data_plane(world, 0);
    let at = |it: Option<SocketAddr>| it.map(|it| it.to_string());
    let ports = [
        (993, Some(entrances.imaps)),
        (995, Some(entrances.pop3s)),
        (4190, Some(entrances.sieve)),
        (587, at(plane.submission())),
        (465, at(plane.submissions())),
        // Longer ones are gone by now.
        (25, at(plane.mx())),
    ];
    ports
        .into_iter()
        .filter_map(|(port, it)| it.map(|it| (port, it)))
}

#[tokio::test]
async fn the_guide_s_commands_work_as_printed_and_in_its_order() {
    let mut reader = Reader::sits_down().await;
    for block in guide() {
        reader.follows(&block).await;
    }
    reader.world.stop().await.unwrap();
}
