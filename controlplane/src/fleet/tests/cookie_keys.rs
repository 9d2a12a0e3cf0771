//! The keys of cookies, told on the stream.

use ferrypost_proto::{
    Versions,
    routing::v1::{Hello, stream_response::Message as Told},
    store::v1::{CookieKey, CookieKeys, Rewound},
};

use super::world::World;
use crate::store::{Txn, keys, value::Stored};

async fn put(world: &World, octet: u8, id: u32) {
    let value = CookieKeys {
        keys: vec![CookieKey {
            id,
            key: vec![octet; 32].into(),
            made_at: None,
        }],
        sealing: id,
        ..CookieKeys::default()
    };
    let txn = Txn::new().put(keys::COOKIE_KEYS, Stored::new(value).bytes());
    world.commit(txn).await;
}

/// The keys that are told next, by their ids and octets; what else is said before them is passed over.
async fn told(peer: &mut super::world::Peer) -> Vec<(u32, u8)> {
    loop {
        if let Told::CookieKeys(keys) = peer.told().await {
            assert_eq!(keys.keys.last().map(|key| key.id), Some(keys.sealing));
            return keys.keys.iter().map(|key| (key.id, key.key[0])).collect();
        }
    }
}

#[tokio::test]
async fn keys_are_told_at_once_and_whenever_they_change() {
    let world = World::new().await;
    put(&world, 7, 1).await;
    let mut peer = world.connect(world.hello("dp")).await.unwrap();
    peer.welcome().await;
    assert_eq!(told(&mut peer).await, [(1, 7)]);
    put(&world, 8, 2).await;
    assert_eq!(told(&mut peer).await, [(2, 8)]);
}

#[tokio::test]
async fn keys_are_told_to_whoever_comes_while_the_store_is_rewound() {
    let world = World::new().await;
    put(&world, 7, 1).await;
    let (peer, position) = world
        .join(Hello {
            contracts: Some(Versions::new(1, 2).into()),
            ..world.hello("dp")
        })
        .await;
    let hello = Hello {
        contracts: world.hello("dp").contracts,
        held: Some(position.into()),
        held_current: true,
        ..peer.hello.clone()
    };
    drop(peer);
    let proof = Stored::new(Rewound::default());
    world
        .commit(Txn::new().put(keys::REWOUND, proof.bytes()))
        .await;
    let mut peer = world.connect(hello).await.unwrap();
    assert!(peer.welcome().await.rewound);
    assert_eq!(told(&mut peer).await, [(1, 7)]);
}

#[tokio::test]
async fn a_data_plane_of_contract_2_is_not_told_what_it_would_not_know() {
    let world = World::new().await;
    put(&world, 7, 1).await;
    let hello = Hello {
        contracts: Some(Versions::new(1, 2).into()),
        ..world.hello("dp")
    };
    let (mut peer, _) = world.join(hello).await;
    put(&world, 8, 2).await;
    // What comes after it is all that is said.
    world
        .account("alice", ferrypost_proto::Phase::Settled)
        .await;
    peer.delta().await;
}
