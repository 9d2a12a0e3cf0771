//! One request, from its head to the head of its response.
//!
//! ```text
//!   asked     the request as servers may see it, and what the rules say of it
//!   whose     its claim made a name
//!   admit     registered and routed in one step; held while fenced
//!   (here)    a connection
//!   head      the request as its server gets it
//!   ask       the request on the connection, and the wait for the response
//!   response  what the client may see of it
//! ```

mod admit;
mod ask;
mod asked;
mod head;
mod response;
mod whose;

use std::sync::Arc;

use ferrypost_http::target::Resource;
use ferrypost_proto::{Endpoint, v1::Protocol};
use http::{
    HeaderMap, Method, Request, Response, StatusCode,
    header::{ACCEPT, ALLOW, UPGRADE},
};
use hyper::body::Incoming;
use tokio::time::Instant;

use self::{asked::Asked, whose::Whose};
use super::{
    body::{Download, Source, discard},
    client::{Client, Place},
    failure::Failure,
    record::{Moved, Record},
    upstream::{Lease, Opening, Owner, Turn},
};
use crate::{
    backend::{Target, breaker::Pass},
    net::dial::DialError,
    registry::{OnlyAsked, SessionGuard},
};

/// Answers a request.
pub(super) async fn serve(client: &Arc<Client>, request: Request<Incoming>) -> Response<Download> {
    let in_progress = client.busy.enter();
    let asks_upgrade = request.headers().contains_key(UPGRADE);
    let mut accepts = HeaderMap::new();
    for line in request.headers().get_all(ACCEPT) {
        accepts.append(ACCEPT, line.clone());
    }
    let mut exchange = Exchange {
        client,
        record: Some(Record::new(request.method().clone())),
        held_until: None,
        body: None,
    };
    // In a box: a future is as large as the largest thing that it ever holds, and it is moved about.
    let answered = Box::pin(exchange.run(request)).await;
    let response = match answered {
        Ok(response) => response,
        Err(failure) => {
            if let Some(record) = exchange.record.take() {
                record.ended(client, Err(&failure), Moved::default());
            }
            exchange.let_come();
            failure.response(&accepts)
        }
    };
    if asks_upgrade && response.status() != StatusCode::SWITCHING_PROTOCOLS {
        client.watch.decline_upgrade();
    }
    response.map(|body| body.counted(in_progress))
}

/// A request that is being answered.
struct Exchange<'a> {
    client: &'a Arc<Client>,
    /// Gone when whoever ends the exchange has it.
    record: Option<Record>,
    /// How long it may be held, whatever happens in between; not known before the first hold.
    held_until: Option<Instant>,
    /// The request's body, while no server has it.
    body: Option<Source>,
}

/// What is an exchange's own when its server is asked.
struct Own {
    guard: SessionGuard,
    lease: Lease,
    /// The breaker's word, where the connection is new.
    pass: Option<Pass>,
    place: Arc<Place>,
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
        let decided = asked.decide(self.client, &mut body).await;
        self.body = Some(body);
        let mut decided = decided?;
        asked.sign_in = decided.sign_in.take();
        self.record().rule = Some(decided.rule.clone());
        let whose = self.whose(&asked, decided).await?;
        let place = self.client.place().ok_or(Failure::TooMuchAsked)?;
        loop {
            let guard = self.admit(&asked, &whose).await?;
            let Some((guard, lease, pass)) = self.reach(&asked, &whose, guard).await? else {
                // A fence overtook it: nothing was sent.
                continue;
            };
            let own = Own {
                guard,
                lease,
                pass,
                place: Arc::clone(&place),
            };
            let body = self.body.take().expect("no server has it yet");
            match self.ask(&asked, &whose, own, body).await? {
                Tried::Answered(response) => return Ok(response),
                Tried::Unsent(unsent) => self.body = Some(unsent),
            }
        }
    }

    /// Takes what still comes of a request that no server gets, if it is not much. By HTTP/2 its stream would be reset behind
    /// the answer (RFC 9113 §8.1), which is not to keep a client from reading that, and does: to curl before 8.0 such a
    /// request has failed, whatever the answer.
    fn let_come(&mut self) {
        if self.client.streams.is_some()
            && let Some(Source::Client(body)) = self.body.take()
        {
            let limit = self.client.web.services.limits.web.head;
            self.client.tasks.spawn(discard(body, limit));
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
            leased = self.lease(owner, endpoint, asked.web_socket.is_some()) => leased,
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
        for_web_socket: bool,
    ) -> Result<(Lease, Option<Pass>), Failure> {
        let client = self.client;
        let upstreams = &client.upstreams;
        let kept = || upstreams.kept(&owner, &endpoint, for_web_socket);
        if let Some(lease) = kept().await {
            return Ok((lease, None));
        }
        if for_web_socket && upstreams.refuses_web_sockets(&owner, &endpoint) {
            return Err(Failure::NoWebSocket);
        }
        let turn = upstreams.turn(&owner, &endpoint);
        if let Some(Turn::Others(over)) = &turn {
            over.cancelled().await;
            if let Some(lease) = kept().await {
                return Ok((lease, None));
            }
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
            for_web_socket,
        };
        match upstreams.open(owner, endpoint, opening).await {
            Ok(lease) if for_web_socket && !lease.line.opens_web_sockets() => {
                pass.answered();
                // It was asked nothing, and may be of use for something else.
                upstreams.keep(lease, OnlyAsked::by_its_kind());
                Err(Failure::NoWebSocket)
            }
            Ok(lease) => Ok((lease, Some(pass))),
            Err(error) => {
                if !matches!(error, DialError::Ourselves | DialError::Source { .. }) {
                    pass.failed();
                }
                Err(error.into())
            }
        }
    }
}
