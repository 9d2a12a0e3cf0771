//! A request at its server, and the wait for the head of the response.

use std::{
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{HeaderValue, Response, StatusCode, Version, header::TRANSFER_ENCODING};
use hyper::body::{Body as _, Incoming};
use tokio::time::{Instant, sleep_until};

use super::{
    super::{
        body::{Source, Upload},
        failure::Failure,
        rest::Rest,
        running::Running,
        upstream::{Left, Sending, Unsent},
    },
    Exchange, Own, Tried,
    asked::Asked,
    head::head,
    response,
    whose::Whose,
};
use crate::registry::{CloseReason, SETTLE_TIME};

/// How long a server must be silent before a fence ends what it has been asked and may be asked again.
const QUIET: Duration = Duration::from_secs(1);

impl Exchange<'_> {
    /// Sends the request and waits for the head of the response.
    pub(super) async fn ask(
        &mut self,
        asked: &Asked,
        whose: &Whose,
        own: Own,
        body: Source,
    ) -> Result<Tried, Failure> {
        let (lease, pass) = (own.lease, own.pass);
        let head = head(self.client, asked, &lease);
        let (is_old, limit) = (lease.is_old, lease.endpoint.http.response_limit);
        let record = self.record.take().expect("it is not at a server yet");
        let left = Left {
            guard: own.guard,
            place: own.place,
            only_asks: asked.only_asks(),
        };
        let running = Running::begin(self.client, left, lease, record);
        let patience = self.client.web.services.limits.web.stalled;
        let upload = Upload::new(body, Arc::clone(&running), patience);
        let mut request = head.map(|()| upload);
        if request.version() == Version::HTTP_11
            && !request.body().is_end_stream()
            && request.body().size_hint().exact().is_none()
        {
            // hyper would leave out the body of a GET, whose server would get another request than was asked.
            let chunked = HeaderValue::from_static("chunked");
            request.headers_mut().insert(TRANSFER_ENCODING, chunked);
        }
        let sending = running.with(|lease, _| lease.ask(request));
        let mut waiting = Waiting {
            sending: Some(sending.ok_or(Failure::ClientGone)?),
            running: Some(Arc::clone(&running)),
            is_web_socket: asked.web_socket.is_some(),
        };
        let answered = self.wait(asked, (&running, limit), &mut waiting).await;
        let outcome = match answered {
            Ok(Ok(response)) => {
                if let Some(pass) = pass {
                    pass.answered();
                }
                if response.status() == StatusCode::UNAUTHORIZED && asked.is_login() {
                    self.failed_login(whose, &running).await;
                }
                let response = response::relayed(self.client, asked, &running, response);
                response.map(Tried::Answered)
            }
            Ok(Err(mut unanswered)) => match unanswered.take_message() {
                // Its server had closed it. Nothing was sent, so that it is no second time.
                Some(request) if is_old => {
                    self.record = Some(running.take_back().ok_or(Failure::ClientGone)?);
                    waiting.over();
                    return Ok(Tried::Unsent(request.into_body().into_source()));
                }
                _ => {
                    let of_client = running.upload_failure();
                    if of_client.is_none()
                        && let Some(pass) = pass
                    {
                        pass.failed();
                    }
                    let why = of_client.unwrap_or(Failure::of_response(&unanswered.into_error()));
                    Err(why)
                }
            },
            Err(failure) => {
                let limit = self.limit_of_end(asked, &failure);
                running.cut(&failure, limit, waiting.over());
                return Err(failure);
            }
        };
        if let Err(failure) = &outcome {
            running.cut(failure, SETTLE_TIME, Rest::Nothing);
        }
        waiting.over();
        outcome
    }

    /// A server has refused a password. Whoever fails often waits for the answer, as in mail, unless it is to end. A
    /// success is counted nowhere: a page that is everybody's would be one, whatever the password.
    async fn failed_login(&self, whose: &Whose, running: &Running) {
        let services = &self.client.web.services;
        let address = self.client.ends.peer.ip();
        let wait = services.guesses.failed(address, whose.subject.name());
        let Some(ending) = running.ending() else {
            return;
        };
        let since = running.sent_at().unwrap_or_else(Instant::now);
        tokio::select! {
            biased;
            _ = ending.told() => {}
            () = sleep_until(since + wait) => {}
        }
    }

    /// How long a server may take for its end, of whose response no head has come.
    fn limit_of_end(&self, asked: &Asked, failure: &Failure) -> Duration {
        let limits = self.client.web.services.limits.relay;
        match failure {
            // It was told to end long before the limit: the rest of that is the server's.
            Failure::Told(_) if asked.only_asks() => limits.drain.max(limits.close),
            Failure::Told(_) => limits.close,
            _ => SETTLE_TIME,
        }
    }

    /// Waits for the head of the response: until it comes, or is due, or its server takes nothing of the request, or a fence
    /// must wait no longer.
    async fn wait(
        &self,
        asked: &Asked,
        (running, limit): (&Running, Duration),
        waiting: &mut Waiting,
    ) -> Result<Answered, Failure> {
        let patience = self.client.web.services.limits.web.stalled;
        tokio::select! {
            biased;
            answered = waiting => Ok(answered),
            reason = self.drained(asked, running) => Err(Failure::Told(reason)),
            () = unanswered(running, limit) => Err(Failure::Unanswered),
            () = untaken(running, patience), if running.is_stream() => Err(Failure::ServerStuck),
        }
    }

    /// Resolves when it is told to end and has had its time: what may be asked again (RFC 9110 §9.2.1) as soon as its
    /// server is silent, as with a long poll, and what may be writing at the limit.
    async fn drained(&self, asked: &Asked, running: &Running) -> CloseReason {
        let Some(ending) = running.ending() else {
            return std::future::pending().await;
        };
        let reason = ending.told().await;
        let told = Instant::now();
        let limit = told + self.client.web.services.limits.relay.drain;
        loop {
            let due = match running.sent_at() {
                Some(sent) if asked.only_asks() => limit.min(sent.max(told) + QUIET),
                _ => limit,
            };
            if due <= Instant::now() {
                return reason;
            }
            sleep_until(due.min(Instant::now() + QUIET)).await;
        }
    }
}

/// Resolves when a response is due: so long after all of the request was sent.
async fn unanswered(running: &Running, limit: Duration) {
    loop {
        let due = match running.sent_at() {
            Some(sent) => sent + limit,
            None => Instant::now() + limit,
        };
        if due <= Instant::now() {
            return;
        }
        sleep_until(due).await;
    }
}

/// Resolves when a server has taken nothing of the request for so long, though there is something.
async fn untaken(running: &Running, patience: Duration) {
    loop {
        let now = Instant::now();
        let due = running.offered_at().unwrap_or(now) + patience;
        if due <= now {
            return;
        }
        sleep_until(due).await;
    }
}

type Answered = Result<Response<Incoming>, Unsent>;

/// Whoever waits for a response. hyper drops it when the client has gone.
struct Waiting {
    /// Gone when it has come.
    sending: Option<Sending>,
    /// Gone when nobody waits any more.
    running: Option<Arc<Running>>,
    is_web_socket: bool,
}

impl Waiting {
    /// It waits no more; what is left of the response.
    fn over(mut self) -> Rest {
        self.running = None;
        self.rest()
    }

    fn rest(&mut self) -> Rest {
        match self.sending.take() {
            // A server that opens a WebSocket now has no end to come to.
            Some(sending) if !self.is_web_socket => Rest::Answer(sending),
            _ => Rest::Nothing,
        }
    }
}

impl Future for Waiting {
    type Output = Answered;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Answered> {
        let Some(sending) = &mut self.sending else {
            return Poll::Pending;
        };
        let answered = ready!(sending.as_mut().poll(cx));
        self.sending = None;
        Poll::Ready(answered)
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        if let Some(running) = self.running.take() {
            running.abandon(self.rest());
        }
    }
}
