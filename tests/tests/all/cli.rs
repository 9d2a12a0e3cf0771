//! The command line on real processes and servers: the walk-through's steps as they are typed, and every exit code.

#![expect(
    clippy::unwrap_used,
    reason = "a helper that fails is a test that fails"
)]

use std::fs::File;
use std::process::{Output, Stdio};
use std::time::Duration;

use ferrypost_tests::certs::Authority;
use ferrypost_tests::grpcurl::Grpcurl;
use ferrypost_tests::recipes::Entrances;
use ferrypost_tests::story::{SOON, landing, session, short_limits};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{COMMAND_LINE, Limits, World, program};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt as _;
use tokio::process::Command;
use tokio::time::timeout;

use super::shell::shell;

const FAILPOINTS: &str = "FERRYPOST_FAILPOINTS";

/// Longer than any command here waits by itself.
const LIMIT: Duration = Duration::from_mins(3);

/// The program, as somebody has it who has set its environment.
struct Ferrypost {
    endpoint: String,
    token_file: Option<String>,
}

/// What a command has said and how it ended.
#[derive(Debug)]
struct Said {
    code: i32,
    out: String,
    err: String,
}

impl Ferrypost {
    fn operator(world: &World) -> Self {
        Self {
            endpoint: format!("http://{}", world.control_planes()[0].operators()),
            token_file: Some(world.operator_token_file().display().to_string()),
        }
    }

    async fn says(&self, words: &str) -> Said {
        let output = timeout(LIMIT, self.command(words).output());
        Said::of(&output.await.expect("it ends").unwrap())
    }

    fn command(&self, words: &str) -> Command {
        let mut command = Command::new(program(COMMAND_LINE).unwrap());
        command
            .args(words.split_whitespace())
            .env("FERRYPOST_ENDPOINT", &self.endpoint)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true);
        if let Some(file) = &self.token_file {
            command.env("FERRYPOST_TOKEN_FILE", file);
        }
        command
    }
}

/// What a command says that is still at work when it has printed something, while something else happens, which may know its
/// process.
async fn said_while(mut command: Command, happens: impl AsyncFnOnce(u32)) -> Said {
    let mut child = command.spawn().unwrap();
    let mut first = vec![0; 1];
    let out = child.stdout.as_mut().expect("it is piped");
    timeout(LIMIT, out.read_exact(&mut first))
        .await
        .expect("it prints")
        .unwrap();
    happens(child.id().expect("it has not ended")).await;
    let output = timeout(LIMIT, child.wait_with_output());
    Said::of(&output.await.expect("it ends").unwrap())
}

impl Said {
    fn of(output: &Output) -> Self {
        Self {
            code: output.status.code().unwrap_or(-1),
            out: String::from_utf8_lossy(&output.stdout).into_owned(),
            err: String::from_utf8_lossy(&output.stderr).into_owned(),
        }
    }

    /// What it printed, once it has ended as it should.
    fn ended(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{self:?}");
        self
    }

    fn json(&self) -> Value {
        serde_json::from_str(&self.out).unwrap_or_else(|error| panic!("{error}: {self:?}"))
    }

    fn contains(&self, all: &[&str]) {
        for text in all {
            let said = self.out.contains(text) || self.err.contains(text);
            assert!(said, "no {text:?} in {self:?}");
        }
    }
}

/// An operator's day, by the command line and by bare calls.
struct Day {
    world: World,
    ferrypost: Ferrypost,
    grpcurl: Grpcurl,
    account: String,
    password: String,
}

impl Day {
    async fn starts() -> Self {
        let builder = World::builder().limits(short_limits());
        let world = builder.start().await.unwrap();
        Self {
            ferrypost: Ferrypost::operator(&world),
            grpcurl: world.grpcurl(0).unwrap(),
            account: world.accounts()[0].clone(),
            password: world.password().to_owned(),
            world,
        }
    }

    /// There is no placement yet, so every account resolves to the source.
    async fn every_account_resolves_to_the_source(&self) {
        let account = &self.account;
        self.ferrypost
            .says(&format!("explain {account}"))
            .await
            .ended(0)
            .contains(&["source", "DEFAULT"]);
        let asked = json!({ "login": account });
        let method = "ferrypost.v1.PlacementService/ExplainRoute";
        let called = self.grpcurl.call(method, &asked).await.unwrap();
        let typed = self
            .ferrypost
            .says(&format!("explain {account} -o json"))
            .await
            .ended(0)
            .json();
        assert_eq!(without_header(typed), without_header(called));

        let asked = self
            .ferrypost
            .says(&format!("explain {account} --data-planes"))
            .await
            .ended(0);
        asked.contains(&["gateway-1   source", "gateway-2   source"]);
    }

    async fn it_is_healthy(&self) {
        self.ferrypost
            .says("check --wait 1m")
            .await
            .ended(0)
            .contains(&["Nothing found."]);
        self.ferrypost
            .says("stats")
            .await
            .ended(0)
            .contains(&["2 connected of 2"]);
        let planes = self.ferrypost.says("dataplanes -o short").await.ended(0);
        assert_eq!(planes.out, "gateway-1\ngateway-2\n");
        self.ferrypost
            .says("destinations")
            .await
            .ended(0)
            .contains(&["source", "target", "imap"]);
    }

    /// A client is there and is seen; the plan, the move, and its traces.
    async fn an_account_moves(&self) {
        let (account, password) = (&self.account, &self.password);
        let client = session(&self.world.imaps(0), account, password)
            .await
            .unwrap();
        self.ferrypost
            .says(&format!("sessions {account}"))
            .await
            .ended(0)
            .contains(&["relaying", "gateway-1"]);

        // Step 6: the plan, the move, its traces, and the way back.
        let plan = self
            .ferrypost
            .says(&format!("migrate {account} --to target --dry-run"))
            .await
            .ended(0);
        plan.contains(&[
            "source -> target",
            "closes:         1 imap sessions on gateway-1",
            "residual risk:",
        ]);
        let moved = self.ferrypost
            .says(&format!(
                "migrate {account} --to target --from source --request-id tour --reason tour --label wave=1"
            ))
            .await
            .ended(0);
        moved.contains(&["residual risk:", "SUCCEEDED"]);
        drop(client);
        assert_eq!(
            landing(&self.world.imaps(1), account, password)
                .await
                .unwrap(),
            "target"
        );
        let again = self
            .ferrypost
            .says(&format!(
                "migrate {account} --to target --from source --request-id tour -o short"
            ))
            .await
            .ended(0);
        let id = again
            .out
            .trim()
            .strip_prefix("SUCCEEDED ")
            .expect("a move's id")
            .to_owned();
        self.ferrypost
            .says(&format!("watch {id}"))
            .await
            .ended(0)
            .contains(&["SUCCEEDED"]);
        let listed = self
            .ferrypost
            .says(&format!("migrations --account {account} -o json"))
            .await
            .ended(0)
            .json();
        assert_eq!(
            listed["migrations"].as_array().map(Vec::len),
            Some(1),
            "{listed}"
        );
        assert_eq!(listed["migrations"][0]["migrationId"], id);
        let home = self
            .ferrypost
            .says(&format!("placements {account} -o short"))
            .await
            .ended(0);
        assert_eq!(home.out, "target\n");
        let of_wave = self
            .ferrypost
            .says("migrations --label wave=1 -o short")
            .await
            .ended(0);
        assert_eq!(of_wave.out.trim(), id);
        // Everybody who asks is told the same, whatever they ask with.
        let method = "ferrypost.v1.MigrationService/ListMigrations";
        let called = self
            .grpcurl
            .call(method, &json!({ "account": account }))
            .await;
        assert_eq!(without_header(called.unwrap()), without_header(listed));
    }

    async fn it_moves_back(&self) {
        let (account, password) = (&self.account, &self.password);
        let back = self
            .ferrypost
            .says(&format!("rollback {account} -o json"))
            .await
            .ended(0)
            .json();
        assert_eq!(back["state"], "MIGRATION_STATE_SUCCEEDED");
        assert_eq!(
            landing(&self.world.imaps(0), account, password)
                .await
                .unwrap(),
            "source"
        );
        let kicked = self
            .ferrypost
            .says(&format!("kick {account} -o short"))
            .await
            .ended(0);
        assert_eq!(kicked.out, "0\n");
        self.ferrypost
            .says("rewound")
            .await
            .ended(0)
            .contains(&["nothing to decide"]);
        self.ferrypost.says("unlisted -o short").await.ended(0);
    }

    /// When Ferrypost is gone, the source still serves.
    async fn it_is_undone(mut self) {
        self.world.stop_ferrypost().await.unwrap();
        let recipes = Entrances::of_source(&self.world).recipes(&self.account, &self.password);
        for recipe in recipes {
            recipe.follow().await.unwrap();
        }
        let said = self.ferrypost.says("stats").await.ended(1);
        said.contains(&["no control plane answers"]);
        self.world.stop().await.unwrap();
    }
}

#[tokio::test]
async fn the_steps_of_the_walk_through_are_typed_and_called() {
    let day = Day::starts().await;
    day.every_account_resolves_to_the_source().await;
    day.it_is_healthy().await;
    day.an_account_moves().await;
    day.it_moves_back().await;
    day.it_is_undone().await;
}

fn without_header(mut answer: Value) -> Value {
    answer.as_object_mut().expect("an answer").remove("header");
    answer
}

async fn codes_of_what_is_not_begun(ferrypost: &Ferrypost, account: &str) {
    // 64: no meaning, for us or for the control plane.
    for words in [
        "",
        "migrate",
        "migrate alice",
        "stats --token x",
        "watch x --wait soon",
    ] {
        ferrypost.says(words).await.ended(64);
    }
    ferrypost
        .says(&format!("migrate {account} --to nowhere"))
        .await
        .ended(64)
        .contains(&["DESTINATION_UNKNOWN"]);
    // 1: not done, and nothing changed.
    ferrypost
        .says("watch 00000000000000000000000000000000")
        .await
        .ended(1)
        .contains(&["MIGRATION_NOT_FOUND"]);
    let boot = "0".repeat(26);
    ferrypost
        .says(&format!("expel gateway-9 --boot {boot} --reason gone"))
        .await
        .ended(1)
        .contains(&["DATA_PLANE_NOT_FOUND"]);
    // 0: the other one answers, and this can wait.
    let with_one_that_is_away = Ferrypost {
        endpoint: format!("{},http://127.0.0.1:1", ferrypost.endpoint),
        token_file: ferrypost.token_file.clone(),
    };
    with_one_that_is_away
        .says("check")
        .await
        .ended(0)
        .contains(&[
            "!   those between",
            "http://127.0.0.1:1/: it could not be looked at",
        ]);
    let stranger = Ferrypost {
        endpoint: ferrypost.endpoint.clone(),
        token_file: None,
    };
    stranger
        .says("stats")
        .await
        .ended(1)
        .contains(&["CREDENTIALS_REQUIRED"]);
    // 73: a guard.
    let guarded = format!("migrate {account} --to target --from target");
    ferrypost
        .says(&guarded)
        .await
        .ended(73)
        .contains(&["SOURCE_MISMATCH"]);
}

/// Clients are shown one that ends soon, and then one that has ended.
async fn certificates_of_listeners_are_looked_at(world: &World, ferrypost: &Ferrypost) {
    ferrypost.says("check --wait 1m").await.ended(0);
    let authority = Authority::new("a test's own").unwrap();
    let config = world.data_planes()[0].plane.config();
    let folder = config.parent().unwrap().join("tls");
    let five_days = Duration::from_hours(5 * 24);
    let soon = authority.server_ending_in(five_days).unwrap();
    let ended = authority.expired_server().unwrap();
    for (shown, code, said) in [(soon, 0, " ends in 4 days"), (ended, 79, " has ended")] {
        shown.write(&folder, "mail").unwrap();
        let found = eventually("it is told", SOON, || async {
            match ferrypost.says("check -o short").await {
                found if found.out.contains(said) => Ok(found),
                found => Err(format!("{found:?}")),
            }
        });
        found.await.unwrap().ended(code);
    }
    let renewed = authority.server().unwrap();
    renewed.write(&folder, "mail").unwrap();
}

async fn codes_of_what_nobody_waits_for_or_can_write(ferrypost: &Ferrypost, id: &str) {
    // 130: whoever does not want to wait is told the same.
    for signal in ["INT", "TERM"] {
        let watching = ferrypost.command(&format!("watch {id} -o short"));
        let watched = said_while(watching, async |process| {
            shell(&format!("kill -{signal} {process}")).await;
        })
        .await;
        watched
            .ended(130)
            .contains(&[&format!("the move {id} goes on"), "ferrypost abort"]);
    }
    // 125: a file that is not whole is not taken for one that is.
    let mut placements = ferrypost.command("placements");
    let onto_a_full_disk = placements
        .stdout(File::create("/dev/full").unwrap())
        .spawn();
    let said = onto_a_full_disk.unwrap().wait_with_output().await.unwrap();
    Said::of(&said)
        .ended(125)
        .contains(&["could not be written"]);
}

async fn codes_of_a_request_id_that_was_used(ferrypost: &Ferrypost, account: &str) {
    let order = format!("migrate {account} --to target --request-id once");
    for _ in 0..2 {
        ferrypost
            .says(&order)
            .await
            .ended(0)
            .contains(&["SUCCEEDED"]);
    }
    // 73: what was done once is not done again, and no longer so.
    let back = ferrypost.says(&format!("rollback {account}")).await;
    back.ended(0);
    for wait in ["", " --wait 0s"] {
        let again = ferrypost.says(&format!("{order}{wait}")).await.ended(73);
        again.contains(&["it lives at source", "another --request-id"]);
    }
    // 64: a variable that is not set names nothing.
    let unset = ferrypost
        .command("migrate x --to target --request-id")
        .arg("")
        .output()
        .await;
    Said::of(&unset.unwrap()).ended(64);
}

#[tokio::test]
async fn each_way_a_command_may_end_has_its_exit_code() {
    let limits = Limits {
        drain: Duration::from_millis(500),
        close: Duration::from_millis(500),
        ..short_limits()
    };
    let mut world = World::builder().limits(limits).start().await.unwrap();
    let ferrypost = Ferrypost::operator(&world);
    let account = world.accounts()[0].clone();

    codes_of_what_is_not_begun(&ferrypost, &account).await;
    certificates_of_listeners_are_looked_at(&world, &ferrypost).await;

    // 79 and 124: a data plane is gone.
    world.data_plane(1).kill();
    eventually("the data plane is missed", SOON, || async {
        match ferrypost.says("check").await {
            said if said.code == 79 => Ok(said),
            said => Err(format!("{said:?}")),
        }
    })
    .await
    .unwrap()
    .contains(&["!!  every data plane serves", "gateway-2", "hint:"]);
    ferrypost
        .says("check --wait 3s -o short")
        .await
        .ended(124)
        .contains(&["gateway-2: does not answer"]);
    // A move waits for it, unfenced, and says so; ended by hand, the account stays where it is.
    let waited = ferrypost
        .says(&format!(
            "migrate {account} --to target --request-id slow --wait 3s -o short"
        ))
        .await
        .ended(124);
    waited.contains(&["gateway-2", "goes on"]);
    let id = waited.out.split_whitespace().last().unwrap().to_owned();
    codes_of_what_nobody_waits_for_or_can_write(&ferrypost, &id).await;
    ferrypost
        .says(&format!("abort {id} --reason enough"))
        .await
        .ended(0);
    // 74: asked again, the same intention has the same outcome.
    let again = format!("migrate {account} --to target --request-id slow -o short");
    ferrypost
        .says(&again)
        .await
        .ended(74)
        .contains(&["the account stays at source"]);
    ferrypost
        .says(&format!("watch {id} -o short"))
        .await
        .ended(74);
    let home = ferrypost
        .says(&format!("explain {account} -o short"))
        .await
        .ended(0);
    assert_eq!(home.out, "source\n");

    // Of a wave the same: who has waited for all learns that one stays.
    let wave = format!("migrate {account} --to target --wait 0s --label wave=1 -o short");
    let begun = ferrypost.says(&wave).await.ended(0);
    let id = begun.out.split_whitespace().last().unwrap().to_owned();
    let watching = ferrypost.command("watch --label wave=1 --until-done");
    let watched = said_while(watching, async |_| {
        ferrypost.says(&format!("abort {id}")).await.ended(0);
    })
    .await;
    watched.ended(74).contains(&["1 of 1 moves"]);
    // The same for whoever comes when all is over.
    let late = ferrypost.says("watch --label wave=1 --until-done").await;
    late.ended(74).contains(&["1 of 1 moves", "ABORTED"]);

    // 0: it will never come back, somebody says; the next move goes through.
    let planes = ferrypost.says("dataplanes -o json").await.ended(0).json();
    let boot = planes["dataPlanes"][1]["boot"]
        .as_str()
        .expect("a boot id")
        .to_owned();
    ferrypost
        .says(&format!("expel gateway-2 --boot {boot} --reason gone"))
        .await
        .ended(0)
        .contains(&["expelled"]);
    codes_of_a_request_id_that_was_used(&ferrypost, &account).await;
    world.stop().await.unwrap();
}

/// The order is written, and its answer never comes.
#[tokio::test]
async fn an_answer_that_is_lost_is_an_unknown_outcome_and_a_repeat_joins_what_was_begun() {
    let mut world = World::builder()
        .data_planes(1)
        .limits(short_limits())
        .control_plane_env(FAILPOINTS, "copying.after=kill")
        .start()
        .await
        .unwrap();
    let account = world.accounts()[0].clone();
    let ferrypost = Ferrypost::operator(&world);
    let order = format!("migrate {account} --to target");
    let lost = ferrypost.says(&order).await.ended(78);
    lost.contains(&[
        "the answer was lost",
        "repeat the same command with --request-id ",
    ]);
    let id = lost
        .err
        .lines()
        .find_map(|line| line.strip_prefix("request id: "))
        .expect("an id");

    world.control_plane(0).wait(SOON).await.unwrap();
    world.control_plane(0).set_env(FAILPOINTS, "");
    world.control_plane(0).start().unwrap();
    world.wait_for_leader(0).await.unwrap();
    let again = ferrypost
        .says(&format!("{order} --request-id {id} -o short"))
        .await
        .ended(0);
    assert!(again.out.starts_with("SUCCEEDED "), "{again:?}");
    let listed = ferrypost.says("migrations -o short").await.ended(0);
    assert_eq!(listed.out.lines().count(), 1, "{listed:?}");
    world.stop().await.unwrap();
}
