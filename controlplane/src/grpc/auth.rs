//! Who calls, and what they may do: on both listeners, before anything else looks at a request.
//!
//! Nothing is allowed that is not in a table: a method that is added and forgotten here is refused.
//! The two listeners serve disjoint sets of methods and know disjoint sets of callers, so that a data
//! plane's certificate can open the stream and nothing else, and an operator's cannot open it.

use std::{path::Path, sync::Arc};

use anyhow::Context as _;
use ferrypost_runtime::{
    reload::Reloading,
    token::{Token, TokenError},
};
use http::{HeaderMap, header::AUTHORIZATION};

use crate::{
    config::{CertificateName, DataPlanes, IdentityConfig, Operators, Role},
    net::Peer,
    refusal::{Answer, Reason, Refusal},
    tls::CertificateNames,
};

/// What each method of the operators' listener asks for.
pub(crate) const OPERATOR_METHODS: &[(&str, Role)] = &[
    ("/ferrypost.v1.MigrationService/Migrate", Role::Operator),
    ("/ferrypost.v1.MigrationService/Rollback", Role::Operator),
    ("/ferrypost.v1.MigrationService/GetMigration", Role::Viewer),
    (
        "/ferrypost.v1.MigrationService/ListMigrations",
        Role::Viewer,
    ),
    ("/ferrypost.v1.MigrationService/WaitMigration", Role::Viewer),
    (
        "/ferrypost.v1.MigrationService/WatchMigration",
        Role::Viewer,
    ),
    (
        "/ferrypost.v1.MigrationService/WatchMigrations",
        Role::Viewer,
    ),
    (
        "/ferrypost.v1.MigrationService/AbortMigration",
        Role::Operator,
    ),
    ("/ferrypost.v1.PlacementService/GetPlacement", Role::Viewer),
    (
        "/ferrypost.v1.PlacementService/ListPlacements",
        Role::Viewer,
    ),
    (
        "/ferrypost.v1.PlacementService/SetPlacement",
        Role::Operator,
    ),
    (
        "/ferrypost.v1.PlacementService/DeletePlacement",
        Role::Operator,
    ),
    ("/ferrypost.v1.PlacementService/ExplainRoute", Role::Viewer),
    ("/ferrypost.v1.StatsService/GetStats", Role::Viewer),
    ("/ferrypost.v1.StatsService/ListDataPlanes", Role::Viewer),
    ("/ferrypost.v1.StatsService/ListDestinations", Role::Viewer),
    ("/ferrypost.v1.StatsService/ListSessions", Role::Viewer),
    (
        "/ferrypost.v1.StatsService/ListUnlistedLogins",
        Role::Viewer,
    ),
    ("/ferrypost.v1.StatsService/KickSessions", Role::Operator),
    ("/ferrypost.v1.StatsService/ExpelDataPlane", Role::Admin),
    ("/ferrypost.v1.StatsService/GetRewound", Role::Viewer),
    ("/ferrypost.v1.StatsService/ResolveRewound", Role::Admin),
    (
        "/ferrypost.v1.RoutingConfigService/GetRoutingConfig",
        Role::Viewer,
    ),
    (
        "/ferrypost.v1.RoutingConfigService/ApplyRoutingConfig",
        Role::Admin,
    ),
    (
        "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo",
        Role::Viewer,
    ),
    (
        "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo",
        Role::Viewer,
    ),
];

/// What a method of the operators' listener asks for; `None` for one that is not there.
pub(crate) fn needed_role(method: &str) -> Option<Role> {
    OPERATOR_METHODS
        .iter()
        .find(|(known, _)| *known == method)
        .map(|(_, role)| *role)
}

/// The one method of the data planes' listener.
pub(crate) const STREAM_METHOD: &str = "/ferrypost.routing.v1.RoutingService/Stream";

/// Answered without credentials on both listeners: load balancers and probes have none, and learn
/// nothing but yes or no.
pub(crate) const HEALTH_PREFIX: &str = "/grpc.health.v1.Health/";

/// Who calls. In every request's extensions once it has passed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Caller {
    /// For migrations and the log.
    pub(crate) name: Arc<str>,
    /// What they may do.
    pub(crate) role: Role,
}

/// Decides on the requests of one listener.
#[derive(Debug)]
pub(crate) enum Gate {
    /// The operators' listener.
    Operators(OperatorGate),
    /// The data planes' listener.
    DataPlanes(DataPlaneGate),
}

impl Gate {
    /// Who calls `method`, if they may; `None` for what needs no credentials.
    pub(crate) fn admit(
        &self,
        method: &str,
        headers: &HeaderMap,
        peer: Option<&Peer>,
    ) -> Answer<Option<Caller>> {
        if method.starts_with(HEALTH_PREFIX) {
            return Ok(None);
        }
        match self {
            Self::Operators(gate) => gate.admit(method, headers, peer).map(Some),
            Self::DataPlanes(gate) => gate.admit(method, headers, peer).map(|()| None),
        }
    }
}

/// The operators' listener.
#[derive(Debug)]
pub(crate) struct OperatorGate {
    tokens: Vec<KnownToken>,
    identities: Vec<IdentityConfig>,
}

#[derive(Debug)]
struct KnownToken {
    caller: Caller,
    token: Reloading<Token, TokenError>,
}

impl OperatorGate {
    /// Loads the tokens.
    ///
    /// # Errors
    /// When one of their files cannot be used.
    pub(crate) fn new(config: &Operators) -> anyhow::Result<Self> {
        let mut tokens = Vec::new();
        for token in &config.tokens {
            tokens.push(KnownToken {
                caller: Caller {
                    name: token.name.as_str().into(),
                    role: token.role,
                },
                token: watch(&token.file)?,
            });
        }
        Ok(Self {
            tokens,
            identities: config.identities.clone(),
        })
    }

    /// True when nobody is asked who they are, which only a loopback listener may do.
    pub(crate) fn is_open(&self) -> bool {
        self.tokens.is_empty() && self.identities.is_empty()
    }

    fn admit(&self, method: &str, headers: &HeaderMap, peer: Option<&Peer>) -> Answer<Caller> {
        let caller = self.identify(headers, peer)?;
        let Some(needed) = needed_role(method) else {
            return Err(unknown_method(method));
        };
        if caller.role >= needed {
            return Ok(caller);
        }
        let (has, needs) = (role_word(caller.role), role_word(needed));
        Err(Refusal::new(
            Reason::RoleTooLow,
            format!("{} is {has}; {method} needs {needs}", caller.name),
        )
        .with("caller", &caller.name)
        .with("role", has)
        .with("needed_role", needs))
    }

    fn identify(&self, headers: &HeaderMap, peer: Option<&Peer>) -> Answer<Caller> {
        if self.is_open() {
            return Ok(Caller {
                name: "anonymous".into(),
                role: Role::Admin,
            });
        }
        if headers.contains_key(AUTHORIZATION) {
            return self.by_token(headers).ok_or_else(|| {
                Refusal::new(
                    Reason::CredentialsRequired,
                    "the bearer token is not known here",
                )
            });
        }
        peer.and_then(|peer| peer.certificate.as_deref())
            .and_then(|certificate| self.by_certificate(certificate))
            .ok_or_else(|| {
                Refusal::new(
                    Reason::CredentialsRequired,
                    "show a client certificate that is listed under operators.identities, or send \
                     `authorization: Bearer <token>`",
                )
            })
    }

    /// Every token is compared, whether or not one has matched already.
    fn by_token(&self, headers: &HeaderMap) -> Option<Caller> {
        let shown = shown(headers)?;
        self.tokens
            .iter()
            .filter(|known| known.token.fresh().is(&shown))
            .map(|known| known.caller.clone())
            .last()
    }

    /// The highest role that any name in the certificate has.
    fn by_certificate(&self, certificate: &CertificateNames) -> Option<Caller> {
        self.identities
            .iter()
            .filter(|identity| identity.is(certificate))
            .map(|identity| identity.role)
            .max()
            .map(|role| Caller {
                name: certificate.label().into(),
                role,
            })
    }
}

impl IdentityConfig {
    /// Whether a certificate says this name.
    fn is(&self, certificate: &CertificateNames) -> bool {
        match &self.certificate {
            CertificateName::CommonName(name) => certificate.common_name.as_ref() == Some(name),
            CertificateName::AlternativeName(name) => certificate.alternative_names.contains(name),
        }
    }
}

/// The data planes' listener.
#[derive(Debug)]
pub(crate) struct DataPlaneGate {
    token: Option<Reloading<Token, TokenError>>,
    needs_certificate: bool,
    /// Whose certificates are operators': one authority may have signed both.
    operators: Vec<IdentityConfig>,
}

impl DataPlaneGate {
    /// Loads the token.
    ///
    /// # Errors
    /// When its file cannot be used.
    pub(crate) fn new(config: &DataPlanes, operators: &Operators) -> anyhow::Result<Self> {
        let client_ca = config.tls.as_ref().and_then(|tls| tls.client_ca.as_ref());
        Ok(Self {
            token: config.token.as_deref().map(watch).transpose()?,
            needs_certificate: client_ca.is_some(),
            operators: operators.identities.clone(),
        })
    }

    /// True when nobody is asked who they are.
    pub(crate) fn is_open(&self) -> bool {
        self.token.is_none() && !self.needs_certificate
    }

    fn admit(&self, method: &str, headers: &HeaderMap, peer: Option<&Peer>) -> Answer<()> {
        let certificate = peer.and_then(|peer| peer.certificate.as_deref());
        let refuse = |why| Err(Refusal::new(Reason::CredentialsRequired, why));
        if self.needs_certificate && certificate.is_none() {
            return refuse("a data plane shows a client certificate here");
        }
        if certificate.is_some_and(|shown| self.operators.iter().any(|known| known.is(shown))) {
            return refuse("an operator's certificate opens no stream");
        }
        if let Some(token) = &self.token {
            let shown = shown(headers);
            if !shown.is_some_and(|shown| token.fresh().is(&shown)) {
                return refuse("a data plane sends `authorization: Bearer <token>` here");
            }
        }
        if method != STREAM_METHOD {
            return Err(unknown_method(method));
        }
        Ok(())
    }
}

fn unknown_method(method: &str) -> Refusal {
    Refusal::new(
        Reason::MethodUnknown,
        format!("{method} is not served on this listener"),
    )
    .with("method", method)
}

/// The word for a role in the configuration and in answers.
pub(crate) const fn role_word(role: Role) -> &'static str {
    match role {
        Role::Viewer => "viewer",
        Role::Operator => "operator",
        Role::Admin => "admin",
    }
}

/// The token in a file, taken over again when the file changes.
fn watch(file: &Path) -> anyhow::Result<Reloading<Token, TokenError>> {
    let path = file.to_owned();
    let reloading = Reloading::new(vec![path.clone()], move || Token::read(&path));
    reloading.with_context(|| format!("the token in {}", file.display()))
}

/// The token that a request shows.
fn shown(headers: &HeaderMap) -> Option<Token> {
    Token::shown(headers.get(AUTHORIZATION)?.as_bytes())
}
