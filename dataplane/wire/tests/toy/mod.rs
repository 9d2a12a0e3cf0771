//! A protocol that nobody speaks, made of what mail protocols will need and IMAP does not: a server that
//! speaks unasked after the TLS upgrade (RFC 5804 §2.2), a client that introduces itself by name (EHLO), an
//! offer that has a number, a token whose refusal takes one more round (RFC 7628 §3.2.3), a refusal of
//! two codes, and data that a server may have taken over before it says so. Written with nothing but what
//! the crate shows to everybody.
//!
//! ```text
//!   + toy server                         - AUTH no                a refusal and its code; to HELLO, of a client
//!   HELLO name      + SIZE 100, BEARER   - 454 4.7.0 later        of two codes
//!   TLS             + go                 ? base64                 one more round: a line, then the refusal
//!   BEARER base64   + welcome            DATA, lines, .           answered at its end
//!   QUIT            + bye                anything else            answered by one line
//! ```

mod back;
mod follow;
mod front;

use ferrypost_wire::{
    BackSettings, BackendViolation, Capabilities, FrontSettings, LineProtocol, Offer, ProtocolKind,
    Tokens,
};

pub(crate) use back::{ToyBack, Welcome};
pub(crate) use follow::ToyFollower;
pub(crate) use front::ToyFront;

/// The protocol. It goes by another's name, for the set of names is closed.
pub(crate) struct Toy;

/// What a server can do: messages up to a size, and tokens.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct Abilities {
    pub(crate) size: Option<u64>,
    pub(crate) bearer: bool,
}

impl Capabilities for Abilities {
    fn from_items<'a>(items: impl IntoIterator<Item = &'a str>) -> Self {
        let mut abilities = Self::default();
        for item in items {
            if let Some(size) = item.strip_prefix("SIZE ") {
                abilities.size = size.parse().ok();
            }
            abilities.bearer |= item == "BEARER";
        }
        abilities
    }

    fn items(&self) -> Vec<String> {
        let size = self.size.map(|size| format!("SIZE {size}"));
        let bearer = self.bearer.then(|| "BEARER".to_owned());
        size.into_iter().chain(bearer).collect()
    }
}

/// What we offer: the smallest size of all, and tokens where all take them.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct ToyOffer(Abilities);

impl Offer for ToyOffer {
    fn items(&self) -> Vec<String> {
        self.0.items()
    }
}

impl ToyOffer {
    fn line(&self) -> String {
        format!("+ {}\r\n", self.0.items().join(", "))
    }
}

impl LineProtocol for Toy {
    const KIND: ProtocolKind = ProtocolKind::Imap;
    type Capabilities = Abilities;
    type Offer = ToyOffer;
    type Welcome = Welcome;
    type Front = ToyFront;
    type Back = ToyBack;
    type Follow = ToyFollower;

    fn offer(destinations: &[Abilities], _: Tokens) -> ToyOffer {
        ToyOffer(Abilities {
            size: destinations.iter().filter_map(|it| it.size).min(),
            bearer: destinations.iter().all(|it| it.bearer),
        })
    }

    fn least() -> Abilities {
        Abilities {
            size: None,
            bearer: true,
        }
    }

    fn fit(offered: Option<&Abilities>, _: bool) -> Result<(), BackendViolation> {
        let offered = offered.ok_or(BackendViolation::CapabilitiesMissing)?;
        let takes_tokens = offered.bearer.then_some(());
        takes_tokens.ok_or(BackendViolation::NoMechanism)
    }

    fn ignores_announcements(_: &ToyBack) -> bool {
        false
    }

    fn ignores_authorization(_back: &ToyBack) -> bool {
        false
    }

    fn front(settings: FrontSettings<ToyOffer>) -> ToyFront {
        ToyFront::new(settings)
    }

    fn back(settings: BackSettings) -> ToyBack {
        ToyBack::new(settings)
    }
}

/// A line that has one of the protocol's signs in front.
fn signed(line: &[u8]) -> Option<(u8, &[u8])> {
    match line {
        [sign @ (b'+' | b'-' | b'?'), b' ', text @ ..] => Some((*sign, text)),
        _ => None,
    }
}
