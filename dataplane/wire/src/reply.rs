//! What is said to a client, what a backend's verdict was, and how peers break the rules.

use crate::secret::InvalidCredentials;
use crate::text::printable;

/// The longest text of a backend that is passed on, in octets. Long enough for a sentence and a
/// link; a backend that says more is not worth a client's parser.
pub(crate) const MAX_PASSED_TEXT: usize = 240;

/// The longest code that is kept, in octets, and the longest last challenge.
const MAX_CODE: usize = 32;
const MAX_CHALLENGE: usize = 4096;

/// An answer to a login, or an end of the session, decided by the driver. The only words of ours
/// that a client can ever read, beside the machines' own answers to commands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientReply {
    /// The login is wrong as far as anybody can tell: unknown name, wrong password, refused
    /// domain. One text for all of them, so that they look alike.
    AuthFailed,
    /// What the client offered cannot be credentials. Closes the session where the end of it was not
    /// looked for.
    Unfit(InvalidCredentials),
    /// The backend said no.
    Rejected(Rejection),
    /// For now, the login can neither be accepted nor refused (no route known, backend away, held
    /// for too long). Never an authentication failure: clients would ask for a new password.
    Unavailable,
    /// The session ends; a pending login gets a temporary error first.
    Closing(Farewell),
}

impl ClientReply {
    /// Whether the driver closes the session after this.
    pub fn closes(&self) -> bool {
        matches!(
            self,
            Self::Closing(_) | Self::Unfit(InvalidCredentials::TooLong)
        )
    }
}

/// Why a session is ended by us. A closed set, fit for a metric label.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Farewell {
    /// The account is moving or has moved to another server: come back and be served there.
    Moved,
    /// An operator ended the session.
    Kicked,
    /// This process stops.
    ShuttingDown,
    /// Too many sessions, for this address or altogether.
    TooMany,
    /// Too many failed logins on this connection.
    TooManyFailures,
    /// Nothing was said for too long.
    IdleTimeout,
    /// The login was not over in time.
    LoginTimeout,
    /// The client tried to log in anew on a connection that belongs to one account.
    Relogin,
    /// The client broke the protocol.
    ProtocolError,
}

/// What kind of refusal a [`Rejection`] is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RejectionKind {
    /// Name or password are wrong: the backend says so. Counts as a failed login.
    Credentials,
    /// The backend did not say why, or in words that mean nothing here. Counts as a failed login, but
    /// the client is not told that its password is wrong, at which it would drop it.
    Unexplained,
    /// The backend cannot say for now; the same login may succeed later.
    Temporary,
    /// The login is understood and will not succeed until something is done about it (expired
    /// password, disabled account).
    Policy,
}

/// A backend's refusal of a login, with the code and text that may be passed on to the client.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rejection {
    kind: RejectionKind,
    code: Option<&'static str>,
    text: String,
    said: Option<String>,
    is_about_the_login: bool,
    challenge: Option<Vec<u8>>,
}

impl Rejection {
    /// A wrong name or password, which is said in our words.
    pub fn credentials() -> Self {
        Self {
            kind: RejectionKind::Credentials,
            code: None,
            text: String::new(),
            said: None,
            is_about_the_login: true,
            challenge: None,
        }
    }

    /// A refusal without a reason that could be passed on.
    pub fn unexplained() -> Self {
        Self {
            kind: RejectionKind::Unexplained,
            ..Self::credentials()
        }
    }

    /// A refusal that is passed on with `code`, one of the machine's own constants as its protocol writes
    /// it (`UNAVAILABLE`, `SYS/TEMP`, `454 4.7.0`), and `text`, the backend's, of which only what is
    /// printable is kept, up to a limit.
    pub fn passed_on(kind: RejectionKind, code: &'static str, text: &[u8]) -> Self {
        Self {
            kind,
            code: Some(code),
            text: printable(text, MAX_PASSED_TEXT),
            said: None,
            is_about_the_login: true,
            challenge: None,
        }
    }

    /// The same with the backend's own code, which is kept if it can be one, and whether that code says
    /// that the login is wrong.
    #[must_use]
    pub fn with_server_code(self, code: &str, is_about_the_login: bool) -> Self {
        let is_one = (1..=MAX_CODE).contains(&code.len()) && is_code(code);
        Self {
            said: is_one.then(|| code.to_owned()),
            is_about_the_login,
            ..self
        }
    }

    /// The same in the backend's own words, of which only what is printable is kept, up to a limit: for a refusal
    /// that shows anyway which server it comes from.
    #[must_use]
    pub fn in_words(self, text: &[u8]) -> Self {
        Self {
            text: printable(text, MAX_PASSED_TEXT),
            ..self
        }
    }

    /// The same with the challenge that the backend ended a bearer token's exchange with, decoded
    /// (RFC 7628 §3.2.2): the client may read it before it is told no. One that is too long is left out.
    #[must_use]
    pub fn with_challenge(self, challenge: Vec<u8>) -> Self {
        Self {
            challenge: Some(challenge).filter(|octets| octets.len() <= MAX_CHALLENGE),
            ..self
        }
    }

    /// What kind of refusal it is.
    pub fn kind(&self) -> RejectionKind {
        self.kind
    }

    /// The backend's machine-readable code, passed on or not, for the operator's eyes: at most 32 octets.
    /// `None` if it gave none.
    pub fn server_code(&self) -> Option<&str> {
        self.said.as_deref()
    }

    /// Whether it is the client that the backend finds fault with: it says so, or gives no reason. Otherwise
    /// the reason is the server's own (overloaded, locked, misconfigured).
    pub fn is_about_the_login(&self) -> bool {
        self.is_about_the_login
    }

    /// The protocol's machine-readable code, if it is passed on.
    pub fn code(&self) -> Option<&'static str> {
        self.code
    }

    /// The backend's text, printable and shortened; empty if it is not passed on.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// What the client is to be challenged with once more before it is told no, decoded.
    pub fn challenge(&self) -> Option<&[u8]> {
        self.challenge.as_deref()
    }
}

/// Capitals in one word (`SYS/TEMP`), or numbers (`454 4.7.0`): anything else may be the beginning of a
/// sentence about somebody.
fn is_code(code: &str) -> bool {
    let is_word = |octet: u8| octet.is_ascii_uppercase() || octet == b'-' || octet == b'/';
    let is_number = |octet: u8| octet.is_ascii_digit() || octet == b'.' || octet == b' ';
    code.bytes().all(is_word) || code.bytes().all(is_number)
}

/// How a client broke the rules so that its session must end. The client's fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum ClientViolation {
    /// A command line exceeds its limit.
    #[error("the client sent a line that is too long")]
    LineTooLong,
    /// A literal of an impossible length, which cannot be declined, since the client does not wait.
    #[error("the client announced a literal that is too long")]
    LiteralTooLong,
    /// More commands than a login takes.
    #[error("the client sent too many commands without logging in")]
    TooManyCommands,
    /// More mistakes than a login takes.
    #[error("the client made too many mistakes")]
    TooManyErrors,
    /// It speaks HTTP (a browser was sent here by somebody else: ALPACA, CVE-2021-3618), or TLS
    /// where none is expected.
    #[error("the client speaks another protocol")]
    ForeignProtocol,
}

/// How a backend broke the rules, so that nothing can be said about the login. The backend's fault;
/// the client gets a temporary error.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum BackendViolation {
    /// It ended the session instead of answering.
    #[error("the backend said goodbye")]
    Bye,
    /// It takes us for someone who is logged in already.
    #[error("the backend greeted us as logged in already")]
    Preauthenticated,
    /// Its greeting is not one of this protocol.
    #[error("the backend's greeting was not understood")]
    ForeignGreeting,
    /// It does not offer the TLS upgrade that its configuration demands.
    #[error("the backend does not offer STARTTLS")]
    StartTlsMissing,
    /// It refused the TLS upgrade that it had offered.
    #[error("the backend refused STARTTLS")]
    StartTlsRefused,
    /// It does not offer the command by which its configuration wants the client announced.
    #[error("the backend does not offer the announcement of the client")]
    AnnounceMissing,
    /// It refused the announcement of the client.
    #[error("the backend refused the announcement of the client")]
    AnnounceRefused,
    /// It took what went before on the connection for an error of ours: it knows no PROXY header, or not from
    /// us.
    #[error("the backend does not expect a PROXY header")]
    PrefaceRefused,
    /// It would not say what it offers.
    #[error("the backend does not say what it offers")]
    CapabilitiesMissing,
    /// It offers no way to log in that can carry these credentials.
    #[error("the backend offers no way to pass on this login")]
    NoMechanism,
    /// It called the login a protocol error, which says nothing about the credentials.
    #[error("the backend did not understand the login")]
    LoginNotUnderstood,
    /// It said something that has no place there.
    #[error("the backend's answer was not understood")]
    Malformed,
    /// It said more than the limits allow.
    #[error("the backend's answer is too long")]
    ReplyTooLong,
    /// The machine was given credentials before it was ready: a mistake of ours, and harmless.
    #[error("the backend was not ready for a login")]
    NotReady,
}
