//! SASL mechanisms that can be replayed: what their messages mean, without any protocol's framing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

use crate::secret::{Credentials, InvalidCredentials, Secret, SecretWriter};

/// A mechanism whose credentials can be read here and sent again to a backend.
///
/// Not among them, for good: mechanisms that bind to the client's TLS channel, or in which the
/// server speaks first and so would have to know the account.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mechanism {
    /// RFC 4616.
    Plain,
    /// draft-murchison-sasl-login: a name and a password, asked for one by one.
    Login,
}

impl Mechanism {
    pub(crate) fn from_name(name: &[u8]) -> Option<Self> {
        if name.eq_ignore_ascii_case(b"PLAIN") {
            Some(Self::Plain)
        } else if name.eq_ignore_ascii_case(b"LOGIN") {
            Some(Self::Login)
        } else {
            None
        }
    }

    /// The word by which a server offers it.
    pub(crate) fn capability(self) -> &'static str {
        match self {
            Self::Plain => "AUTH=PLAIN",
            Self::Login => "AUTH=LOGIN",
        }
    }
}

/// The server's side of one exchange.
pub(crate) enum Exchange {
    /// Waits for the one message of PLAIN.
    Plain,
    /// Waits for the name of LOGIN.
    LoginName,
    /// Waits for the password of LOGIN.
    LoginPassword(Secret),
}

/// What follows a response of the client.
pub(crate) enum Progress {
    /// Send the challenge of this exchange and wait for the next response.
    Challenge(Exchange),
    /// The client has said everything.
    Done(Credentials),
}

impl Exchange {
    pub(crate) fn new(mechanism: Mechanism) -> Self {
        match mechanism {
            Mechanism::Plain => Self::Plain,
            Mechanism::Login => Self::LoginName,
        }
    }

    /// The challenge that asks for the next response, in base64.
    pub(crate) fn challenge(&self) -> &'static str {
        match self {
            Self::Plain => "",
            // "Username:" and "Password:", which some clients compare.
            Self::LoginName => "VXNlcm5hbWU6",
            Self::LoginPassword(_) => "UGFzc3dvcmQ6",
        }
    }

    /// Whether `response` is the first one, and not a way to say that there is none: the name of LOGIN is not
    /// empty.
    pub(crate) fn takes_first(&self, response: &[u8]) -> bool {
        !(matches!(self, Self::LoginName) && response.is_empty())
    }

    /// Takes a response, in base64.
    pub(crate) fn respond(self, response: &[u8]) -> Result<Progress, InvalidCredentials> {
        let response = decode(response)?;
        match self {
            Self::Plain => plain(&response).map(Progress::Done),
            Self::LoginName => Ok(Progress::Challenge(Self::LoginPassword(response))),
            Self::LoginPassword(name) => {
                Credentials::new(b"", name.octets(), response).map(Progress::Done)
            }
        }
    }
}

/// The one message of PLAIN: `[authzid] NUL authcid NUL passwd` (RFC 4616 §2).
fn plain(message: &Secret) -> Result<Credentials, InvalidCredentials> {
    let mut parts = message.octets().splitn(3, |&octet| octet == 0);
    let (Some(authorization), Some(authentication), Some(password)) =
        (parts.next(), parts.next(), parts.next())
    else {
        return Err(InvalidCredentials::Malformed);
    };
    let password = SecretWriter::with_capacity(password.len()).text(password);
    Credentials::new(authorization, authentication, password.finish())
}

/// The one message of PLAIN that says the same as `credentials`.
pub(crate) fn encode_plain(credentials: &Credentials) -> Secret {
    let authorization = credentials.authorization().unwrap_or_default();
    let authentication = credentials.authentication();
    let length = authorization.len() + authentication.len() + credentials.password().len() + 2;
    SecretWriter::with_capacity(length)
        .text(authorization.as_bytes())
        .text(b"\0")
        .text(authentication.as_bytes())
        .text(b"\0")
        .secret(credentials.password())
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

    fn done(progress: Result<Progress, InvalidCredentials>) -> Credentials {
        match progress {
            Ok(Progress::Done(credentials)) => credentials,
            _ => panic!("the exchange is not over"),
        }
    }

    #[test]
    fn plain_tells_whom_to_act_as_from_whose_password_it_is() {
        // alice NUL admin NUL secret
        let read = done(Exchange::Plain.respond(b"YWxpY2UAYWRtaW4Ac2VjcmV0"));
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
            assert!(Exchange::Plain.respond(garbage).is_err(), "{garbage:?}");
        }
    }

    #[test]
    fn a_plain_message_with_too_few_or_too_many_parts_is_refused() {
        for message in ["alice", "\0alice", "\0alice\0secret\0more"] {
            let encoded = STANDARD.encode(message);
            assert!(
                Exchange::Plain.respond(encoded.as_bytes()).is_err(),
                "{message:?}"
            );
        }
    }
}
