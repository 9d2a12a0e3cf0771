//! One connection to a server: driven by hyper, ended by us.
//!
//! Whatever the cause, it ends with our FIN, and then it is read until the server's own end. A request that was sent and
//! not answered is executed all the same, by some servers after a reset too, so that only the server's end says that it
//! is over. Who needs to know it leaves the registration here, and it ends with that proof.
//!
//! While nothing goes on for a while, one of HTTP/1 *rests*: hyper has gone, and its buffers with it, and comes again when
//! the connection is asked for. Most connections that are kept are never used again.
//!
//! With HTTP/2 a FIN beside requests that are under way would prove nothing: many servers answer it with theirs at once,
//! and go on with what they were asked. There the connection takes no more requests, those that it has come to their
//! ends first, and then it says GOAWAY and ends like any other.

use std::{
    future::poll_fn,
    pin::Pin,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    task::{Context, Poll, ready},
    time::Duration,
};

use futures_util::future::BoxFuture;
use tokio::{
    io::AsyncWrite as _,
    sync::{Notify, oneshot},
    time::{Instant, sleep_until, timeout},
};

use super::{
    super::{
        client::Place,
        lent::{Loan, Owes},
    },
    sender::Sender,
};
use crate::{
    net::{
        CloseProof,
        transport::{AnyTransport, Transport as _},
    },
    registry::{CloseReason, OnlyAsked, Proof, SETTLE_TIME, SessionGuard, Told},
};

/// When to look again whether what was said to be sent has left.
const LATER: Duration = Duration::from_millis(500);

/// What the connection's task and those who use it share.
#[derive(Debug)]
pub(in super::super) struct Line {
    state: Mutex<State>,
    /// Wakes whoever drives it; rung by the registration while nothing goes on.
    alarm: Arc<Alarm>,
    /// How long a server may take for its own end, when nothing goes on.
    close: Duration,
    /// It rests when nothing goes on for so long.
    rest: Option<Duration>,
}

/// A fence has told a connection to end with nothing on it. It is said under a lock of the registry's, so that this has
/// nothing whose end would want that lock.
#[derive(Debug, Default)]
struct Alarm {
    changed: Notify,
}

#[derive(Debug)]
struct State {
    /// Exchanges that go on there.
    in_use: usize,
    /// How many may.
    room: usize,
    /// It may be asked for a WebSocket: by an upgrade, or by what an HTTP/2 server has allowed (RFC 8441).
    opens_web_sockets: bool,
    /// Registrations that end with the connection.
    left: Vec<Left>,
    /// Its own, while nothing goes on: with the proof for what went on before, and until when it is kept.
    idle: Option<Idle>,
    /// When whoever drives it looks at it next by himself.
    watched: Option<Instant>,
    /// hyper has gone.
    resting: bool,
    /// Somebody waits for it to come again.
    recalled: Option<oneshot::Sender<Sender>>,
    /// It is to end, and the server is given so long for it.
    end: Option<Duration>,
    /// It is over.
    over: Option<Over>,
}

impl State {
    const fn is_ending(&self) -> bool {
        self.end.is_some() || self.over.is_some()
    }
}

/// How a connection ended: whether the server's own end was seen.
#[derive(Debug, Clone, Copy)]
struct Over(Option<CloseProof>);

/// A registration, which may be left to its connection.
#[derive(Debug)]
pub(in super::super) struct Left {
    pub(in super::super) guard: SessionGuard,
    /// The client's, as long as the server is at it.
    #[expect(dead_code, reason = "held for its end")]
    pub(in super::super) place: Arc<Place>,
    /// What the server was asked changes nothing, so that its end is waited for and not needed.
    pub(in super::super) only_asks: bool,
}

#[derive(Debug)]
struct Idle {
    guard: SessionGuard,
    last: Proof,
    /// The way to hyper, of HTTP/1 and while it is there: its channel has ten kilobytes.
    sender: Option<Sender>,
    since: Instant,
    until: Instant,
}

/// How a connection is asked that was taken into use.
pub(super) enum Awake {
    /// By the lease's own way, as others ask it at the same time.
    Shared,
    /// By this one.
    By(Sender),
    /// It rests, and is to be recalled.
    Resting,
}

/// What whoever drives a connection does next.
enum Next {
    /// Ends it. The server has so long for its own end.
    End(Duration),
    /// Lets hyper go.
    Rest,
    /// Has hyper come again.
    Recall(oneshot::Sender<Sender>),
}

impl Line {
    /// A connection with one exchange, and room for no other. `close`: how long a server may take for its own end, when
    /// nothing goes on. `rest`: it rests when nothing goes on for so long.
    pub(super) fn new(close: Duration, rest: Option<Duration>) -> Arc<Self> {
        Arc::new(Self {
            state: Mutex::new(State {
                in_use: 1,
                room: 1,
                opens_web_sockets: true,
                left: Vec::new(),
                idle: None,
                watched: None,
                resting: false,
                recalled: None,
                end: None,
                over: None,
            }),
            alarm: Arc::default(),
            close,
            rest,
        })
    }

    /// What an HTTP/2 server has said of what it takes.
    pub(super) fn learn(&self, room: usize, opens_web_sockets: bool) {
        let mut state = self.lock();
        state.room = room;
        state.opens_web_sockets = opens_web_sockets;
    }

    /// Whether a WebSocket may be asked for.
    pub(in super::super) fn opens_web_sockets(&self) -> bool {
        self.lock().opens_web_sockets
    }

    /// Ends the connection. The server is given so long for its own end; of several times the shortest.
    pub(in super::super) fn end(&self, limit: Duration) {
        let mut state = self.lock();
        let shorter = state.end.map_or(limit, |end| end.min(limit));
        state.end = Some(shorter);
        drop(state);
        self.alarm.changed.notify_one();
    }

    /// Leaves a registration here, to end with the connection.
    pub(in super::super) fn leave(&self, left: Left) {
        let mut state = self.lock();
        match state.over {
            None => state.left.push(left),
            Some(Over(proof)) => {
                drop(state);
                left.conclude(proof);
            }
        }
    }

    /// One exchange less. False: it is the last one, and goes on as it was.
    pub(super) fn is_left_by_one(&self) -> bool {
        let mut state = self.lock();
        let is_shared = state.in_use > 1;
        if is_shared {
            state.in_use -= 1;
        }
        is_shared
    }

    /// Keeps the connection while nothing goes on. False: it is to end, or is over.
    pub(super) fn keep(
        &self,
        guard: SessionGuard,
        last: Proof,
        sender: Option<Sender>,
        limit: Duration,
    ) -> bool {
        guard.alarm(Arc::clone(&self.alarm) as Arc<dyn Told>);
        let mut state = self.lock();
        state.in_use = 0;
        if guard.close_reason().is_some() {
            // Before there was anything to alarm.
            state.end.get_or_insert(self.close);
        }
        if state.is_ending() {
            drop(state);
            self.alarm.changed.notify_one();
            guard.closed(last);
            return false;
        }
        let since = Instant::now();
        let due = since + self.rest.unwrap_or(limit).min(limit);
        let is_watched = state.watched.is_some_and(|watched| watched <= due);
        state.idle = Some(Idle {
            guard,
            last,
            sender,
            since,
            until: since + limit,
        });
        drop(state);
        // Else it is looked at early enough, as with each of many requests.
        if !is_watched {
            self.alarm.changed.notify_one();
        }
        true
    }

    /// Has hyper come again, if it has gone. `None`: it comes no more.
    pub(super) async fn recall(&self) -> Option<Sender> {
        let back = {
            let mut state = self.lock();
            if state.is_ending() || !state.resting {
                return None;
            }
            let (recalled, back) = oneshot::channel();
            state.recalled = Some(recalled);
            back
        };
        self.alarm.changed.notify_one();
        back.await.ok()
    }

    /// Takes it into use for one exchange more. `None`: it is to end, or is over, or has no room.
    pub(super) fn wake(&self) -> Option<Awake> {
        let mut state = self.lock();
        if state.is_ending() || state.in_use >= state.room {
            return None;
        }
        state.in_use += 1;
        let is_resting = state.resting;
        let idle = state.idle.take();
        drop(state);
        let mut sender = None;
        if let Some(idle) = idle {
            sender = idle.sender;
            idle.guard.closed(idle.last);
        }
        Some(match sender {
            Some(sender) => Awake::By(sender),
            None if is_resting => Awake::Resting,
            None => Awake::Shared,
        })
    }

    /// Whether one exchange more may go on there.
    pub(super) fn has_room(&self) -> bool {
        let state = self.lock();
        state.in_use < state.room
    }

    /// Whether nothing goes on there.
    pub(super) fn is_idle(&self) -> bool {
        self.lock().idle.is_some()
    }

    /// Whether it is to end, or is over.
    pub(super) fn is_ending(&self) -> bool {
        self.lock().is_ending()
    }

    /// How long the server has, if it was told to end.
    fn limit(&self) -> Option<Duration> {
        self.lock().end
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Resolves when there is something to do: the connection is to end, told to or kept for long enough, or may rest,
    /// or hyper is wanted again.
    async fn next(&self, owes: &Owes) -> Next {
        loop {
            let changed = self.alarm.changed.notified();
            match self.look(owes) {
                Ok(next) => return next,
                Err(None) => changed.await,
                Err(Some(due)) => tokio::select! {
                    biased;
                    () = changed => {}
                    () = sleep_until(due) => {}
                },
            }
        }
    }

    /// What there is to do, or when to look again if nothing is said before.
    fn look(&self, owes: &Owes) -> Result<Next, Option<Instant>> {
        let mut state = self.lock();
        state.watched = None;
        let is_told = |idle: &Idle| idle.guard.close_reason().is_some();
        if state.idle.as_ref().is_some_and(is_told) {
            state.end.get_or_insert(self.close);
        }
        if let Some(limit) = state.end {
            state.recalled = None;
            return Ok(Next::End(limit));
        }
        if let Some(recalled) = state.recalled.take() {
            state.resting = false;
            return Ok(Next::Recall(recalled));
        }
        let Some(idle) = &state.idle else {
            return Err(None);
        };
        let (since, until, now) = (idle.since, idle.until, Instant::now());
        if until <= now {
            state.end = Some(self.close);
            return Ok(Next::End(self.close));
        }
        let rest = self.rest.filter(|_| !state.resting);
        let rest = rest.map(|rest| match since + rest {
            // A request's end, of which hyper has said that it was sent, or as much of it as its server has not taken.
            due if due <= now && owes.anything() => now + LATER,
            due => due,
        });
        if rest.is_some_and(|rest| rest <= now) {
            state.resting = true;
            if let Some(idle) = &mut state.idle {
                idle.sender = None;
            }
            return Ok(Next::Rest);
        }
        let due = rest.map_or(until, |rest| rest.min(until));
        state.watched = Some(due);
        Err(Some(due))
    }

    /// Waits without hyper for what comes next, and for the server.
    async fn rested(&self, transport: &mut AnyTransport) -> Next {
        let owes = Owes::default();
        tokio::select! {
            biased;
            next = self.next(&owes) => next,
            () = unasked(transport) => self.ends_by_itself(),
        }
    }

    /// The server has ended it, or says what it was not asked. Where nothing goes on a fence does not wait for it longer
    /// than for any other.
    fn ends_by_itself(&self) -> Next {
        let limit = if self.is_idle() {
            self.close
        } else {
            SETTLE_TIME
        };
        self.end(limit);
        Next::End(limit)
    }

    fn conclude(&self, proof: Option<CloseProof>) {
        let (left, idle) = {
            let mut state = self.lock();
            state.over = Some(Over(proof));
            state.recalled = None;
            (std::mem::take(&mut state.left), state.idle.take())
        };
        for left in left {
            left.conclude(proof);
        }
        if let Some(idle) = idle {
            // All that was ever asked on it is answered, whether its server ends it or not.
            idle.guard.closed(proof.map_or(idle.last, Proof::from));
        }
    }
}

impl Left {
    fn conclude(self, proof: Option<CloseProof>) {
        match proof {
            Some(proof) => self.guard.closed(proof),
            None if self.only_asks => self.guard.closed(OnlyAsked::by_its_kind()),
            // Counted as unconfirmed, if anything was sent for it.
            None => drop(self.guard),
        }
    }
}

impl Told for Alarm {
    fn told(self: Arc<Self>, _: CloseReason) {
        self.changed.notify_one();
    }
}

/// hyper's part in a connection.
pub(super) struct Driven {
    pub(super) connection: BoxFuture<'static, ()>,
    pub(super) loan: Loan<AnyTransport>,
}

/// Has hyper speak on a connection on which nothing goes on.
pub(super) type Begin =
    Box<dyn Fn(AnyTransport) -> BoxFuture<'static, Option<(Sender, Driven)>> + Send + Sync>;

/// Drives a connection to its end. `again`: how hyper comes again, where it may go.
pub(super) async fn run(line: Arc<Line>, driven: Driven, again: Option<Begin>) {
    let proof = match drive(&line, driven, again).await {
        // A tunnel had it meanwhile, perhaps, and was told to end.
        Some((transport, limit)) => part(transport, line.limit().unwrap_or(limit)).await,
        None => None,
    };
    line.conclude(proof);
}

/// Until it is to end. The connection, if it has not been lost, and how long the server has.
async fn drive(
    line: &Line,
    mut driven: Driven,
    again: Option<Begin>,
) -> Option<(AnyTransport, Duration)> {
    loop {
        let Driven {
            mut connection,
            loan,
        } = driven;
        let owes = loan.owes();
        let next = tokio::select! {
            // hyper first: what it has not seen yet is not to be lost with it.
            biased;
            // The server has ended it, or hyper has: somebody went away.
            () = &mut connection => line.ends_by_itself(),
            next = line.next(&owes) => next,
        };
        drop(connection);
        // Streams that are under way go on to their ends.
        let mut transport = loan.returned().await?;
        let next = match next {
            Next::Rest => line.rested(&mut transport).await,
            next => next,
        };
        driven = match (next, &again) {
            (Next::Recall(recalled), Some(begin)) => {
                let (sender, anew) = begin(transport).await?;
                // Who asked may have gone: then hyper goes, too.
                _ = recalled.send(sender);
                anew
            }
            (Next::End(limit), _) => return Some((transport, limit)),
            (Next::Rest | Next::Recall(_), _) => return Some((transport, line.close)),
        };
    }
}

/// Resolves when a server that was asked nothing says something, or ends.
async fn unasked(transport: &mut AnyTransport) {
    let mut octet = [0];
    poll_fn(|cx: &mut Context<'_>| {
        if ready!(transport.poll_readable(cx)).is_err() {
            return Poll::Ready(());
        }
        // What is no octet of its own, as a ticket of TLS, is taken on the way.
        transport.poll_some(cx, &mut octet).map(drop)
    })
    .await;
}

/// Ends our side, and waits for the server's end.
async fn part(mut transport: AnyTransport, limit: Duration) -> Option<CloseProof> {
    // A part of a request, perhaps, that is not to become whole.
    transport.drop_unsent();
    let parted = async {
        // What fails here ends the writing and proves nothing: the server may be reading still.
        _ = poll_fn(|cx| Pin::new(&mut transport).poll_shutdown(cx)).await;
        poll_fn(|cx| transport.poll_peer_closed(cx)).await
    };
    timeout(limit, parted).await.ok()?.ok()
}
