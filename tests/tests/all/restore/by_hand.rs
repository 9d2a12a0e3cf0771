//! A backup and a restore as the README says it, with the commands that it shows, while users go on logging in.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use ferrypost_tests::story::{SOON, landing, short_limits};
use ferrypost_tests::tools::{repository, tool};
use ferrypost_tests::wait::eventually;
use ferrypost_tests::world::{StoreKind, World};
use serde_json::Value;
use tokio::process::Command;
use tokio::task::JoinHandle;
use tokio::time::sleep;

use super::{copy, lands_until, moves, start_store, stop_store, store, until_rewound};

/// Logs an account in on a gateway, again and again, and remembers every server that let it in.
struct Users {
    enough: Arc<AtomicBool>,
    seen: Vec<JoinHandle<BTreeSet<String>>>,
}

impl Users {
    fn of(world: &World, accounts: &[String]) -> Self {
        let enough = Arc::new(AtomicBool::new(false));
        let each = accounts
            .iter()
            .flat_map(|account| (0..2).map(move |n| (n, account)));
        let seen = each.map(|(n, account)| {
            let (connect, account) = (world.imaps(n), account.clone());
            let (enough, password) = (Arc::clone(&enough), world.password().to_owned());
            tokio::spawn(async move {
                let mut seen = BTreeSet::new();
                while !enough.load(Ordering::Relaxed) {
                    seen.extend(landing(&connect, &account, &password).await.ok());
                    sleep(Duration::from_millis(50)).await;
                }
                seen
            })
        });
        let seen = seen.collect();
        Self { enough, seen }
    }

    /// Every server that anybody has been on.
    async fn servers(self) -> BTreeSet<String> {
        self.enough.store(true, Ordering::Relaxed);
        let mut all = BTreeSet::new();
        for seen in self.seen {
            all.extend(seen.await.unwrap());
        }
        all
    }
}

/// The command of the README's recipe that says `word`, in one line.
fn command(word: &str) -> String {
    let readme = std::fs::read_to_string(repository().join("README.md")).unwrap();
    let recipe = readme.split("**6. Back up, and restore.**").nth(1).unwrap();
    let recipe = recipe.split("\n## ").next().unwrap();
    let shown: Vec<_> = recipe
        .lines()
        .filter_map(|line| line.strip_prefix("    "))
        .collect();
    let joined = shown.join("\n").replace("\\\n", " ");
    let mut lines = joined.lines().filter(|line| line.contains(word));
    let found = lines.next().unwrap().to_owned();
    assert_eq!(lines.next(), None, "{word} is said once");
    found
}

/// Runs a command of the README in this world.
async fn run(world: &mut World, command: &str) -> String {
    let operators = world.control_planes()[0].operators().to_string();
    let command = command.replace("127.0.0.1:9080", &operators);
    let token = std::fs::read_to_string(world.operator_token_file()).unwrap();
    let bearer = format!("authorization: Bearer {}", token.trim());
    let tools = tool("grpcurl").unwrap().parent().unwrap().to_owned();
    let path = std::env::var("PATH").unwrap();
    let endpoint = world.etcd().map(|etcd| etcd.endpoint());
    let ended = Command::new("/bin/sh")
        .args(["-e", "-c", &command])
        .current_dir(store(world).parent().unwrap())
        .env("PATH", format!("{}:{path}", tools.display()))
        .env("ETCDCTL_ENDPOINTS", endpoint.unwrap_or_default())
        .env("ETCDCTL_API", "3")
        .env("T", &bearer)
        .env("A", &bearer)
        .kill_on_drop(true)
        .output()
        .await
        .unwrap();
    let said = String::from_utf8_lossy(&ended.stdout).into_owned();
    let complaints = String::from_utf8_lossy(&ended.stderr);
    assert!(ended.status.success(), "{command}\n{said}\n{complaints}");
    said
}

/// As the README says it for this store.
async fn back_up(world: &mut World) {
    if world.etcd().is_some() {
        // While everything runs.
        run(world, &command("etcdctl snapshot save")).await;
    } else {
        stop_store(world).await;
        run(world, &command("cp -a")).await;
        start_store(world).await;
        world.wait_for_leader(0).await.unwrap();
    }
}

async fn restore(world: &mut World) {
    let store = store(world);
    let beside = |name: &str| -> PathBuf { store.with_file_name(name) };
    if let Some(etcd) = world.etcd() {
        etcd.restore(&beside("ferrypost.snapshot")).await.unwrap();
    } else {
        let backup: &Path = &beside("ferrypost.redb.backup");
        copy(backup, &store).await;
    }
}

async fn as_the_readme_says(kind: StoreKind) {
    let mut world = World::builder()
        .store(kind)
        .limits(short_limits())
        .numbered_accounts(3)
        .data_planes(2)
        .start()
        .await
        .unwrap();
    let operator = world.operator(0);
    let accounts = world.accounts().to_vec();
    let (moved, stayed) = accounts.split_at(2);
    back_up(&mut world).await;
    for account in moved {
        moves(&operator, account).await;
    }
    let users = Users::of(&world, moved);

    // A power cut, and the disk of the store is lost with it.
    for n in 0..2 {
        world.data_plane(n).kill();
    }
    stop_store(&mut world).await;
    restore(&mut world).await;
    start_store(&mut world).await;
    for n in 0..2 {
        world.data_plane(n).start().unwrap();
    }
    until_rewound(&operator).await;

    let look = command("GetRewound");
    for _ in 0..2 {
        lands_until(&world, 1, &stayed[0], "source").await;
    }
    let mut list = Value::Null;
    while list["dataPlanes"].as_array().map_or(0, Vec::len) < 2 {
        list = serde_json::from_str(&run(&mut world, &look).await).unwrap();
        sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(list["inDoubt"], "2", "{list}");
    let named = list["accounts"].to_string();
    assert!(
        moved.iter().all(|account| named.contains(account)),
        "{list}"
    );

    let resolved = run(&mut world, &command("ResolveRewound")).await;
    let resolved: Value = serde_json::from_str(&resolved).unwrap();
    assert_eq!(resolved["accounts"], "2", "{resolved}");
    for n in 0..2 {
        for account in moved {
            lands_until(&world, n, account, "target").await;
        }
    }
    moves(&operator, &stayed[0]).await;
    let nowhere_else = BTreeSet::from(["target".to_owned()]);
    assert_eq!(users.servers().await, nowhere_else);
    eventually("nothing is rewound", SOON, || async {
        match operator.get_stats().await {
            Ok(stats) if stats.rewound.is_none() => Ok(()),
            other => Err(format!("{other:?}")),
        }
    })
    .await
    .unwrap();
    world.stop().await.unwrap();
}

#[tokio::test]
async fn the_recipe_of_the_readme_sends_nobody_back_on_the_embedded_store() {
    as_the_readme_says(StoreKind::Embedded).await;
}

#[tokio::test]
async fn the_recipe_of_the_readme_sends_nobody_back_on_etcd() {
    as_the_readme_says(StoreKind::Etcd).await;
}
