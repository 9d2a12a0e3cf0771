//! An exchange that a server may be executing: from before its first octet to the server's last.
//!
//! Its request's body and its response's share it, and whichever ends last ends it. Where both came to their ends it was
//! [`Exchanged`], and the connection is free for another. Where one did not, nobody knows what the server still does:
//! the registration goes over to the connection, which is ended, and ends with it. Of several exchanges on one
//! connection, by HTTP/2, the others go on: there the [`Rest`] of this one is seen to its end.

use std::{
    fmt,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError, Weak,
        atomic::{AtomicU64, Ordering},
    },
    task::Context,
    time::Duration,
};

use futures_util::task::AtomicWaker;
use tokio::{
    sync::Notify,
    time::{Instant, sleep_until},
};

use super::{
    busy::InProgress,
    client::Client,
    failure::Failure,
    record::{Moved, Record},
    rest::{self, Rest},
    upstream::{Lease, Left, Line},
};
use crate::{
    net::tasks::Spawner,
    registry::{CloseReason, Ending, Exchanged, OnlyAsked, SETTLE_TIME, SessionGuard, Told},
};

/// The exchange.
pub(super) struct Running {
    client: Arc<Client>,
    line: Arc<Line>,
    /// Whatever its server does with it changes nothing.
    only_asks: bool,
    /// It is a stream of HTTP/2.
    is_stream: bool,
    limit: Arc<Limit>,
    state: Mutex<State>,
    /// Whoever sends the request's body, to hear that it is over.
    uploading: AtomicWaker,
    /// Octets of the bodies.
    up: AtomicU64,
    down: AtomicU64,
}

struct State {
    /// Gone when it is over.
    on: Option<On>,
    /// The request was sent to its end, and when.
    sent: Option<Instant>,
    /// The response was read to its end.
    read: bool,
    /// Since when its client has a piece of the response to take.
    owed: Option<Instant>,
    /// Since when its server has a piece of the request to take.
    offered: Option<Instant>,
    /// Its client's connection is in use.
    in_progress: Option<InProgress>,
    /// Why the request comes to no end.
    upload: Option<Failure>,
}

struct On {
    left: Left,
    lease: Lease,
    record: Record,
}

impl Running {
    /// The exchange that begins now. From here on its registration ends with a proof, or as one that nobody saw the
    /// end of.
    pub(super) fn begin(
        client: &Arc<Client>,
        mut left: Left,
        lease: Lease,
        record: Record,
    ) -> Arc<Self> {
        left.guard.exposed();
        Arc::new_cyclic(|running| Self {
            client: Arc::clone(client),
            line: Arc::clone(&lease.line),
            only_asks: left.only_asks,
            is_stream: lease.is_h2(),
            limit: Limit::of(client, &left.guard, running),
            state: Mutex::new(State {
                on: Some(On {
                    left,
                    lease,
                    record,
                }),
                sent: None,
                read: false,
                owed: None,
                offered: None,
                in_progress: None,
                upload: None,
            }),
            uploading: AtomicWaker::new(),
            up: AtomicU64::new(0),
            down: AtomicU64::new(0),
        })
    }

    /// Does something with the connection's sender, and with the record.
    pub(super) fn with<R>(&self, work: impl FnOnce(&mut Lease, &mut Record) -> R) -> Option<R> {
        let mut state = self.lock();
        let on = state.on.as_mut()?;
        Some(work(&mut on.lease, &mut on.record))
    }

    /// Somebody has been let in.
    pub(super) fn let_in(&self) {
        if let Some(on) = &self.lock().on {
            on.left.guard.relaying();
        }
    }

    /// When it is told to end. `None`: it is over.
    pub(super) fn ending(&self) -> Option<Ending> {
        Some(self.lock().on.as_ref()?.left.guard.ending())
    }

    /// When it must be over, if it was told to end.
    pub(super) fn due(&self) -> Option<Instant> {
        self.limit.due.get().copied()
    }

    /// Its client has a piece of the response to take, or has taken all there was.
    pub(super) fn owes_its_client(&self, owes: bool) {
        if self.client.streams.is_some() {
            self.lock().owed = owes.then(Instant::now);
        }
    }

    /// Its client's connection is in use until it has let go of the response.
    pub(super) fn occupies(&self, in_progress: InProgress) {
        self.lock().in_progress = Some(in_progress);
    }

    /// Ends it if its client has taken nothing for so long, who is not in the middle of anything then.
    pub(super) fn end_if_stuck(&self, patience: Duration) {
        let goes_on = {
            let mut state = self.lock();
            if state.owed.is_none_or(|since| since.elapsed() < patience) {
                return;
            }
            state.in_progress = None;
            state.on.is_some()
        };
        if goes_on {
            self.cut(&Failure::ClientStuck, SETTLE_TIME, Rest::Nothing);
            // Whatever else of this account's is there: its server would wait as long.
            self.line.end(SETTLE_TIME);
        }
    }

    /// Its server has a piece of the request to take, or has taken all there was.
    pub(super) fn offers_its_server(&self, offers: bool) {
        if self.is_stream {
            self.lock().offered = offers.then(Instant::now);
        }
    }

    /// Whether it is one among others on a connection to its server. Else the connection fails that takes nothing.
    pub(super) const fn is_stream(&self) -> bool {
        self.is_stream
    }

    /// Since when its server has a piece of the request to take, on a stream.
    pub(super) fn offered_at(&self) -> Option<Instant> {
        self.lock().offered
    }

    /// When the request's end had been sent.
    pub(super) fn sent_at(&self) -> Option<Instant> {
        self.lock().sent
    }

    /// The request's end has been sent.
    pub(super) fn sent(&self) {
        let mut state = self.lock();
        state.sent.get_or_insert_with(Instant::now);
        self.answered(state);
    }

    /// The response's end has been read.
    pub(super) fn read(&self) {
        let mut state = self.lock();
        state.read = true;
        self.answered(state);
    }

    fn answered(&self, mut state: MutexGuard<'_, State>) {
        if state.sent.is_none() || !state.read {
            return;
        }
        let Some(on) = state.on.take() else { return };
        drop(state);
        self.limit.over.notify_one();
        let exchanged = Exchanged::by_reading();
        // Before the exchange leaves the registry: at no time is the connection there and nobody registered for it.
        self.client.upstreams.keep(on.lease, exchanged);
        on.left.guard.closed(exchanged);
        on.record.ended(&self.client, Ok(()), self.moved());
    }

    /// The request comes to no end.
    pub(super) fn upload_failed(&self, why: Failure) {
        self.lock().upload.get_or_insert(why);
    }

    /// Why the request came to no end, if that is so.
    pub(super) fn upload_failure(&self) -> Option<Failure> {
        self.lock().upload.take()
    }

    /// Whether it was ended before all of the request was sent; whoever asks is woken when that is so.
    pub(super) fn is_cut(&self, cx: &mut Context<'_>) -> bool {
        self.uploading.register(cx.waker());
        let state = self.lock();
        state.on.is_none() && state.sent.is_none()
    }

    /// Whoever waited for the response has gone. The server is to end by itself, unless it has: what is left of a
    /// request may follow its response.
    pub(super) fn abandon(&self, rest: Rest) {
        let is_read = {
            let mut state = self.lock();
            state.in_progress = None;
            state.read
        };
        if !is_read {
            self.cut(&Failure::ClientGone, self.patience(), rest);
        }
    }

    /// How long a server may take for its end where no fence waits for that.
    fn patience(&self) -> Duration {
        if self.only_asks {
            self.client.web.services.limits.relay.close
        } else {
            SETTLE_TIME
        }
    }

    /// Ends it where it stands. The server is given so long for its own end.
    pub(super) fn cut(&self, why: &Failure, limit: Duration, rest: Rest) {
        self.end(Err(why), limit, rest);
    }

    /// One side of a tunnel has ended it.
    pub(super) fn part(&self, limit: Duration, rest: Rest) {
        self.end(Ok(()), limit, rest);
    }

    fn end(&self, how: Result<(), &Failure>, limit: Duration, rest: Rest) {
        let (on, is_whole) = {
            let mut state = self.lock();
            let Some(on) = state.on.take() else { return };
            (on, state.sent.is_some())
        };
        self.limit.over.notify_one();
        on.record.ended(&self.client, how, self.moved());
        self.let_go((on.left, on.lease), limit, rest.of(is_whole));
        self.uploading.wake();
    }

    /// Lets the server come to its end with it.
    fn let_go(&self, (left, lease): (Left, Lease), limit: Duration, rest: Rest) {
        match rest {
            _ if !lease.is_h2() => {
                self.line.leave(left);
                self.line.end(limit);
            }
            Rest::Answer(_) | Rest::Tunnel(_) => self.see_out((left, lease), limit, rest),
            Rest::Body(_) if !self.only_asks => self.see_out((left, lease), limit, rest),
            // What goes on is reset.
            _ if self.only_asks => {
                let proof = OnlyAsked::by_its_kind();
                self.client.upstreams.keep(lease, proof);
                left.guard.closed(proof);
            }
            _ => {
                self.line.leave(left);
                self.line.end(limit);
            }
        }
    }

    fn see_out(&self, whose: (Left, Lease), limit: Duration, rest: Rest) {
        let client = Arc::clone(&self.client);
        self.client
            .tasks
            .spawn(rest::see_out(client, whose, rest, limit));
    }

    /// Takes back an exchange of which nothing was sent, to be begun anew. The connection is of no use.
    pub(super) fn take_back(&self) -> Option<Record> {
        let on = self.lock().on.take()?;
        self.limit.over.notify_one();
        self.line.leave(on.left);
        self.line.end(self.client.web.services.limits.relay.close);
        Some(on.record)
    }

    /// Some octets of the request's body went up.
    pub(super) fn moved_up(&self, count: usize) {
        self.up.fetch_add(count as u64, Ordering::Relaxed);
    }

    /// Some octets of the response's body went down.
    pub(super) fn moved_down(&self, count: usize) {
        self.down.fetch_add(count as u64, Ordering::Relaxed);
    }

    fn moved(&self) -> Moved {
        Moved {
            up: self.up.load(Ordering::Relaxed),
            down: self.down.load(Ordering::Relaxed),
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // Its request came to no end behind its response.
        self.cut(&Failure::ClientGone, self.patience(), Rest::Nothing);
    }
}

/// How long behind the limit of its drain an exchange is cut that did not end at it by itself: by then nobody polls it,
/// such as the response of a client that takes nothing, or what is left of a request behind its response.
const LATE: Duration = Duration::from_millis(500);

/// Cuts an exchange that was told to end, whoever should be polled for it and is not.
struct Limit {
    running: Weak<Running>,
    tasks: Spawner,
    drain: Duration,
    close: Duration,
    /// When it must be over.
    due: OnceLock<Instant>,
    over: Notify,
}

impl Limit {
    fn of(client: &Client, guard: &SessionGuard, running: &Weak<Running>) -> Arc<Self> {
        let limits = client.web.services.limits.relay;
        let limit = Arc::new(Self {
            running: Weak::clone(running),
            tasks: client.tasks.clone(),
            drain: limits.drain,
            close: limits.close,
            due: OnceLock::new(),
            over: Notify::new(),
        });
        guard.alarm(Arc::clone(&limit) as Arc<dyn Told>);
        limit
    }

    async fn cut(&self, due: Instant, reason: CloseReason) {
        tokio::select! {
            () = self.over.notified() => {}
            () = sleep_until(due + LATE) => {
                if let Some(running) = self.running.upgrade() {
                    running.cut(&Failure::Told(reason), self.close, Rest::Nothing);
                }
            }
        }
    }
}

impl Told for Limit {
    fn told(self: Arc<Self>, reason: CloseReason) {
        let due = *self.due.get_or_init(|| Instant::now() + self.drain);
        let tasks = self.tasks.clone();
        tasks.spawn(async move { self.cut(due, reason).await });
    }
}

impl fmt::Debug for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Limit")
            .field("due", &self.due)
            .finish_non_exhaustive()
    }
}
