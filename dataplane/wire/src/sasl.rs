//! SASL mechanisms that can be replayed: what their messages mean, without any protocol's framing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::{
    Bearer, BearerFrame, Credentials, InvalidCredentials, Password, Secret, SecretWriter,
};
use crate::settings::Tokens;

/// What parts the fields of a token's frame (RFC 7628 §3.1).
const CONTROL_A: u8 = 0x01;

/// A mechanism whose credentials can be read here and sent again to a backend.
///
/// Not among them, for good: mechanisms that bind to the client's TLS channel, or in which the
/// server speaks first and so would have to know the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: a name and a password, asked for one by one.
    Login,
    /// A bearer token, in one of its frames.
    Bearer(BearerFrame),
}

impl Mechanism {
    /// The mechanism of this name, in whatever case.
    pub fn from_name(name: &[u8]) -> Option<Self> {
        const ALL: [Mechanism; 4] = [
            Mechanism::Plain,
            Mechanism::Login,
            Mechanism::Bearer(BearerFrame::OauthBearer),
            Mechanism::Bearer(BearerFrame::Xoauth2),
        ];
        ALL.into_iter()
            .find(|mechanism| name.eq_ignore_ascii_case(mechanism.name().as_bytes()))
    }

    /// Its name as registered. How it is offered is each protocol's own.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Plain => "PLAIN",
            Self::Login => "LOGIN",
            Self::Bearer(BearerFrame::OauthBearer) => "OAUTHBEARER",
            Self::Bearer(BearerFrame::Xoauth2) => "XOAUTH2",
        }
    }
}

/// Those of `ours` that may be offered before it is known which destination a client will have: what every one
/// can be replayed with, and a token's only where there is somebody who takes it and the driver can tell whose it
/// is.
pub fn offered<C>(
    ours: &[Mechanism],
    destinations: &[C],
    tokens: Tokens,
    can_replay: impl Fn(Mechanism, &C) -> bool,
) -> Vec<Mechanism> {
    let may = |mechanism: &Mechanism| {
        !matches!(mechanism, Mechanism::Bearer(_))
            || tokens == Tokens::Readable && !destinations.is_empty()
    };
    let everywhere =
        |mechanism: &Mechanism| destinations.iter().all(|it| can_replay(*mechanism, it));
    let fit = |mechanism: &&Mechanism| may(mechanism) && everywhere(mechanism);
    ours.iter().filter(fit).copied().collect()
}

/// The server's side of one exchange.
pub struct Exchange(State);

enum State {
    /// Waits for the one message of PLAIN.
    Plain,
    /// Waits for the name of LOGIN.
    LoginName,
    /// Waits for the password of LOGIN.
    LoginPassword(Secret),
    /// Waits for the one message that has a token.
    Bearer(BearerFrame),
}

/// What follows a response of the client.
pub enum Progress {
    /// Send the challenge of this exchange and wait for the next response.
    Challenge(Exchange),
    /// The client has said everything. After a no to a token, the backend's
    /// [last challenge](crate::Rejection::challenge) comes first.
    Done(Credentials),
}

impl Exchange {
    /// Begins with the client's first response, or with its challenge.
    pub fn new(mechanism: Mechanism) -> Self {
        Self(match mechanism {
            Mechanism::Plain => State::Plain,
            Mechanism::Login => State::LoginName,
            Mechanism::Bearer(frame) => State::Bearer(frame),
        })
    }

    /// The challenge that asks for the next response, in base64.
    pub fn challenge(&self) -> &'static str {
        match self.0 {
            State::Plain | State::Bearer(_) => "",
            // "Username:" and "Password:", which some clients compare.
            State::LoginName => "VXNlcm5hbWU6",
            State::LoginPassword(_) => "UGFzc3dvcmQ6",
        }
    }

    /// Whether `response` is the first one, and not a way to say that there is none: the name of LOGIN is not
    /// empty.
    pub fn takes_first(&self, response: &[u8]) -> bool {
        !(matches!(self.0, State::LoginName) && response.is_empty())
    }

    /// Takes a response, in base64.
    ///
    /// # Errors
    /// [`InvalidCredentials`]: it is a failed login.
    pub fn respond(self, response: &[u8]) -> Result<Progress, InvalidCredentials> {
        let response = decode(response)?;
        match self.0 {
            State::Plain => plain(&response).map(Progress::Done),
            State::LoginName => Ok(Progress::Challenge(Self(State::LoginPassword(response)))),
            State::LoginPassword(name) => {
                Credentials::password(b"", name.octets(), response).map(Progress::Done)
            }
            State::Bearer(frame) => {
                bearer(frame, &response).map(|bearer| Progress::Done(Credentials::Bearer(bearer)))
            }
        }
    }
}

/// A client's messages, one by one, in the best mechanism that carries these credentials and for which `offered`
/// holds. `None` if there is none.
pub fn messages(
    credentials: &Credentials,
    offered: impl Fn(Mechanism) -> bool,
) -> Option<(Mechanism, Vec<Secret>)> {
    match credentials {
        Credentials::Password(login) if offered(Mechanism::Plain) => {
            Some((Mechanism::Plain, vec![encode_plain(login)]))
        }
        // Only PLAIN itself can say whom to act as.
        Credentials::Password(login) if offered(Mechanism::Login) && !login.acts_as_another() => {
            let name = copy(login.authentication().as_bytes());
            let password = copy(login.password().octets());
            Some((Mechanism::Login, vec![name, password]))
        }
        Credentials::Password(_) => None,
        Credentials::Bearer(bearer) => {
            let mechanism = Mechanism::Bearer(bearer.frame());
            offered(mechanism).then(|| (mechanism, vec![encode_bearer(bearer)]))
        }
    }
}

/// The client's answer, in base64, to the challenge by which a server ends a token's exchange without
/// success (RFC 7628 §3.2.3): that it has been read.
pub const fn acknowledgement(frame: BearerFrame) -> &'static str {
    match frame {
        BearerFrame::OauthBearer => "AQ==",
        BearerFrame::Xoauth2 => "",
    }
}

/// A message that a client's side is to send, in base64.
pub fn encode_base64(octets: &[u8]) -> String {
    STANDARD.encode(octets)
}

/// A challenge, decoded; `None` if it is not base64.
pub fn decode_challenge(challenge: &[u8]) -> Option<Vec<u8>> {
    STANDARD.decode(challenge).ok()
}

/// The one message of PLAIN: `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &Secret) -> Result<Credentials, InvalidCredentials> {
    let mut parts = message.octets().splitn(3, |&octet| octet == 0);
    let (Some(authorization), Some(authentication), Some(password)) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Err(InvalidCredentials::Malformed);
    };
    Credentials::password(authorization, authentication, copy(password))
}

/// The one message of PLAIN that says the same.
pub fn encode_plain(login: &Password) -> Secret {
    let authorization = login.authorization().unwrap_or_default();
    let authentication = login.authentication();
    let length = authorization.len() + authentication.len() + login.password().len() + 2;
    SecretWriter::with_capacity(length)
        .text(authorization.as_bytes())
        .text(b"\0")
        .text(authentication.as_bytes())
        .text(b"\0")
        .secret(login.password())
        .finish()
}

/// The one message that has a token: fields that end with `^A`, and one more `^A` (RFC 7628 §3.1).
fn bearer(frame: BearerFrame, message: &Secret) -> Result<Bearer, InvalidCredentials> {
    let malformed = InvalidCredentials::Malformed;
    let fields = message
        .octets()
        .strip_suffix(&[CONTROL_A, CONTROL_A])
        .ok_or(malformed)?;
    let mut fields = fields.split(|&octet| octet == CONTROL_A);
    let head = fields.next().ok_or(malformed)?;
    let name = match frame {
        BearerFrame::OauthBearer => gs2_name(head)?,
        BearerFrame::Xoauth2 => head.strip_prefix(b"user=").ok_or(malformed)?.to_vec(),
    };
    let (mut token, mut host, mut port) = (None, None, None);
    for field in fields {
        if let Some(value) = field.strip_prefix(b"auth=") {
            token = Some(token_of(value).ok_or(malformed)?);
        } else if let Some(value) = field.strip_prefix(b"host=") {
            host = Some(value);
        } else if let Some(value) = field.strip_prefix(b"port=") {
            let value = str::from_utf8(value).map_err(|_| malformed)?;
            port = Some(value.parse().map_err(|_| malformed)?);
        }
    }
    Bearer::new(frame, &name, copy(token.ok_or(malformed)?))?.at(host, port)
}

/// What stands behind the scheme, which is compared without regard to case (RFC 6750 §2.1).
fn token_of(value: &[u8]) -> Option<&[u8]> {
    const SCHEME: &[u8] = b"Bearer ";
    let (scheme, token) = value.split_at_checked(SCHEME.len())?;
    scheme.eq_ignore_ascii_case(SCHEME).then_some(token)
}

/// The name in a GS2 header without channel binding: `n,a=name,` or `n,,` (RFC 5801 §4).
fn gs2_name(header: &[u8]) -> Result<Vec<u8>, InvalidCredentials> {
    let malformed = InvalidCredentials::Malformed;
    let parts: Vec<_> = header.split(|&octet| octet == b',').collect();
    let [b"n" | b"y", name, b""] = parts.as_slice() else {
        return Err(malformed);
    };
    if name.is_empty() {
        return Ok(Vec::new());
    }
    let name = str::from_utf8(name.strip_prefix(b"a=").ok_or(malformed)?);
    let name = name.map_err(|_| InvalidCredentials::NotUtf8)?;
    let escapes = name.matches('=').count();
    if escapes != name.matches("=2C").count() + name.matches("=3D").count() {
        return Err(malformed);
    }
    Ok(name.replace("=2C", ",").replace("=3D", "=").into_bytes())
}

/// The one message that says the same as `bearer`, in the frame in which it came.
pub fn encode_bearer(bearer: &Bearer) -> Secret {
    let name = bearer.name();
    let mut head = match (bearer.frame(), name) {
        (BearerFrame::Xoauth2, name) => format!("user={}\x01", name.unwrap_or_default()),
        (BearerFrame::OauthBearer, None) => "n,,\x01".to_owned(),
        (BearerFrame::OauthBearer, Some(name)) => {
            let name = name.replace('=', "=3D").replace(',', "=2C");
            format!("n,a={name},\x01")
        }
    };
    if bearer.frame() == BearerFrame::OauthBearer {
        if let Some(host) = bearer.host() {
            head.extend(["host=", host, "\x01"]);
        }
        if let Some(port) = bearer.port() {
            head.extend(["port=", &port.to_string(), "\x01"]);
        }
    }
    SecretWriter::with_capacity(head.len() + bearer.token().len() + 16)
        .text(head.as_bytes())
        .text(b"auth=Bearer ")
        .secret(bearer.token())
        .text(&[CONTROL_A, CONTROL_A])
        .finish()
}

fn copy(octets: &[u8]) -> Secret {
    SecretWriter::with_capacity(octets.len())
        .text(octets)
        .finish()
}

fn decode(response: &[u8]) -> Result<Secret, InvalidCredentials> {
    let mut octets = Zeroizing::new(vec![0; response.len().div_ceil(4) * 3]);
    let length = STANDARD
        .decode_slice(response, &mut octets)
        .map_err(|_| InvalidCredentials::Malformed)?;
    octets.truncate(length);
    Ok(Secret::new(octets))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn done(progress: Result<Progress, InvalidCredentials>) -> Password {
        match progress {
            Ok(Progress::Done(Credentials::Password(password))) => password,
            _ => panic!("the exchange is not over"),
        }
    }

    fn token(frame: BearerFrame, message: &[u8]) -> Result<Bearer, InvalidCredentials> {
        let exchange = Exchange::new(Mechanism::Bearer(frame));
        match exchange.respond(STANDARD.encode(message).as_bytes())? {
            Progress::Done(Credentials::Bearer(bearer)) => Ok(bearer),
            _ => panic!("the exchange is not over"),
        }
    }

    #[test]
    fn every_mechanism_is_found_by_its_name() {
        for name in ["PLAIN", "LOGIN", "OAUTHBEARER", "XOAUTH2"] {
            let found = Mechanism::from_name(name.to_ascii_lowercase().as_bytes());
            assert_eq!(found.map(Mechanism::name), Some(name));
        }
        assert_eq!(Mechanism::from_name(b"SCRAM-SHA-256-PLUS"), None);
    }

    #[test]
    fn a_token_s_mechanism_is_offered_where_somebody_takes_it_and_its_owner_can_be_told() {
        let bearer = Mechanism::Bearer(BearerFrame::OauthBearer);
        let ours = [Mechanism::Plain, bearer];
        let offered = |destinations: &[bool], tokens| {
            offered(&ours, destinations, tokens, |mechanism, takes_tokens| {
                mechanism == Mechanism::Plain || *takes_tokens
            })
        };
        assert_eq!(offered(&[true, true], Tokens::Readable), ours);
        let plain = [Mechanism::Plain];
        assert_eq!(offered(&[true, true], Tokens::Unreadable), plain);
        assert_eq!(offered(&[true, false], Tokens::Readable), plain);
        assert_eq!(offered(&[], Tokens::Readable), plain);
    }

    #[test]
    fn a_token_is_sent_on_in_its_frame_with_all_that_was_said_beside_it() {
        for message in [
            "n,,\x01auth=Bearer t0ken==\x01\x01",
            "n,a=al=2Cice=3D@example.org,\x01host=mail.example.org\x01port=143\x01auth=Bearer t\x01\x01",
        ] {
            let read = token(BearerFrame::OauthBearer, message.as_bytes())
                .ok()
                .unwrap();
            assert_eq!(encode_bearer(&read).expose(), message.as_bytes());
        }
        let message = b"user=alice@example.org\x01auth=Bearer t\x01\x01";
        let read = token(BearerFrame::Xoauth2, message).ok().unwrap();
        assert_eq!(read.name(), Some("alice@example.org"));
        assert_eq!(encode_bearer(&read).expose(), message);
        let nameless = token(BearerFrame::Xoauth2, b"user=\x01auth=bearer t\x01\x01");
        assert_eq!(nameless.ok().unwrap().name(), None);
    }

    #[test]
    fn the_name_in_a_frame_is_read_with_its_escapes() {
        let read = token(
            BearerFrame::OauthBearer,
            b"n,a=al=2Cice=3D,\x01auth=Bearer t\x01\x01",
        );
        assert_eq!(read.ok().unwrap().name(), Some("al,ice="));
    }

    #[test]
    fn a_frame_that_is_not_one_is_refused() {
        for message in [
            &b"n,,\x01auth=Bearer t\x01"[..],
            b"n,,\x01\x01",
            b"p=tls-unique,,\x01auth=Bearer t\x01\x01",
            b"n,a=al=ice,\x01auth=Bearer t\x01\x01",
            b"n,b=alice,\x01auth=Bearer t\x01\x01",
            b"n,,\x01port=66000\x01auth=Bearer t\x01\x01",
            b"n,,\x01auth=Basic t\x01\x01",
            b"user=alice\x01auth=Bearer t\x01\x01",
        ] {
            let refused = token(BearerFrame::OauthBearer, message);
            assert!(refused.is_err(), "{}", message.escape_ascii());
        }
        assert!(token(BearerFrame::Xoauth2, b"n,,\x01auth=Bearer t\x01\x01").is_err());
    }

    #[test]
    fn plain_tells_whom_to_act_as_from_whose_password_it_is() {
        // alice NUL admin NUL secret
        let read = done(Exchange::new(Mechanism::Plain).respond(b"YWxpY2UAYWRtaW4Ac2VjcmV0"));
        assert_eq!(read.authorization(), Some("alice"));
        assert_eq!(read.authentication(), "admin");
        assert_eq!(read.password().expose(), b"secret");
        assert_eq!(encode_plain(&read).expose(), b"alice\0admin\0secret");
    }

    #[test]
    fn login_asks_for_the_name_and_then_for_the_password() {
        let exchange = Exchange::new(Mechanism::Login);
        assert_eq!(exchange.challenge(), "VXNlcm5hbWU6");
        let Ok(Progress::Challenge(exchange)) = exchange.respond(b"YWxpY2U=") else {
            panic!("the password was not asked for");
        };
        assert_eq!(exchange.challenge(), "UGFzc3dvcmQ6");
        let read = done(exchange.respond(b"c2VjcmV0"));
        assert_eq!(read.name(), "alice");
        assert_eq!(read.password().expose(), b"secret");
    }

    #[test]
    fn base64_garbage_is_refused() {
        for garbage in [
            &b"!"[..],
            b"YWxpY2U",
            b"YWxpY2U=\0",
            b"A",
            b"====",
            b"YWxpY2V=",
        ] {
            assert!(
                Exchange::new(Mechanism::Plain).respond(garbage).is_err(),
                "{garbage:?}"
            );
        }
    }

    #[test]
    fn a_plain_message_with_too_few_or_too_many_parts_is_refused() {
        for message in ["alice", "\0alice", "\0alice\0secret\0more"] {
            let encoded = STANDARD.encode(message);
            assert!(
                Exchange::new(Mechanism::Plain)
                    .respond(encoded.as_bytes())
                    .is_err(),
                "{message:?}"
            );
        }
    }
}
