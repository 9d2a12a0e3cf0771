//! A server with several addresses: the next one is tried as long as no secret was sent.

use std::net::SocketAddr;

use ferrypost_wire::imap::Imap;

use super::backend::{Backend, Manners};
use crate::{
    config::BackendLimits,
    net::{
        dial::{Dialer, tests::endpoint},
        tls_client::ClientTls,
    },
    session::backend::{Caller, OpenFailure, Opened, open},
};

const HOST: &str = "mail.example.org";

/// Opens a connection to a host with these addresses.
async fn opened(addresses: &[SocketAddr]) -> Result<Opened<Imap>, OpenFailure> {
    let dialer = Dialer::new(ClientTls::new(), BackendLimits::default());
    dialer.remember(HOST, 143, addresses);
    open::<Imap>(&dialer, &endpoint(HOST, 143), Caller::Probe).await
}

fn greeting(greeting: &[u8]) -> Backend {
    Backend::start(Manners {
        greeting: greeting.to_vec(),
        ..Manners::default()
    })
}

fn refusing() -> SocketAddr {
    let listener = crate::net::listen("127.0.0.1:0".parse().unwrap()).unwrap();
    listener.local_addr().unwrap()
}

#[tokio::test]
async fn an_address_that_refuses_or_is_busy_is_passed_over() {
    let (busy, well) = (greeting(b"* BYE too many\r\n"), greeting(b"* OK ready\r\n"));
    let opened = opened(&[refusing(), busy.address, well.address]).await;
    assert_eq!(opened.ok().unwrap().address, well.address);
    let connections = |backend: &Backend| backend.seen.count(&backend.seen.connections);
    assert_eq!((connections(&busy), connections(&well)), (1, 1));
}

#[tokio::test]
async fn a_server_that_breaks_the_rules_breaks_them_at_all_its_addresses() {
    let (foreign, well) = (greeting(b"220 smtp\r\n"), greeting(b"* OK ready\r\n"));
    let failure = opened(&[foreign.address, well.address])
        .await
        .err()
        .unwrap();
    assert_eq!(failure.address, Some(foreign.address));
    assert_eq!(well.seen.count(&well.seen.connections), 0);
}

#[tokio::test]
async fn each_address_is_tried_once() {
    let busy = [(); 2].map(|()| greeting(b"* BYE too many\r\n"));
    let addresses = busy.each_ref().map(|backend| backend.address);
    let failure = opened(&addresses).await.err().unwrap();
    assert_eq!(failure.address, Some(addresses[1]));
    for backend in &busy {
        assert_eq!(backend.seen.count(&backend.seen.connections), 1);
    }
}
