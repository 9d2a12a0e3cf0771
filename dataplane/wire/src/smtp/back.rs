//! The backend's side of submission: we are the client, up to the point where a secret may be sent.

use super::login::SubmissionLogin;
use super::opening::{Dialect, Opening};
use crate::buf::WireBuf;
use crate::keywords::Keywords;
use crate::reply::BackendViolation;
use crate::secret::Credentials;
use crate::settings::BackSettings;
use crate::{Negotiate, NegotiateStep};

/// A submission client up to the login.
pub struct SubmissionBack(Opening);

impl SubmissionBack {
    pub(super) fn new(settings: BackSettings) -> Self {
        Self(Opening::new(Dialect::Smtp, settings))
    }

    /// Whether the server takes announcements of clients from us: it offers it to whom it trusts. Of a client that
    /// has been announced: whether it did until it had heard everything.
    pub(super) fn takes_announcements(&self) -> bool {
        self.0.takes_announcements()
    }
}

impl Negotiate for SubmissionBack {
    type Capabilities = Keywords;
    type Login = SubmissionLogin;

    fn step(
        &mut self,
        input: &mut WireBuf,
        out: &mut Vec<u8>,
    ) -> Result<NegotiateStep, BackendViolation> {
        self.0.step(input, out)
    }

    fn secured(&mut self) {
        self.0.secured();
    }

    fn greeting(&self) -> &str {
        self.0.greeting()
    }

    fn offered_in_clear(&self) -> Option<&Keywords> {
        self.0.offered_in_clear()
    }

    fn offered(&self) -> Option<&Keywords> {
        self.0.offered()
    }

    fn leave(&mut self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"QUIT\r\n");
    }

    fn into_login(self, credentials: Credentials) -> SubmissionLogin {
        let (offered, replies) = self.0.finish();
        SubmissionLogin::new(offered, replies, credentials)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::facts::{ClientFacts, HopLimit, Introduction, SessionReference, TlsFacts};
    use crate::settings::{BackLimits, Channel};

    /// A client of whom there is more to say than one command holds.
    fn back() -> SubmissionBack {
        let introduction = Introduction {
            helo: Some("n".repeat(255)),
            ..Introduction::default()
        };
        SubmissionBack::new(BackSettings {
            channel: Channel::Secure,
            announce: Some(ClientFacts {
                peer: "192.0.2.7:50000".parse().unwrap(),
                local: "198.51.100.1:587".parse().unwrap(),
                tls: Some(TlsFacts {
                    version: "TLSv1.3",
                    cipher: "TLS13_AES_128_GCM_SHA256",
                    server_name: Some("s".repeat(255)),
                }),
                session: SessionReference::new("fp-1".to_owned()).unwrap(),
                hops: HopLimit::FIRST,
                introduction: introduction.clone(),
            }),
            introduction,
            prefaced: false,
            limits: BackLimits::default(),
        })
    }

    /// Whether the server took announcements that answers EHLO so, each time, and how often XCLIENT was sent.
    fn announced(answers: &[&str]) -> (bool, usize) {
        let (mut back, mut out) = (back(), Vec::new());
        let mut input = WireBuf::new(4096);
        for extensions in answers {
            let said = format!("220 mx ESMTP\r\n250-mx\r\n250 {extensions}\r\n");
            input.extend(said.as_bytes()).unwrap();
        }
        let step = back.step(&mut input, &mut out);
        assert_eq!(step, Ok(NegotiateStep::Ready));
        let sent = String::from_utf8(out).unwrap().matches("XCLIENT").count();
        (back.takes_announcements(), sent)
    }

    #[test]
    fn only_a_server_that_listened_to_the_address_took_the_announcement() {
        const LISTENS: &str = "XCLIENT HELO DESTNAME ADDR";
        const NO: &str = "AUTH PLAIN";
        assert_eq!(announced(&[LISTENS, LISTENS, NO]), (true, 2));
        assert_eq!(announced(&[LISTENS, NO]), (false, 1));
        assert_eq!(announced(&[NO]), (false, 0));
        assert_eq!(announced(&["XCLIENT ADDR", NO]), (true, 1));
    }
}
