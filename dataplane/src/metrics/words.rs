//! The closed sets of words that attributes are made of, each an enum: what counts must have a value of it, and the
//! instrument's attribute has the words of all its values, so that neither can know one that the other does not.

use strum::{EnumIter, IntoStaticStr, VariantNames};

/// Whose fault an end is: the first question of every operator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum Blame {
    /// Nobody's: it ended as sessions end.
    Nobody,
    /// The client's.
    Client,
    /// The server's behind us.
    Backend,
    /// Ours, or our operator's.
    Us,
    /// The control plane's.
    ControlPlane,
}

/// How a login ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum LoginOutcome {
    /// It is relayed.
    Accepted,
    /// Not credentials.
    Malformed,
    /// No canonical name.
    NoName,
    /// Two names, and a server that is not known to heed the one that it is routed by.
    SecondName,
    /// A bearer token whose owner nobody here can tell.
    TokenUnread,
    /// A bearer token that its issuer does not know.
    TokenRefused,
    /// The issuer of bearer tokens could not be asked.
    IssuerAway,
    /// The name goes nowhere, as configured.
    Refused,
    /// There was no table yet.
    NoTable,
    /// As many logins as may be were held.
    TooManyHeld,
    /// The name stayed fenced for as long as a login is held.
    HeldTooLong,
    /// The destination has no endpoint for the protocol.
    NoEndpoint,
    /// It had come round: data planes pass it on to each other.
    GoneRound,
    /// The server fails one client after the other, so that the login was not tried.
    BreakerOpen,
    /// The server was not brought to take a login.
    BackendUnavailable,
    /// The server gave no verdict.
    NoVerdict,
    /// The server said no to the credentials.
    Rejected,
    /// The server said no for a reason of its own.
    ServerRefused,
    /// The name went elsewhere meanwhile.
    RouteChanged,
    /// The client went away meanwhile.
    ClientGone,
    /// Told to end: the account moved.
    Moved,
    /// Told to end by an operator.
    Kicked,
    /// Told to end with the process.
    Stopping,
    /// Told to end with the data plane's registration.
    Expelled,
}

/// Who is asked whose a bearer token is. The words of `tokens.owner` too.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum TokenWay {
    /// The token itself: Stalwart's carry the address of their account.
    Stalwart,
    /// The token's claims.
    Jwt,
    /// Its issuer.
    Introspection,
    /// The server: it is taken to hold the name beside the token against it.
    NameBeside,
}

impl TokenWay {
    /// All of them.
    pub const ALL: [Self; 4] = [
        Self::Stalwart,
        Self::Jwt,
        Self::Introspection,
        Self::NameBeside,
    ];
}

/// What came of the question whose a bearer token is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum TokenOutcome {
    /// Its owner.
    Told,
    /// It is not of the kind that is read there.
    Unread,
    /// Its issuer does not know it, or it is forged.
    Refused,
    /// The issuer could not be asked.
    Away,
}

/// What a mail system was told that asked for the way of a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum LookupOutcome {
    /// A next hop.
    Found,
    /// That the account is being moved.
    Held,
    /// That the recipient is none of ours.
    NotFound,
    /// That it cannot be said now.
    Unavailable,
}

/// What became of a message for one recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames, EnumIter)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum DeliveryOutcome {
    /// Its server has taken it.
    Delivered,
    /// Its server said no for good.
    Rejected,
    /// Its server said no for now.
    ServerDeferred,
    /// Its account is being moved, or was moved meanwhile.
    Held,
    /// Its domain is none of ours.
    NotServed,
    /// Its domain has nobody of this name.
    Unlisted,
    /// There was no table yet.
    NoTable,
    /// The destination has no endpoint for the protocol.
    NoEndpoint,
    /// Its server is one of our own listeners.
    GoneRound,
    /// Its server could not be brought to take messages.
    BackendUnavailable,
    /// Its server cannot take a message like this.
    Unsupported,
    /// Its server was lost before it had the whole message.
    Lost,
    /// Its server did not say what became of the whole message.
    Unanswered,
    /// By SMTP: it is on another server than the message's first recipient, and comes again in a message of its own.
    Elsewhere,
    /// The message had passed too many servers.
    Loop,
    /// There was a bare CR or LF in the message.
    BareLineEnd,
    /// The mail system took it back, or went away before the message was whole.
    Withdrawn,
    /// Told to end by an operator.
    Kicked,
    /// Told to end with the process.
    Stopping,
    /// Told to end with the data plane's registration.
    Expelled,
}

/// How a request by HTTP ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum ExchangeOutcome {
    /// A server answered it, whatever it said.
    Answered,
    /// It was answered here: it is for no server.
    AnsweredHere,
    /// It is malformed, or can be read in two ways, or no rule is for it.
    Refused,
    /// It says of no account whose it is.
    Challenged,
    /// What it says is no canonical name.
    NoName,
    /// Two names, and a server that is not known to heed the one that it is routed by.
    SecondName,
    /// A bearer token whose owner nobody here can tell.
    TokenUnread,
    /// A bearer token that its issuer does not know.
    TokenRefused,
    /// The issuer of bearer tokens could not be asked.
    IssuerAway,
    /// The name goes nowhere, as configured.
    NoRoute,
    /// There was no table yet.
    NoTable,
    /// As many as may be were held.
    TooManyHeld,
    /// The name stayed fenced for as long as one is held.
    HeldTooLong,
    /// The destination has no endpoint for HTTP.
    NoEndpoint,
    /// Data planes pass it on to each other.
    GoneRound,
    /// The server fails one client after the other, so that it was not tried.
    BreakerOpen,
    /// There was no connection to the server.
    BackendUnavailable,
    /// The server's connection was lost before the end of its answer.
    Lost,
    /// The server did not answer in time.
    Unanswered,
    /// The server's answer is malformed.
    BadResponse,
    /// The client sent or took nothing for too long.
    ClientStuck,
    /// The client went away meanwhile.
    ClientGone,
    /// Told to end: the account moved.
    Moved,
    /// Told to end by an operator.
    Kicked,
    /// Told to end with the process.
    Stopping,
    /// Told to end with the data plane's registration.
    Expelled,
}

/// Where a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum EndStage {
    /// In its TLS handshake.
    Tls,
    /// Before it was relayed.
    Preauth,
    /// In its relay.
    Relay,
    /// While it delivered.
    Delivery,
}

/// How a session ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case", const_into_str)]
pub enum SessionEnd {
    /// No TLS version, cipher suite or key exchange was the client's and ours.
    TlsTooOld,
    /// The TLS handshake failed otherwise.
    HandshakeFailed,
    /// The TLS handshake did not end in time.
    HandshakeTimeout,
    /// The client ended the connection.
    ClientEnded,
    /// The client's connection failed.
    ClientFailed,
    /// The client broke the protocol.
    ProtocolError,
    /// The client logged out without having logged in.
    ClientLeft,
    /// Nobody logged in in time.
    LoginTimeout,
    /// Too many logins failed.
    TooManyFailures,
    /// Our own machine asked for what has no place where it asked.
    MachineError,
    /// A connection that is passed through was not passed on to its server.
    NotPassedOn,
    /// The server ended the connection.
    BackendEnded,
    /// The server's connection failed.
    BackendFailed,
    /// Nothing was said for too long.
    Idle,
    /// The client did not take what it was sent.
    ClientStuck,
    /// The server did not take what it was sent.
    BackendStuck,
    /// The client gave a command that no relay can follow.
    RefusedCommand,
    /// There was no room for what one side did not take.
    NoRoom,
    /// Told to end: the account moved.
    Moved,
    /// Told to end by an operator.
    Kicked,
    /// Told to end with the process.
    Stopping,
    /// Told to end with the data plane's registration.
    Expelled,
}
