//! One request, from its head to the head of its response.
//!
//! ```text
//!   asked     the request as servers may see it, and what the rules say of it
//!   whose     its claim made a name
//!   admit     registered and routed in one step; held while fenced
//!   (here)    a connection, the request on it, the wait for the response
//!   response  what the client may see of it
//! ```

mod admit;
mod asked;
mod response;
mod whose;

use std::{sync::Arc, time::Duration};

use ferrypost_http::{
    forwarded::{self, Announcement},
    target::Resource,
};
use ferrypost_proto::{Endpoint, v1::Protocol};
use http::{
    HeaderMap, Method, Request, Response, StatusCode, Uri, Version,
    header::{ACCEPT, ALLOW, HOST},
};
use hyper::body::Incoming;
use tokio::time::{Instant, sleep_until};

use self::{asked::Asked, whose::Whose};
use super::{
    body::{Download, Source, Upload},
    client::Client,
    failure::Failure,
    record::{Moved, Record},
    running::Running,
    upstream::{Lease, Opening, Owner},
};
use crate::{
    backend::{Target, breaker::Pass},
    net::dial::DialError,
    registry::{CloseReason, SessionGuard},
};

/// How long a server must be silent before a fence ends what it has been asked and may be asked again.
const QUIET: Duration = Duration::from_secs(1);

/// Answers a request.
pub(super) async fn serve(client: &Arc<Client>, request: Request<Incoming>) -> Response<Download> {
    let in_progress = client.busy.enter();
    let mut accepts = HeaderMap::new();
    for line in request.headers().get_all(ACCEPT) {
        accepts.append(ACCEPT, line.clone());
    }
    let mut exchange = Exchange {
        client,
        record: Some(Record::new(request.method().clone())),
        held_until: None,
    };
    // In a box: a future is as large as the largest thing that it ever holds, and it is moved about.
    let answered = Box::pin(exchange.run(request)).await;
    let response = match answered {
        Ok(response) => response,
        Err(failure) => {
            if let Some(record) = exchange.record.take() {
                record.ended(client, Err(&failure), Moved::default());
            }
            failure.response(&accepts)
        }
    };
    response.map(|body| body.counted(in_progress))
}

/// A request that is being answered.
struct Exchange<'a> {
    client: &'a Arc<Client>,
    /// Gone when whoever ends the exchange has it.
    record: Option<Record>,
    /// How long it may be held, whatever happens in between; not known before the first hold.
    held_until: Option<Instant>,
}

/// What became of one connection.
enum Tried {
    Answered(Response<Download>),
    /// Nothing was sent: the body is as it was.
    Unsent(Source),
}

impl Exchange<'_> {
    async fn run(&mut self, request: Request<Incoming>) -> Result<Response<Download>, Failure> {
        if let Some(stopped) = self.client.watch.is_stand_in(request.method()) {
            return Err(stopped.into());
        }
        let (mut asked, mut body) = Asked::read(self.client, request)?;
        let Resource::Path(path, _) = &asked.target.resource else {
            return Ok(self.about_the_server(&asked));
        };
        self.record().path = Some(path.to_string());
        let mut decided = asked.decide(self.client, &mut body).await?;
        asked.sign_in = decided.sign_in.take();
        self.record().rule = Some(decided.rule.clone());
        let whose = self.whose(&asked, decided).await?;
        loop {
            let guard = self.admit(&whose).await?;
            let Some((guard, lease, pass)) = self.reach(&asked, &whose, guard).await? else {
                // A fence overtook it: nothing was sent.
                continue;
            };
            match self.ask(&asked, (guard, lease, pass), body).await? {
                Tried::Answered(response) => return Ok(response),
                Tried::Unsent(unsent) => body = unsent,
            }
        }
    }

    fn record(&mut self) -> &mut Record {
        self.record
            .as_mut()
            .expect("it is there until the exchange runs at a server")
    }

    /// `OPTIONS *`, and what wants to go no further: it is about this server.
    fn about_the_server(&mut self, asked: &Asked) -> Response<Download> {
        let status = StatusCode::NO_CONTENT;
        let mut response = Response::new(Download::own(bytes::Bytes::new()));
        *response.status_mut() = status;
        if asked.method == Method::OPTIONS {
            let all = "GET, HEAD, POST, PUT, DELETE, OPTIONS, PATCH, PROPFIND, PROPPATCH, MKCOL, MKCALENDAR, COPY, MOVE, \
                       LOCK, UNLOCK, REPORT, ACL, SEARCH";
            let all = http::HeaderValue::from_static(all);
            response.headers_mut().insert(ALLOW, all);
        }
        if let Some(record) = self.record.take() {
            record.answered_here(self.client, status);
        }
        response
    }

    /// A connection to where the request goes. `None`: a fence overtook it.
    async fn reach(
        &mut self,
        asked: &Asked,
        whose: &Whose,
        guard: SessionGuard,
    ) -> Result<Option<(SessionGuard, Lease, Option<Pass>)>, Failure> {
        self.record().route = Some(guard.route().clone());
        let owner = Owner {
            destination: guard.route().destination.clone(),
            subject: guard.subject().clone(),
        };
        let endpoint = self.endpoint(&owner)?;
        whose.is_heeded_by(asked, &endpoint)?;
        let leased = tokio::select! {
            biased;
            reason = guard.closing() => Err(Failure::Told(reason)),
            leased = self.lease(owner, endpoint) => leased,
        };
        match leased {
            // Whatever the server said: it is not the one to ask any more.
            _ if guard.is_overtaken() => {
                if let Ok((lease, _)) = leased {
                    lease.line.end(self.client.web.services.limits.relay.close);
                }
                Ok(None)
            }
            Ok((lease, pass)) => {
                self.record().address = Some(lease.address);
                Ok(Some((guard, lease, pass)))
            }
            Err(failure) => Err(failure),
        }
    }

    fn endpoint(&self, owner: &Owner) -> Result<Endpoint, Failure> {
        let services = &self.client.web.services;
        let table = services.tables.current().ok_or(Failure::NoTable)?;
        let destination = table.config().destination(&owner.destination);
        destination
            .and_then(|it| it.endpoint(Protocol::Http, &services.group))
            .cloned()
            .ok_or(Failure::NoEndpoint)
    }

    /// A connection that is kept, or a new one, and the breaker's word on that.
    async fn lease(
        &self,
        owner: Owner,
        endpoint: Endpoint,
    ) -> Result<(Lease, Option<Pass>), Failure> {
        let client = self.client;
        if let Some(lease) = client.upstreams.kept(&owner, &endpoint).await {
            return Ok((lease, None));
        }
        let services = &client.web.services;
        let facts = client.facts().ok_or(Failure::GoneRound)?;
        let target = Target {
            destination: owner.destination.clone(),
            protocol: Protocol::Http,
        };
        let breakers = &services.breakers;
        let pass = breakers
            .pass(target, &endpoint, client.ends.peer.ip())
            .map_err(|_| Failure::BreakerOpen)?;
        let opening = Opening {
            dialers: &services.dialers,
            facts: &facts,
            alpn: Some(client.protocol),
        };
        match client.upstreams.open(owner, endpoint, opening).await {
            Ok(lease) => Ok((lease, Some(pass))),
            Err(error) => {
                if !matches!(error, DialError::Ourselves | DialError::Source { .. }) {
                    pass.failed();
                }
                Err(error.into())
            }
        }
    }

    /// Sends the request and waits for the head of the response.
    async fn ask(
        &mut self,
        asked: &Asked,
        (guard, lease, pass): (SessionGuard, Lease, Option<Pass>),
        body: Source,
    ) -> Result<Tried, Failure> {
        let head = self.head(asked, &lease.endpoint);
        let (is_old, limit) = (lease.is_old, lease.endpoint.http.response_limit);
        let record = self.record.take().expect("it is not at a server yet");
        let running = Running::begin(self.client, guard, lease, record);
        let waiting = Waiting(Some(&running));
        let patience = self.client.web.services.limits.web.stalled;
        let upload = Upload::new(body, Arc::clone(&running), patience);
        let request = head.map(|()| upload);
        let sending = running
            .with(|lease, _| lease.sender.try_send_request(request))
            .ok_or(Failure::ClientGone)?;
        let answered = self.wait(asked, (&running, limit), sending).await;
        let outcome = match answered {
            Ok(Ok(response)) => {
                if let Some(pass) = pass {
                    pass.answered();
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
            Err(failure) => Err(failure),
        };
        if let Err(failure) = &outcome {
            let close = self.client.web.services.limits.relay.close;
            let limit = match failure {
                Failure::Told(_) => close,
                _ => crate::registry::SETTLE_TIME,
            };
            running.cut(failure, limit);
        }
        waiting.over();
        outcome
    }

    /// Waits for the head of the response: until it comes, or is due, or a fence must wait no longer.
    async fn wait<T>(
        &self,
        asked: &Asked,
        (running, limit): (&Running, Duration),
        sending: impl Future<Output = T>,
    ) -> Result<T, Failure> {
        tokio::select! {
            biased;
            answered = sending => Ok(answered),
            reason = self.drained(asked, running) => Err(Failure::Told(reason)),
            () = unanswered(running, limit) => Err(Failure::Unanswered),
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
                Some(sent) if asked.is_safe() => limit.min(sent.max(told) + QUIET),
                _ => limit,
            };
            if due <= Instant::now() {
                return reason;
            }
            sleep_until(due.min(Instant::now() + QUIET)).await;
        }
    }

    /// The head of the request as the server gets it.
    fn head(&self, asked: &Asked, endpoint: &Endpoint) -> Request<()> {
        let mut request = Request::new(());
        *request.method_mut() = asked.method.clone();
        *request.version_mut() = Version::HTTP_11;
        let target: Uri = asked
            .target
            .forwarded()
            .parse()
            .expect("a normal path and a query that was looked at are a target");
        *request.uri_mut() = target;
        let mut headers = asked.headers.clone();
        let host = asked.target.host.to_string();
        let host = host
            .parse()
            .expect("a host is letters, digits and punctuation");
        headers.insert(HOST, host);
        if let Some((handshake, _)) = &asked.web_socket {
            handshake.ask_by_upgrade(&mut headers);
        }
        let announced = forwarded::Client {
            address: Some(self.client.ends.peer),
            host: &asked.target.host,
            secure: true,
        };
        let announcement = announcement(endpoint);
        forwarded::announce(&mut headers, announcement, self.client.peer, &announced);
        *request.headers_mut() = headers;
        request
    }
}

/// How the endpoint wants to be told of clients, where that is in the header.
fn announcement(endpoint: &Endpoint) -> Announcement {
    match endpoint.announcement {
        ferrypost_proto::Announcement::Forwarded => Announcement::Forwarded,
        ferrypost_proto::Announcement::XForwarded => Announcement::XForwarded,
        _ => Announcement::None,
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

/// Whoever waits for a response. hyper drops it when the client has gone.
struct Waiting<'a>(Option<&'a Running>);

impl Waiting<'_> {
    fn over(mut self) {
        self.0 = None;
    }
}

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(running) = self.0 {
            running.abandon();
        }
    }
}
