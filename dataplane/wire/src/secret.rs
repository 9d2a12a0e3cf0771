//! Secrets, and the only ways to make, compose and read them.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use zeroize::Zeroizing;

/// Octets that must not be seen: wiped when dropped, never printed, copied or compared.
///
/// ```compile_fail
/// fn leak(secret: ferrypost_wire::Secret) { println!("{secret:?}"); }
/// ```
/// ```compile_fail
/// fn leak(secret: ferrypost_wire::Secret) { println!("{secret}"); }
/// ```
/// ```compile_fail
/// fn copy(secret: &ferrypost_wire::Secret) -> ferrypost_wire::Secret { secret.clone() }
/// ```
/// ```compile_fail
/// fn same(a: &ferrypost_wire::Secret, b: &ferrypost_wire::Secret) -> bool { a == b }
/// ```
pub struct Secret(Zeroizing<Vec<u8>>);

impl Secret {
    /// Takes octets that have been wiped wherever else they were.
    pub fn new(octets: Zeroizing<Vec<u8>>) -> Self {
        Self(octets)
    }

    /// How many octets it has.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether it has none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// The octets, for the machines of this crate to read.
    pub(crate) fn octets(&self) -> &[u8] {
        &self.0
    }

    /// The octets, for the socket of a leg that may carry secrets and for nothing else.
    pub fn expose(&self) -> &[u8] {
        &self.0
    }
}

/// What a client logs in with. Moved from the client's machine to the backend's, so that it is used
/// once; never printed or copied.
///
/// ```compile_fail
/// fn leak(credentials: ferrypost_wire::Credentials) { println!("{credentials:?}"); }
/// ```
/// ```compile_fail
/// fn twice(credentials: ferrypost_wire::Credentials) -> [ferrypost_wire::Credentials; 2] {
///     [credentials.clone(), credentials]
/// }
/// ```
pub enum Credentials {
    /// A name and a password.
    Password(Password),
    /// A token, whose bearer is whoever its issuer says.
    Bearer(Bearer),
}

/// A name and a password, and whom to act as.
pub struct Password {
    authorization: Option<String>,
    authentication: String,
    secret: Secret,
}

/// A bearer token (RFC 6750) with what came beside it in the mechanism's frame. What is said there of a
/// name proves nothing, and servers may ignore it: the token decides.
pub struct Bearer {
    frame: BearerFrame,
    name: Option<String>,
    host: Option<String>,
    port: Option<u16>,
    token: Secret,
}

/// The mechanism in which a token came.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum BearerFrame {
    /// RFC 7628.
    OauthBearer,
    /// Its predecessor, which has a name and no address.
    Xoauth2,
}

/// Why something is not fit to be credentials. It never says what it was.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, thiserror::Error)]
pub enum InvalidCredentials {
    /// There is no login name.
    #[error("the login name is empty")]
    EmptyName,
    /// A name holds NUL, CR, LF or another control character, which could change meaning where the
    /// name is written into another protocol.
    #[error("a name holds a control character")]
    ControlCharacter,
    /// A name is not UTF-8.
    #[error("a name is not UTF-8")]
    NotUtf8,
    /// There is no password. Some servers behind a directory take that for an anonymous bind.
    #[error("the password is empty")]
    EmptyPassword,
    /// The password holds NUL, which no mechanism can carry (RFC 4616 §2, RFC 9051 §4.3).
    #[error("the password holds a NUL")]
    NulInPassword,
    /// The message does not have the mechanism's form.
    #[error("the message does not have the mechanism's form")]
    Malformed,
    /// The message is longer than any may be. Its end was not looked for.
    #[error("the message is too long")]
    TooLong,
}

impl Credentials {
    /// Checks and takes a login by password: `authorization` is whom to act as, if that was said
    /// (RFC 4616 §2), `authentication` whose password it is. An empty `authorization` is none.
    ///
    /// # Errors
    /// [`InvalidCredentials`] says which part is not fit.
    pub fn password(
        authorization: &[u8],
        authentication: &[u8],
        password: Secret,
    ) -> Result<Self, InvalidCredentials> {
        let authorization = optional_name(authorization)?;
        let authentication = login_name(authentication)?;
        if password.is_empty() {
            return Err(InvalidCredentials::EmptyPassword);
        }
        if password.octets().contains(&0) {
            return Err(InvalidCredentials::NulInPassword);
        }
        Ok(Self::Password(Password {
            authorization,
            authentication,
            secret: password,
        }))
    }
}

impl Password {
    /// The name that decides where the session goes: whom the client wants to act as, which is not
    /// always whose password it sent.
    pub fn name(&self) -> &str {
        self.authorization
            .as_deref()
            .unwrap_or(&self.authentication)
    }

    /// Whom the client wants to act as, if it said so.
    pub fn authorization(&self) -> Option<&str> {
        self.authorization.as_deref()
    }

    /// Whether the session is to be somebody else's than the one whose password it is.
    pub fn acts_as_another(&self) -> bool {
        self.name() != self.authentication
    }

    /// Whose password it is.
    pub fn authentication(&self) -> &str {
        &self.authentication
    }

    /// The password.
    pub fn password(&self) -> &Secret {
        &self.secret
    }
}

impl Bearer {
    /// Checks and takes a token, in the frame in which it came. An empty `name` is none.
    ///
    /// # Errors
    /// [`InvalidCredentials`] says which part is not fit.
    pub fn new(frame: BearerFrame, name: &[u8], token: Secret) -> Result<Self, InvalidCredentials> {
        let name = optional_name(name)?;
        if token.is_empty() {
            return Err(InvalidCredentials::EmptyPassword);
        }
        // RFC 6750 §2.1 has fewer; what is not graphic could end the frame.
        if !token.octets().iter().all(u8::is_ascii_graphic) {
            return Err(InvalidCredentials::Malformed);
        }
        Ok(Self {
            frame,
            name,
            host: None,
            port: None,
            token,
        })
    }

    /// The mechanism in which it came.
    pub fn frame(&self) -> BearerFrame {
        self.frame
    }

    /// The name beside the token, if there was one. It may be another's than the token's.
    pub fn name(&self) -> Option<&str> {
        self.name.as_deref()
    }

    /// The host that the client says it connected to, if it did.
    pub fn host(&self) -> Option<&str> {
        self.host.as_deref()
    }

    /// The port, likewise.
    pub fn port(&self) -> Option<u16> {
        self.port
    }

    /// The token.
    pub fn token(&self) -> &Secret {
        &self.token
    }

    /// The same with the address that the client says it connected to.
    ///
    /// # Errors
    /// [`InvalidCredentials::Malformed`]: the host is not printable.
    pub fn at(self, host: Option<&[u8]>, port: Option<u16>) -> Result<Self, InvalidCredentials> {
        let host = match host {
            None | Some([]) => None,
            Some(host) if host.iter().all(u8::is_ascii_graphic) => {
                Some(String::from_utf8_lossy(host).into_owned())
            }
            Some(_) => return Err(InvalidCredentials::Malformed),
        };
        Ok(Self { host, port, ..self })
    }
}

fn optional_name(octets: &[u8]) -> Result<Option<String>, InvalidCredentials> {
    match octets {
        [] => Ok(None),
        name => login_name(name).map(Some),
    }
}

fn login_name(octets: &[u8]) -> Result<String, InvalidCredentials> {
    let name = str::from_utf8(octets).map_err(|_| InvalidCredentials::NotUtf8)?;
    if name.is_empty() {
        return Err(InvalidCredentials::EmptyName);
    }
    if name.chars().any(char::is_control) {
        return Err(InvalidCredentials::ControlCharacter);
    }
    Ok(name.to_owned())
}

/// Composes a [`Secret`] out of public text and other secrets without ever showing one.
///
/// It grows by allocating, copying and wiping, like [`WireBuf`](crate::WireBuf).
pub struct SecretWriter(Zeroizing<Vec<u8>>);

impl SecretWriter {
    /// An empty writer with room for `capacity` octets.
    pub fn with_capacity(capacity: usize) -> Self {
        Self(Zeroizing::new(Vec::with_capacity(capacity)))
    }

    /// Appends public octets.
    #[must_use]
    pub fn text(mut self, octets: &[u8]) -> Self {
        self.put(octets);
        self
    }

    /// Appends a secret as it is.
    #[must_use]
    pub fn secret(self, secret: &Secret) -> Self {
        self.text(secret.octets())
    }

    /// Appends a secret in base64 (RFC 4648 §4, padded).
    #[must_use]
    pub fn base64(mut self, secret: &Secret) -> Self {
        let encoded_len = secret.len().div_ceil(3) * 4;
        let mut encoded = Zeroizing::new(vec![0; encoded_len]);
        let written = STANDARD
            .encode_slice(secret.octets(), &mut encoded)
            .expect("padded base64 has four octets for every three begun");
        self.put(&encoded[..written]);
        self
    }

    /// Appends one octet.
    pub(crate) fn push(&mut self, octet: u8) {
        self.put(&[octet]);
    }

    /// What was composed.
    pub fn finish(self) -> Secret {
        Secret(self.0)
    }

    /// Appends octets in place.
    pub(crate) fn put(&mut self, octets: &[u8]) {
        let needed = self.0.len() + octets.len();
        if needed > self.0.capacity() {
            let mut larger = Zeroizing::new(Vec::with_capacity(needed.max(self.0.capacity() * 2)));
            larger.extend_from_slice(&self.0);
            self.0 = larger;
        }
        self.0.extend_from_slice(octets);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn secret(octets: &[u8]) -> Secret {
        SecretWriter::with_capacity(0).text(octets).finish()
    }

    fn password(authorization: &[u8], authentication: &[u8]) -> Password {
        match Credentials::password(authorization, authentication, secret(b"x")) {
            Ok(Credentials::Password(password)) => password,
            _ => panic!("a password is fit"),
        }
    }

    #[test]
    fn a_token_may_come_without_a_name_and_never_with_what_could_end_its_frame() {
        let bearer = |name, token| Bearer::new(BearerFrame::Xoauth2, name, secret(token));
        assert!(bearer(b"", b"t").is_ok_and(|token| token.name().is_none()));
        assert_eq!(
            bearer(b"", b"").err(),
            Some(InvalidCredentials::EmptyPassword)
        );
        for token in [&b"t\x01auth=Bearer u"[..], b"a b", b"\xff"] {
            assert_eq!(
                bearer(b"", token).err(),
                Some(InvalidCredentials::Malformed)
            );
        }
        let refused = bearer(b"al\x01ice", b"t").err();
        assert_eq!(refused, Some(InvalidCredentials::ControlCharacter));
    }

    #[test]
    fn a_secret_is_composed_across_growth() {
        let composed = SecretWriter::with_capacity(1)
            .text(b"A1 AUTHENTICATE PLAIN ")
            .base64(&secret(b"\0alice\0secret"))
            .text(b"\r\n")
            .finish();
        assert_eq!(
            composed.expose(),
            b"A1 AUTHENTICATE PLAIN AGFsaWNlAHNlY3JldA==\r\n"
        );
    }

    #[test]
    fn the_route_follows_the_authorization_identity_where_there_is_one() {
        let master = password(b"alice", b"admin");
        assert_eq!(master.name(), "alice");
        assert_eq!(master.authentication(), "admin");
        let plain = password(b"", b"alice");
        assert_eq!(plain.name(), "alice");
        assert_eq!(plain.authorization(), None);
    }

    #[test]
    fn names_that_could_inject_are_refused() {
        for name in [
            &b"al\0ice"[..],
            b"al\rice",
            b"al\nice",
            b"al\x7fice",
            "al\u{85}ice".as_bytes(),
        ] {
            let refused = Credentials::password(b"", name, secret(b"x")).err();
            assert_eq!(refused, Some(InvalidCredentials::ControlCharacter));
            let refused = Credentials::password(name, b"admin", secret(b"x")).err();
            assert_eq!(refused, Some(InvalidCredentials::ControlCharacter));
        }
    }

    #[test]
    fn empty_names_and_passwords_are_refused() {
        let refused = Credentials::password(b"", b"", secret(b"x")).err();
        assert_eq!(refused, Some(InvalidCredentials::EmptyName));
        let refused = Credentials::password(b"", b"alice", secret(b"")).err();
        assert_eq!(refused, Some(InvalidCredentials::EmptyPassword));
        let refused = Credentials::password(b"", b"alice", secret(b"a\0b")).err();
        assert_eq!(refused, Some(InvalidCredentials::NulInPassword));
        let refused = Credentials::password(b"", b"\xff", secret(b"x")).err();
        assert_eq!(refused, Some(InvalidCredentials::NotUtf8));
    }
}
