//! One client's connection, from its handshake to its end.

use std::{
    convert::Infallible,
    future::poll_fn,
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    task::{Context, Poll, ready},
    time::Duration,
};

use ferrypost_http::{
    fields::Peer,
    guard::{Guard, MAX_HEAD},
};
use ferrypost_wire::{ClientFacts, Introduction, SessionReference, TlsFacts};
use http::Request;
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::time::{sleep, timeout};

use super::{
    Web,
    busy::Busy,
    exchange,
    guarded::{Guarded, Watch},
    lent::{Owes, lend},
    streams::Streams,
    upstream::Upstreams,
};
use crate::{
    listener::Arrival,
    net::{
        dial::H2,
        h2::{SEND_BUFFER, STREAM_WINDOW, STREAMS},
        leg::Leg,
        proxy::Ends,
        tasks::{Spawner, Tasks},
        tls_server::{HandshakeError, Secured, ServerTls},
        transport::{AnyTransport, Transport as _},
    },
    session::relay::LINGER,
};

/// How often an HTTP/2 client that says nothing is asked whether it is there, and how long it may take to say so: a
/// phone in a tunnel keeps its event stream.
const PING: Duration = Duration::from_mins(2);
const PONG: Duration = Duration::from_mins(1);

/// One of the exchanges that a client may have, until its server is done with it.
#[derive(Debug)]
pub(super) struct Place(Arc<AtomicUsize>);

impl Drop for Place {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What the exchanges of one connection share.
pub(super) struct Client {
    pub(super) web: Arc<Web>,
    pub(super) listener: Arc<str>,
    pub(super) reference: SessionReference,
    pub(super) ends: Ends,
    pub(super) peer: Peer,
    pub(super) tls: TlsFacts,
    pub(super) busy: Arc<Busy>,
    pub(super) upstreams: Upstreams,
    /// Looked after where the client speaks HTTP/2.
    pub(super) streams: Option<Streams>,
    /// How many of its exchanges have no end yet, whether anybody waits for that or not.
    places: Arc<AtomicUsize>,
    /// Runs what outlives an exchange.
    pub(super) tasks: Spawner,
    /// Why nothing more comes.
    pub(super) watch: Arc<Watch>,
}

impl Client {
    /// A place for one exchange more. `None`: servers are still at as much as it may ask at once, and as much again; it
    /// has reset what they were asked, and asks for more.
    pub(super) fn place(&self) -> Option<Arc<Place>> {
        let taken = self.places.fetch_add(1, Ordering::Relaxed);
        let place = Arc::new(Place(Arc::clone(&self.places)));
        (taken < 2 * STREAMS as usize).then_some(place)
    }

    /// What servers are told of the client. `None`: it has gone round in circles.
    pub(super) fn facts(&self) -> Option<ClientFacts> {
        Some(ClientFacts {
            peer: self.ends.peer,
            local: self.ends.local,
            tls: Some(self.tls.clone()),
            session: self.reference.clone(),
            hops: self.ends.hops?,
            introduction: Introduction::default(),
        })
    }
}

/// Serves one client.
pub(super) async fn serve(
    web: Arc<Web>,
    tls: ServerTls,
    listener: Arc<str>,
    arrival: Arrival,
    peer: Peer,
) {
    let Arrival {
        stream,
        ends,
        newcomer,
    } = arrival;
    let limit = web.services.limits.preauth.handshake;
    let leg = Leg::new(stream, 1);
    let shaken = timeout(limit, Box::pin(tls.accept(leg, &[])));
    let stopping = web.services.stopping.clone();
    let secured = match stopping.run_until_cancelled(shaken).await {
        Some(Ok(Ok(secured))) => secured,
        Some(Ok(Err(error))) => return not_secured(&listener, &ends, Some(&error)),
        Some(Err(_)) => return not_secured(&listener, &ends, None),
        None => return,
    };
    let Secured {
        leg,
        facts,
        protocol,
    } = secured;
    let is_h2 = protocol.is_some_and(|name| name == H2);
    let (transport, _) = leg.into_parts();
    let tasks = Tasks::new();
    let services = &web.services;
    let reference = services.reference();
    let client = Arc::new(Client {
        upstreams: Upstreams::new(
            &services.limits,
            tasks.spawner(),
            Arc::clone(&services.registry),
            (ends.peer, &reference),
        ),
        places: Arc::default(),
        tasks: tasks.spawner(),
        reference,
        web,
        listener,
        ends,
        peer,
        tls: facts,
        streams: is_h2.then(Streams::default),
        busy: Busy::new(),
        watch: Arc::default(),
    });
    drop(newcomer);
    run(&client, transport, tasks, is_h2).await;
}

/// Answers requests until one side is done, and then waits for the servers.
async fn run(client: &Arc<Client>, transport: AnyTransport, mut tasks: Tasks, is_h2: bool) {
    let spawner = tasks.spawner();
    let returned = if is_h2 {
        let spoken = Box::pin(speak_h2(client, transport, spawner));
        tasks.beside(spoken).await
    } else {
        tasks.beside(speak(client, transport)).await
    };
    client.upstreams.end();
    let goodbye = async {
        if let Some(transport) = returned {
            leave(transport).await;
        }
    };
    // Polled for as long as the goodbye takes, and then for as long as any of them takes.
    tasks.beside(goodbye).await;
    poll_fn(|cx| tasks.poll(cx)).await;
}

/// HTTP/1. The connection comes back, if anybody may still be told something on it.
///
/// hyper goes while its client asks nothing, and its buffers with it.
async fn speak(client: &Arc<Client>, mut transport: AnyTransport) -> Option<AnyTransport> {
    let mut guard = Guard::new(MAX_HEAD);
    loop {
        (transport, guard) = match Box::pin(converse(client, (transport, guard))).await? {
            (transport, Since::Over) => return Some(transport),
            (transport, Since::AtRest(guard)) => (transport, guard),
        };
        tokio::select! {
            // What has come is read, also where there was to be nothing more: hyper finds out what it is.
            biased;
            _ = poll_fn(|cx| transport.poll_readable(cx)) => {}
            () = enough(client) => return Some(transport),
        }
    }
}

/// Why nothing more is said for now.
#[derive(Debug)]
enum Since {
    /// Nothing is asked. The guard goes on where it is, whenever something is.
    AtRest(Guard),
    Over,
}

/// HTTP/1 by hyper, until its client rests.
async fn converse(
    client: &Arc<Client>,
    guarded: (AnyTransport, Guard),
) -> Option<(AnyTransport, Since)> {
    let limits = client.web.services.limits.web;
    let guarded = Guarded::new(
        guarded,
        Arc::clone(&client.watch),
        Arc::clone(&client.busy),
        limits.head,
    );
    let (lent, loan) = lend(guarded, limits.stalled);
    let service = service_fn(|request: Request<Incoming>| {
        let client = Arc::clone(client);
        async move { Ok::<_, Infallible>(exchange::serve(&client, request).await) }
    });
    let mut rests = false;
    let outcome = {
        let connection = http1::Builder::new().serve_connection(TokioIo::new(lent), service);
        let mut connection = pin!(connection.with_upgrades());
        let mut enough = pin!(enough(client));
        let mut at_rest = pin!(at_rest(client, loan.owes()));
        let mut overdue = pin!(overdue(client, loan.owes(), limits.head));
        let mut told = false;
        poll_fn(|cx: &mut Context<'_>| {
            loop {
                // First of all: what has come, and has not been read, is no rest.
                if let Poll::Ready(outcome) = connection.as_mut().poll(cx) {
                    return Poll::Ready(Some(outcome));
                }
                if told {
                    // It has something to do after all, or takes it for that: that is its last, and not for ever.
                    rests = false;
                    ready!(overdue.as_mut().poll(cx));
                    return Poll::Ready(None);
                }
                if at_rest.as_mut().poll(cx).is_ready() {
                    rests = true;
                } else {
                    ready!(enough.as_mut().poll(cx));
                }
                told = true;
                // With nothing to do it goes at once.
                connection.as_mut().graceful_shutdown();
            }
        })
        .await
    };
    let (transport, guard) = loan.returned().await?.into_inner();
    let guard = guard.filter(|_| rests);
    let since = guard.map_or(Since::Over, Since::AtRest);
    // Where a body was cut, its client must not be told that this was its end.
    let is_whole = outcome.is_some_and(|outcome| outcome.is_ok());
    is_whole.then_some((transport, since))
}

/// HTTP/2, in which each stream says of itself whether it came to its end.
async fn speak_h2(
    client: &Arc<Client>,
    transport: AnyTransport,
    spawner: Spawner,
) -> Option<AnyTransport> {
    let stalled = client.web.services.limits.web.stalled;
    let (lent, loan) = lend(transport, stalled);
    let answering = Arc::clone(client);
    let service = service_fn(move |request: Request<Incoming>| {
        let client = Arc::clone(&answering);
        async move { Ok::<_, Infallible>(exchange::serve(&client, request).await) }
    });
    {
        let head = u32::try_from(MAX_HEAD).expect("64 KiB");
        let connection = http2::Builder::new(spawner)
            .timer(TokioTimer::new())
            .max_concurrent_streams(STREAMS)
            .initial_stream_window_size(STREAM_WINDOW)
            .initial_connection_window_size(STREAMS * STREAM_WINDOW)
            .max_header_list_size(head)
            .max_send_buf_size(SEND_BUFFER)
            .keep_alive_interval(PING)
            .keep_alive_timeout(PONG)
            .enable_connect_protocol()
            .serve_connection(TokioIo::new(lent), service);
        let mut connection = pin!(connection);
        let mut enough = pin!(enough(client));
        let mut stuck = pin!(end_stuck(client));
        // What is left of a response may lie with hyper until its client takes it.
        let mut overdue = pin!(overdue(client, loan.owes(), stalled));
        let mut told = false;
        poll_fn(|cx: &mut Context<'_>| {
            if !told && enough.as_mut().poll(cx).is_ready() {
                told = true;
                connection.as_mut().graceful_shutdown();
            }
            _ = stuck.as_mut().poll(cx);
            if connection.as_mut().poll(cx).is_ready() {
                return Poll::Ready(());
            }
            if told {
                overdue.as_mut().poll(cx)
            } else {
                Poll::Pending
            }
        })
        .await;
    }
    loan.returned().await
}

/// Resolves when nothing more is to be taken: the process stops, or nothing came for long enough.
async fn enough(client: &Client) {
    let services = &client.web.services;
    tokio::select! {
        () = services.stopping.cancelled() => {}
        () = client.busy.rested_for(services.limits.web.idle) => {}
    }
}

/// Resolves when its client has asked nothing for a while, and nothing is on its way.
async fn at_rest(client: &Client, owes: Owes) {
    let rest = client.web.services.limits.web.rest;
    // From here on, whatever was before: what comes in pieces is not to have hyper come for each.
    sleep(rest).await;
    loop {
        client.busy.rested_for(rest).await;
        let goes_on = client.places.load(Ordering::Relaxed) > 0;
        if client.watch.is_at_rest() && !goes_on && !owes.anything() {
            return;
        }
        sleep(rest).await;
    }
}

/// Resolves when a connection that is at its end has had nothing to do for so long, and does not go. What is on its way has
/// limits of its own (`stalled`).
async fn overdue(client: &Client, owes: Owes, limit: Duration) {
    loop {
        client.busy.rested_for(limit).await;
        if !owes.anything() && client.places.load(Ordering::Relaxed) == 0 {
            return;
        }
        sleep(limit).await;
    }
}

/// Ends responses that are not taken, for as long as it is polled.
async fn end_stuck(client: &Client) {
    if let Some(streams) = &client.streams {
        match streams.tend(client.web.services.limits.web.stalled).await {}
    }
}

/// Says that nothing more comes, and lets the client close first: a close with something of its unread would be a reset,
/// which might overtake the last answer.
async fn leave(mut transport: AnyTransport) {
    let left = async {
        poll_fn(|cx| tokio::io::AsyncWrite::poll_shutdown(Pin::new(&mut transport), cx)).await?;
        poll_fn(|cx| transport.poll_peer_closed(cx)).await
    };
    _ = timeout(LINGER, left).await;
}

/// Load balancers connect all day, and scanners.
fn not_secured(listener: &str, ends: &Ends, error: Option<&HandshakeError>) {
    if let Some(reason) = error {
        tracing::debug!(listener, client = %ends.peer, %reason, "no TLS");
    } else {
        tracing::debug!(listener, client = %ends.peer, "no TLS handshake in time");
    }
}
