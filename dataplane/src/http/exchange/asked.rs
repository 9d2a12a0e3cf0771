//! A request as servers may see it, and what the rules of the table in force say of it.

use std::time::SystemTime;

use bytes::{Bytes, BytesMut};
use ferrypost_http::{
    Framing, Refusal, cookie,
    fields::{MaxForwards, RequestFacts, Upgrade, clean_request, max_forwards},
    identity::Claims,
    location::{PublicOrigin, read_destination},
    poll::is_ping,
    rules::{self, Body, Challenge, MAX_BODY, Route, SignIn},
    target::{NormalPath, Resource, Target},
    websocket::Handshake,
};
use ferrypost_proto::DestinationId;
use http::{HeaderMap, HeaderName, Method, Request, header::AUTHORIZATION};
use http_body_util::BodyExt as _;
use hyper::{
    body::{Body as _, Incoming},
    ext::Protocol,
    upgrade::OnUpgrade,
};
use tokio::time::{Instant, timeout};

use super::super::{body::Source, client::Client, failure::Failure};

/// Where a COPY or a MOVE puts a resource (RFC 4918 §10.3).
const DESTINATION: HeaderName = HeaderName::from_static("destination");

/// Methods that ask and change nothing (RFC 9110 §9.2.1, RFC 4918 §9.1, RFC 3253 §3.6, RFC 5323 §2).
const SAFE: [&str; 6] = ["GET", "HEAD", "OPTIONS", "PROPFIND", "REPORT", "SEARCH"];

/// The request.
pub(super) struct Asked {
    pub(super) method: Method,
    pub(super) target: Target,
    /// Clean, and with the host as it came.
    pub(super) headers: HeaderMap,
    pub(super) facts: RequestFacts,
    /// The sign-in that it is, if its server takes it.
    pub(super) sign_in: Option<SignIn>,
    /// The WebSocket that it asks for, and where its client's side will be.
    pub(super) web_socket: Option<(Handshake, OnUpgrade)>,
}

/// What the rules say.
pub(super) struct Decided {
    /// Which rule.
    pub(super) rule: String,
    pub(super) end: RuleEnd,
    /// The sign-in that it is, if its server takes it.
    pub(super) sign_in: Option<SignIn>,
}

/// Where a rule leads.
pub(super) enum RuleEnd {
    Account(Claims),
    Pinned {
        destination: DestinationId,
        writes_to_accounts: bool,
    },
    Default,
}

impl Asked {
    /// Takes a request's head apart.
    pub(super) fn read(
        client: &Client,
        request: Request<Incoming>,
    ) -> Result<(Self, Source), Failure> {
        let (mut parts, body) = request.into_parts();
        let facts = clean_request(
            &parts.method,
            parts.version,
            &mut parts.headers,
            client.peer,
        )?;
        let protocol = parts.extensions.remove::<Protocol>();
        let mut target = Target::read(
            &parts.method,
            &parts.uri,
            &parts.headers,
            parts.version,
            true,
            protocol.is_some(),
        )?;
        let handshake = match (protocol, facts.upgrade) {
            (Some(protocol), _) => {
                let nonce = client.web.services.random.bytes();
                parts.method = Method::GET;
                let asked = Handshake::of_connect(protocol.as_str(), &parts.headers, nonce)?;
                Some(asked)
            }
            (None, Some(Upgrade::WebSocket)) => Some(Handshake::of_upgrade(&parts.headers)?),
            (None, None) => None,
        };
        let on_upgrade = parts.extensions.remove::<OnUpgrade>();
        if max_forwards(&parts.method, &mut parts.headers)? == MaxForwards::AnswerHere {
            target.resource = Resource::Server;
        }
        let asked = Self {
            method: parts.method,
            target,
            headers: parts.headers,
            facts,
            sign_in: None,
            web_socket: handshake.zip(on_upgrade),
        };
        let source = if asked.web_socket.is_some() {
            // What follows an extended CONNECT is no body.
            Source::Read {
                octets: None,
                with_length: false,
            }
        } else {
            Source::Client(body)
        };
        Ok((asked, source))
    }

    /// Whether it changes nothing, whatever its server does: so it may be asked again, and nobody has to know when that
    /// is done with it (decision 0035). A WebSocket is asked for by GET, and carries anything.
    pub(super) fn only_asks(&self) -> bool {
        let is_ping = || match &self.target.resource {
            Resource::Path(path, query) => is_ping(&self.method, path, query.as_deref()),
            Resource::Server => false,
        };
        let is_safe = SAFE.contains(&self.method.as_str());
        self.web_socket.is_none() && (is_safe || is_ping())
    }

    /// The public origin that it is for.
    pub(super) fn public(&self) -> PublicOrigin {
        PublicOrigin {
            host: self.target.host.clone(),
            secure: true,
        }
    }

    /// How its client says whose it is, and may say it again.
    pub(super) fn challenge(&self) -> Option<Challenge> {
        let line = self.headers.get(AUTHORIZATION)?.as_bytes();
        let is_basic = line
            .get(..5)
            .is_some_and(|scheme| scheme.eq_ignore_ascii_case(b"basic"));
        Some(if is_basic {
            Challenge::Basic
        } else {
            Challenge::Bearer
        })
    }

    /// Whether it carries a password, of which its server says whether it is right: Basic credentials, or a sign-in that
    /// a rule learns of. A token that is refused is one whose time is over, and nobody guesses one.
    pub(super) fn is_login(&self) -> bool {
        self.sign_in.is_some() || self.challenge() == Some(Challenge::Basic)
    }

    /// What the rules say. The body is read for it if they need that, and is then kept. Our own cookie is taken out: it
    /// is no server's business, and one that does not count is as if it were not there.
    #[expect(
        clippy::disallowed_methods,
        reason = "what browsers keep ends by the calendar"
    )]
    pub(super) async fn decide(
        &mut self,
        client: &Client,
        body: &mut Source,
    ) -> Result<Decided, Failure> {
        let services = &client.web.services;
        // Who is only early is not sent away.
        let until = Instant::now() + services.limits.hold.timeout;
        services.tables.first(until).await;
        let table = services.tables.current().ok_or(Failure::NoTable)?;
        // Without any that are known here nobody can tell where it goes.
        let rules = table.config().http_rules().ok_or(Failure::NoTable)?;
        let mut read = None;
        let mut decided = self.follow(rules, (client, body), &mut read).await?;
        if let RuleEnd::Account(claims) = &mut decided.end
            && let Some(value) = claims.sealed()
        {
            let now = seconds(SystemTime::now());
            let recalled = client.web.cookie_keys.recall(value, &self.headers, now);
            cookie::remove(&mut self.headers);
            match recalled {
                Ok(login) => claims.unseal(&login),
                Err(_) => decided = self.follow(rules, (client, body), &mut read).await?,
            }
        }
        cookie::remove(&mut self.headers);
        self.check_destination(rules, &decided.rule, read.as_deref())?;
        if let Some(octets) = read {
            *body = Source::Read {
                octets: Some(octets),
                with_length: matches!(self.facts.framing, Framing::Length(_)),
            };
        }
        Ok(decided)
    }

    /// What the rules say of it as it is now.
    async fn follow(
        &self,
        rules: &rules::Rules,
        (client, body): (&Client, &mut Source),
        read: &mut Option<Bytes>,
    ) -> Result<Decided, Failure> {
        let Resource::Path(path, query) = &self.target.resource else {
            return Err(Refusal::Target.into());
        };
        let request = rules::Request {
            host: &self.target.host,
            method: &self.method,
            path,
            query: query.as_deref(),
            headers: &self.headers,
        };
        let said = |read: &Option<Bytes>| {
            let body = read.as_deref().map_or(Body::Unread, Body::Read);
            rules.decide(&request, body)
        };
        let mut decision = said(read)?;
        if matches!(decision.route, Route::ReadBody) {
            *read = Some(self.read_body(client, body).await?);
            decision = said(read)?;
        }
        let end = match decision.route {
            Route::Account(claims) => RuleEnd::Account(claims),
            Route::Default => RuleEnd::Default,
            Route::Challenge(challenges) => return Err(Failure::Challenged(challenges)),
            Route::Pinned {
                destination,
                writes_to_accounts,
            } => RuleEnd::Pinned {
                destination: DestinationId::parse(destination).map_err(|_| Failure::NoEndpoint)?,
                writes_to_accounts,
            },
            Route::ReadBody => return Err(Refusal::BodyForm.into()),
        };
        Ok(Decided {
            rule: decision.rule.to_owned(),
            end,
            sign_in: decision.sign_in,
        })
    }

    /// Reads all of the body, as far as one may be read.
    async fn read_body(&self, client: &Client, body: &mut Source) -> Result<Bytes, Failure> {
        let Source::Client(incoming) = body else {
            return Err(Refusal::BodyForm.into());
        };
        if incoming.size_hint().lower() > MAX_BODY as u64 {
            return Err(Refusal::BodyTooLarge.into());
        }
        let reading = async {
            let mut read = BytesMut::new();
            while let Some(frame) = incoming.frame().await {
                let frame = frame.map_err(|error| Failure::of_upload(&error))?;
                if let Ok(octets) = frame.into_data() {
                    if read.len() + octets.len() > MAX_BODY {
                        return Err(Refusal::BodyTooLarge.into());
                    }
                    read.extend_from_slice(&octets);
                }
            }
            Ok(read.freeze())
        };
        let limit = client.web.services.limits.web.stalled;
        timeout(limit, reading)
            .await
            .unwrap_or(Err(Failure::ClientStuck))
    }

    /// A COPY or a MOVE must end where its request goes, and by the same rule.
    fn check_destination(
        &mut self,
        rules: &rules::Rules,
        rule: &str,
        body: Option<&[u8]>,
    ) -> Result<(), Failure> {
        let mut lines = self.headers.get_all(DESTINATION).iter();
        let (Some(line), more) = (lines.next(), lines.next()) else {
            return Ok(());
        };
        if more.is_some() {
            return Err(Refusal::Repeated.into());
        }
        let text = line.to_str().map_err(|_| Refusal::Target)?;
        let destination = read_destination(text, &self.public())?;
        let elsewhere = self.rule_of(rules, &destination.path, body)?;
        if elsewhere != rule {
            return Err(Refusal::Elsewhere.into());
        }
        let forwarded = destination.forwarded.parse().map_err(|_| Refusal::Target)?;
        self.headers.insert(DESTINATION, forwarded);
        Ok(())
    }

    /// The rule that this request would follow with another path.
    fn rule_of(
        &self,
        rules: &rules::Rules,
        path: &NormalPath,
        body: Option<&[u8]>,
    ) -> Result<String, Refusal> {
        let request = rules::Request {
            host: &self.target.host,
            method: &self.method,
            path,
            query: None,
            headers: &self.headers,
        };
        let decision = rules.decide(&request, body.map_or(Body::Unread, Body::Read))?;
        Ok(decision.rule.to_owned())
    }
}

/// Seconds since 1970, which tickets end by.
pub(super) fn seconds(now: SystemTime) -> u64 {
    let since = now.duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| since.as_secs())
}
