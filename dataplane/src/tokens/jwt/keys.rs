//! An issuer's key set (JWKS, RFC 7517), and signatures by its keys (RFC 7518 §3).
//!
//! A signature is verified by what the *key* is good for; the header's word for it must be one of those. Keys that
//! issuer and verifier would share (`oct`) are left out: with one of those, whoever can verify can sign.

use std::{io, path::Path};

use aws_lc_rs::signature::{
    self as sign, RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use serde::Deserialize;

/// The longest file that is read, in octets: a key takes less than one KiB without its certificates.
const MAX_FILE: u64 = 1 << 20;

/// Keys by which tokens may be signed.
#[derive(Debug)]
pub struct KeySet(Vec<Key>);

/// Why a file is of no use.
#[derive(Debug, thiserror::Error)]
pub enum KeySetError {
    /// The system does not give it.
    #[error("cannot be read: {0}")]
    Unreadable(io::Error),
    /// No key set is as long.
    #[error("is longer than {MAX_FILE} octets")]
    TooLong,
    /// It holds something else.
    #[error("is no key set (RFC 7517): {0}")]
    Malformed(serde_json::Error),
    /// Nothing in it is of use.
    #[error(
        "has no key that a token could be signed with here: RSA, P-256, P-384, P-521 or Ed25519"
    )]
    NoKeys,
}

/// What a key set says of a signature.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It is by a key of the set.
    Signed,
    /// It names a key of the set and is not by that.
    Forged,
    /// It is by no key that is known here.
    NoKey,
}

#[derive(Debug)]
struct Key {
    id: Option<String>,
    /// The one algorithm that it is for, if it says so.
    algorithm: Option<String>,
    kind: Kind,
}

#[derive(Debug)]
enum Kind {
    Rsa {
        modulus: Vec<u8>,
        exponent: Vec<u8>,
    },
    /// A point or an encoded key, and the algorithm that goes with its curve.
    Curve(&'static Curve, Vec<u8>),
}

#[derive(Debug)]
struct Curve {
    name: &'static str,
    /// Names of the one algorithm that goes with it.
    algorithms: &'static [&'static str],
    /// Octets of a coordinate.
    octets: usize,
    verification: &'static dyn sign::VerificationAlgorithm,
}

static CURVES: [Curve; 4] = [
    Curve {
        name: "P-256",
        algorithms: &["ES256"],
        octets: 32,
        verification: &sign::ECDSA_P256_SHA256_FIXED,
    },
    Curve {
        name: "P-384",
        algorithms: &["ES384"],
        octets: 48,
        verification: &sign::ECDSA_P384_SHA384_FIXED,
    },
    Curve {
        name: "P-521",
        algorithms: &["ES512"],
        octets: 66,
        verification: &sign::ECDSA_P521_SHA512_FIXED,
    },
    // RFC 8037; RFC 9864 has the second name.
    Curve {
        name: "Ed25519",
        algorithms: &["EdDSA", "Ed25519"],
        octets: 32,
        verification: &sign::ED25519,
    },
];

/// A key as it is written (RFC 7517 §4, RFC 7518 §6, RFC 8037 §2).
#[derive(Deserialize)]
struct Written {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    #[serde(rename = "use")]
    usage: Option<String>,
    crv: Option<String>,
    n: Option<String>,
    e: Option<String>,
    x: Option<String>,
    y: Option<String>,
}

#[derive(Deserialize)]
struct WrittenSet {
    /// What has another form is passed over, as RFC 7517 §5 wants it.
    keys: Vec<serde_json::Value>,
}

impl KeySet {
    /// Reads a file.
    ///
    /// # Errors
    /// [`KeySetError`].
    pub fn read(path: &Path) -> Result<Self, KeySetError> {
        let length = std::fs::metadata(path)
            .map_err(KeySetError::Unreadable)?
            .len();
        if length > MAX_FILE {
            return Err(KeySetError::TooLong);
        }
        Self::parse(&std::fs::read(path).map_err(KeySetError::Unreadable)?)
    }

    pub(super) fn parse(text: &[u8]) -> Result<Self, KeySetError> {
        let set: WrittenSet = serde_json::from_slice(text).map_err(KeySetError::Malformed)?;
        let written = set
            .keys
            .into_iter()
            .filter_map(|key| serde_json::from_value(key).ok());
        let keys: Vec<_> = written.filter_map(Key::of).collect();
        if keys.is_empty() {
            return Err(KeySetError::NoKeys);
        }
        Ok(Self(keys))
    }

    /// Whether `signature` over `message` is by one of these keys: the one that the token names, or any, where it
    /// names none.
    pub(super) fn verify(
        &self,
        algorithm: &str,
        id: Option<&str>,
        message: &[u8],
        signature: &[u8],
    ) -> Verdict {
        let mut named = false;
        for key in &self.0 {
            if id.is_some() && id != key.id.as_deref() {
                continue;
            }
            match key.verify(algorithm, message, signature) {
                Some(true) => return Verdict::Signed,
                Some(false) => named |= id.is_some(),
                None => {}
            }
        }
        if named {
            Verdict::Forged
        } else {
            Verdict::NoKey
        }
    }
}

impl Key {
    /// `None`: not one to verify signatures with, or not one that can be read.
    fn of(written: Written) -> Option<Self> {
        if written.usage.is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |part: Option<String>| URL_SAFE_NO_PAD.decode(part?).ok();
        let kind = match written.kty.as_str() {
            "RSA" => Kind::Rsa {
                modulus: decode(written.n)?,
                exponent: decode(written.e)?,
            },
            "EC" | "OKP" => {
                let name = written.crv?;
                let curve = CURVES.iter().find(|curve| curve.name == name)?;
                let (x, y) = (decode(written.x)?, decode(written.y));
                let whole = |part: &Vec<u8>| part.len() == curve.octets;
                let octets = match (written.kty.as_str(), y) {
                    ("OKP", None) => Some(x).filter(whole)?,
                    // An uncompressed point (SEC 1, 2.3.3).
                    ("EC", Some(y)) if whole(&x) && whole(&y) => [&[4], &*x, &*y].concat(),
                    _ => return None,
                };
                Kind::Curve(curve, octets)
            }
            _ => return None,
        };
        Some(Self {
            id: written.kid,
            algorithm: written.alg,
            kind,
        })
    }

    /// `None`: it is not for this algorithm.
    fn verify(&self, algorithm: &str, message: &[u8], signature: &[u8]) -> Option<bool> {
        if self.algorithm.as_ref().is_some_and(|own| own != algorithm) {
            return None;
        }
        let verified = match &self.kind {
            Kind::Rsa { modulus, exponent } => RsaPublicKeyComponents {
                n: modulus,
                e: exponent,
            }
            .verify(rsa(algorithm)?, message, signature),
            Kind::Curve(curve, _) if !curve.algorithms.contains(&algorithm) => return None,
            Kind::Curve(curve, key) => {
                UnparsedPublicKey::new(curve.verification, key).verify(message, signature)
            }
        };
        Some(verified.is_ok())
    }
}

/// Algorithms of RSA keys, of 2048 bits and more (RFC 7518 §3.3, §3.5).
fn rsa(algorithm: &str) -> Option<&'static RsaParameters> {
    Some(match algorithm {
        "RS256" => &sign::RSA_PKCS1_2048_8192_SHA256,
        "RS384" => &sign::RSA_PKCS1_2048_8192_SHA384,
        "RS512" => &sign::RSA_PKCS1_2048_8192_SHA512,
        "PS256" => &sign::RSA_PSS_2048_8192_SHA256,
        "PS384" => &sign::RSA_PSS_2048_8192_SHA384,
        "PS512" => &sign::RSA_PSS_2048_8192_SHA512,
        _ => return None,
    })
}
