//! What a data plane holds while an operator resolves a restore (G16).

use ferrypost_proto::routing::v1::{
    Command, Doubt, HoldDoubts, SnapshotChunk, command::Command as Asked,
    command_result::Result as Said, stream_request::Message as Up,
    stream_response::Message as Down,
};
use ferrypost_routing::testing::*;

use super::scripted::{Served, World, welcome};
use crate::{net::CloseProof, registry::Admission};

/// A stream under `rewound` that shows what the restored store holds.
async fn compared(world: &mut World, stored: SnapshotChunk) -> Served {
    let mut stream = world.stream().await;
    stream.hello().await;
    let mut rewound = welcome();
    rewound.rewound = true;
    stream.send(Down::Welcome(rewound)).await;
    let comparison = SnapshotChunk {
        comparison: true,
        ..stored
    };
    stream.send(Down::SnapshotChunk(comparison)).await;
    stream
}

/// Sessions that are left when everything in doubt is to be held, and `also`.
async fn left(stream: &mut Served, also: &[Doubt]) -> u32 {
    left_after(stream, also, false).await
}

/// The same; `more` of them follow.
async fn left_after(stream: &mut Served, also: &[Doubt], more: bool) -> u32 {
    let hold = HoldDoubts {
        also: also.to_vec(),
        more,
    };
    let command = Command {
        command_id: "1".into(),
        command: Some(Asked::HoldDoubts(hold)),
        ..Command::default()
    };
    stream.send(Down::Command(command)).await;
    let said = stream.find(|message| match message {
        Up::CommandResult(said) => said.result,
        _ => None,
    });
    match said.await {
        Said::HeldDoubts(said) => said.sessions_left,
        other => panic!("it holds: {other:?}"),
    }
}

/// An account that another data plane has in doubt.
fn doubt(n: u64, name: &str) -> Doubt {
    let mut said = entry(n, &[name], "source", 4);
    said.home.clear();
    Doubt {
        account_id: said.account_id.clone(),
        held: Some(said),
        stored: None,
    }
}

#[tokio::test(start_paused = true)]
async fn what_another_has_in_doubt_is_drained_before_it_counts_as_held() {
    let mut world = World::new();
    let alice = || entry(1, &["alice"], "source", 4);
    drop(world.synced(chunk(5, vec![alice()])).await);
    let Admission::Routed(mut session) = world.admit("alice") else {
        panic!("nothing is fenced");
    };
    session.exposed();
    let mut stream = compared(&mut world, chunk(3, vec![alice()])).await;
    let also = [doubt(1, "alice")];
    assert_eq!(left(&mut stream, &also).await, 1);
    assert!(matches!(world.admit("alice"), Admission::Held(_)));
    session.closed(CloseProof::EOF);
    assert_eq!(left(&mut stream, &also).await, 0);
}

/// What is told in parts counts as a whole, and stays until the restore is resolved, also on another stream.
#[tokio::test(start_paused = true)]
async fn what_another_has_in_doubt_stays_held_on_every_stream() {
    let mut world = World::new();
    let all = || {
        vec![
            entry(1, &["alice"], "source", 4),
            entry(2, &["bob"], "source", 4),
        ]
    };
    drop(world.synced(chunk(5, all())).await);
    let mut stream = compared(&mut world, chunk(3, all())).await;
    left_after(&mut stream, &[doubt(1, "alice")], true).await;
    assert!(
        matches!(world.admit("alice"), Admission::Routed(_)),
        "not yet"
    );
    drop(stream);
    let mut stream = compared(&mut world, chunk(3, all())).await;
    left(&mut stream, &[doubt(2, "bob")]).await;
    for name in ["alice", "bob"] {
        assert!(matches!(world.admit(name), Admission::Held(_)), "{name}");
    }
    drop(stream);
    let mut stream = compared(&mut world, chunk(3, all())).await;
    left(&mut stream, &[]).await;
    for name in ["alice", "bob"] {
        assert!(matches!(world.admit(name), Admission::Held(_)), "{name}");
    }
    drop(stream);
    drop(world.synced(chunk(9, all())).await);
    assert!(matches!(world.admit("alice"), Admission::Routed(_)));
}

/// Not even what nobody has in doubt who is asked: somebody may come who knows better.
#[tokio::test(start_paused = true)]
async fn who_has_left_serves_nobody_while_others_resolve_a_restore() {
    let both = || {
        vec![
            entry(1, &["alice"], "source", 4),
            entry(2, &["bob"], "source", 4),
        ]
    };
    let mut world = World::left_with(chunk(5, both())).await;
    let mut stream = compared(&mut world, chunk(3, both())).await;
    assert_eq!(left(&mut stream, &[doubt(1, "alice")]).await, 0);
    for name in ["alice", "bob"] {
        assert!(matches!(world.admit(name), Admission::NoTable), "{name}");
    }
    drop(stream);
    drop(world.synced(chunk(9, both())).await);
    assert!(matches!(world.admit("bob"), Admission::Routed(_)));
}

#[tokio::test(start_paused = true)]
async fn where_the_rules_have_changed_since_the_backup_everybody_is_closed_and_counted() {
    let mut world = World::new();
    drop(world.synced(chunk(5, vec![])).await);
    let Admission::Routed(mut session) = world.admit("alice") else {
        panic!("nothing is fenced");
    };
    session.exposed();
    let mut stored = chunk(3, vec![]);
    if let Some(config) = &mut stored.config {
        config.default_destination = "third".into();
    }
    let mut stream = compared(&mut world, stored).await;
    assert_eq!(left(&mut stream, &[]).await, 1);
    assert!(matches!(world.admit("alice"), Admission::NoTable));
    session.closed(CloseProof::EOF);
    assert_eq!(left(&mut stream, &[]).await, 0);
    drop(stream);

    // Resolved: a snapshot above everything is taken over.
    drop(world.synced(chunk(9, vec![])).await);
    assert!(matches!(world.admit("alice"), Admission::Routed(_)));
}
