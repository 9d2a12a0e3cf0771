//! Tokens as issuers sign them, and as others would like to.

use aws_lc_rs::{
    rand::SystemRandom,
    rsa::KeySize,
    signature::{
        ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _,
        RSA_PKCS1_SHA256, RSA_PSS_SHA512, RsaKeyPair,
    },
};
use serde_json::json;

use super::*;

/// Somebody who signs tokens.
pub(crate) enum Signer {
    Rsa(RsaKeyPair),
    P256(EcdsaKeyPair),
    Ed25519(Ed25519KeyPair),
}

impl Signer {
    pub(crate) fn p256() -> Self {
        Self::P256(EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).unwrap())
    }

    fn ed25519() -> Self {
        Self::Ed25519(Ed25519KeyPair::generate().unwrap())
    }

    fn rsa() -> Self {
        Self::Rsa(RsaKeyPair::generate(KeySize::Rsa2048).unwrap())
    }

    /// Its public key, by this name.
    pub(crate) fn key(&self, id: &str) -> Value {
        let text = |octets: &[u8]| URL_SAFE_NO_PAD.encode(octets);
        match self {
            Self::P256(pair) => {
                let (x, y) = pair.public_key().as_ref()[1..].split_at(32);
                json!({"kty": "EC", "crv": "P-256", "kid": id, "x": text(x), "y": text(y)})
            }
            Self::Ed25519(pair) => {
                let x = text(pair.public_key().as_ref());
                json!({"kty": "OKP", "crv": "Ed25519", "kid": id, "x": x})
            }
            Self::Rsa(pair) => {
                // PKCS #1: a sequence of the modulus, of 256 octets behind a zero, and of the exponent, 65537.
                let der = pair.public_key().as_ref();
                let (n, e) = (text(&der[9..265]), text(&der[267..]));
                json!({"kty": "RSA", "use": "sig", "kid": id, "n": n, "e": e})
            }
        }
    }

    fn sign(&self, algorithm: &str, message: &[u8]) -> Vec<u8> {
        let random = SystemRandom::new();
        match self {
            Self::P256(pair) => pair.sign(&random, message).unwrap().as_ref().to_vec(),
            Self::Ed25519(pair) => pair.sign(message).as_ref().to_vec(),
            Self::Rsa(pair) => {
                let padding: &'static dyn aws_lc_rs::signature::RsaEncoding = match algorithm {
                    "RS256" => &RSA_PKCS1_SHA256,
                    _ => &RSA_PSS_SHA512,
                };
                let mut signature = vec![0; pair.public_modulus_len()];
                pair.sign(padding, &random, message, &mut signature)
                    .unwrap();
                signature
            }
        }
    }

    /// A token with this header and these claims.
    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(header), part(claims));
        let algorithm = header["alg"].as_str().unwrap_or_default();
        let signature = self.sign(algorithm, signed.as_bytes());
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

/// Reads with these keys; none: the claims are believed.
fn reader(keys: &[Value]) -> Jwt {
    let keys = (!keys.is_empty()).then(|| {
        let set = json!({ "keys": keys }).to_string();
        let set = move || KeySet::parse(set.as_bytes());
        Arc::new(Reloading::new(Vec::new(), set).unwrap())
    });
    Jwt {
        keys,
        issuer: None,
        claims: vec!["email".to_owned(), "preferred_username".to_owned()],
    }
}

fn owner(reader: &Jwt, token: &str) -> Result<(String, Proof), NoOwner> {
    let owner = reader.owner(token.as_bytes())?;
    Ok((owner.name, owner.proof))
}

fn alice(proof: Proof) -> (String, Proof) {
    ("alice@example.org".to_owned(), proof)
}

#[test]
fn a_token_signed_by_its_issuer_in_any_way_is_its_owner_s() {
    let claims = json!({"email": "alice@example.org", "preferred_username": "al"});
    for (signer, algorithm) in [
        (Signer::p256(), "ES256"),
        (Signer::ed25519(), "EdDSA"),
        (Signer::rsa(), "RS256"),
        (Signer::rsa(), "PS512"),
    ] {
        let reader = reader(&[signer.key("k")]);
        let token = signer.token(&json!({"alg": algorithm, "kid": "k"}), &claims);
        assert_eq!(
            owner(&reader, &token),
            Ok(alice(Proof::Issuer)),
            "{algorithm}"
        );
        let nameless = signer.token(&json!({"alg": algorithm}), &claims);
        assert_eq!(
            owner(&reader, &nameless),
            Ok(alice(Proof::Issuer)),
            "{algorithm}"
        );
    }
}

#[test]
fn a_token_that_names_a_key_and_is_not_signed_by_it_is_refused() {
    let (issuer, other) = (Signer::p256(), Signer::p256());
    let reader = reader(&[issuer.key("k")]);
    let claims = json!({"email": "alice@example.org"});
    let forged = other.token(&json!({"alg": "ES256", "kid": "k"}), &claims);
    assert_eq!(owner(&reader, &forged), Err(NoOwner::Refused));
    // Another's claims under a good signature.
    let good = issuer.token(&json!({"alg": "ES256", "kid": "k"}), &claims);
    let parts: Vec<_> = good.split('.').collect();
    let claims = URL_SAFE_NO_PAD.encode(json!({"email": "bob@example.org"}).to_string());
    let swapped = format!("{}.{claims}.{}", parts[0], parts[2]);
    assert_eq!(owner(&reader, &swapped), Err(NoOwner::Refused));
}

#[test]
fn a_token_by_a_key_that_is_not_known_is_nobody_s() {
    let (issuer, other) = (Signer::p256(), Signer::p256());
    let reader = reader(&[issuer.key("k"), Signer::rsa().key("r")]);
    let claims = json!({"email": "alice@example.org"});
    for header in [
        json!({"alg": "ES256", "kid": "newer"}),
        json!({"alg": "ES256"}),
        // Another algorithm than the key is for, none, and one that takes the public key for a secret.
        json!({"alg": "ES384", "kid": "k"}),
        json!({"alg": "RS256", "kid": "k"}),
        json!({"alg": "none", "kid": "k"}),
        json!({"alg": "HS256", "kid": "k"}),
        json!({"alg": "ES256", "kid": "k", "crit": ["b64"]}),
    ] {
        let token = other.token(&header, &claims);
        assert_eq!(owner(&reader, &token), Err(NoOwner::Unread), "{header}");
    }
    let unsigned = other.token(&json!({"alg": "none"}), &claims);
    let unsigned = &unsigned[..=unsigned.rfind('.').unwrap()];
    assert_eq!(owner(&reader, unsigned), Err(NoOwner::Unread));
}

#[test]
fn claims_that_are_not_checked_steer() {
    let claims = json!({"email": "alice@example.org"});
    let token = Signer::p256().token(&json!({"alg": "ES256"}), &claims);
    assert_eq!(owner(&reader(&[]), &token), Ok(alice(Proof::Claimed)));
}

#[test]
fn the_first_claim_that_is_a_text_names_the_owner() {
    let signer = Signer::p256();
    let named = |claims: Value| {
        let token = signer.token(&json!({"alg": "ES256"}), &claims);
        owner(&reader(&[]), &token).map(|(name, _)| name)
    };
    assert_eq!(
        named(json!({"preferred_username": "al"})),
        Ok("al".to_owned())
    );
    assert_eq!(
        named(json!({"email": "", "preferred_username": "al"})),
        Ok("al".to_owned())
    );
    assert_eq!(
        named(json!({"email": ["a"], "sub": "x"})),
        Err(NoOwner::Unread)
    );
}

#[test]
fn a_token_of_another_issuer_is_left_to_others() {
    let signer = Signer::p256();
    let reader = Jwt {
        issuer: Some("https://id.example.org".to_owned()),
        ..reader(&[signer.key("k")])
    };
    let token = |claims: Value| signer.token(&json!({"alg": "ES256", "kid": "k"}), &claims);
    let ours = json!({"iss": "https://id.example.org", "email": "alice@example.org"});
    assert_eq!(owner(&reader, &token(ours)), Ok(alice(Proof::Issuer)));
    let theirs = json!({"iss": "https://id.example.net", "email": "alice@example.org"});
    let forged = Signer::p256().token(&json!({"alg": "ES256", "kid": "k"}), &theirs);
    assert_eq!(owner(&reader, &token(theirs)), Err(NoOwner::Unread));
    assert_eq!(owner(&reader, &forged), Err(NoOwner::Unread));
    let nobody_s = json!({"email": "alice@example.org"});
    assert_eq!(owner(&reader, &token(nobody_s)), Err(NoOwner::Unread));
}

#[test]
fn what_has_another_form_is_left_to_others() {
    for other in [
        "",
        "opaque",
        "a.b",
        "a.b.c",
        "e30.e30.",
        "eyJhbGciOiJub25lIn0.e30.x.y",
        "sw1.s.YQ",
        "eyJhbGciOiJub25lIn0.W10.",
    ] {
        assert_eq!(owner(&reader(&[]), other), Err(NoOwner::Unread), "{other}");
    }
}

#[test]
fn a_key_set_is_read_for_what_can_be_used() {
    let parse = |keys: &[Value]| KeySet::parse(json!({ "keys": keys }).to_string().as_bytes());
    let good = Signer::p256().key("k");
    let with = |name: &str, value: Value| {
        let mut key = good.clone();
        key[name] = value;
        key
    };
    assert!(parse(std::slice::from_ref(&good)).is_ok());
    for unusable in [
        json!({"kty": "oct", "k": "c2VjcmV0"}),
        json!("key"),
        with("use", json!("enc")),
        with("crv", json!("secp256k1")),
        with("x", json!("AAAA")),
        with("y", Value::Null),
    ] {
        assert!(
            matches!(
                parse(std::slice::from_ref(&unusable)),
                Err(KeySetError::NoKeys)
            ),
            "{unusable}"
        );
        assert!(parse(&[unusable, good.clone()]).is_ok());
    }
    assert!(matches!(
        KeySet::parse(b"[]"),
        Err(KeySetError::Malformed(_))
    ));
}

#[test]
fn a_key_for_one_algorithm_verifies_no_other() {
    let signer = Signer::rsa();
    let mut key = signer.key("k");
    key["alg"] = json!("PS512");
    let reader = reader(&[key]);
    let claims = json!({"email": "alice@example.org"});
    let token = |algorithm| signer.token(&json!({"alg": algorithm, "kid": "k"}), &claims);
    assert_eq!(owner(&reader, &token("PS512")), Ok(alice(Proof::Issuer)));
    assert_eq!(owner(&reader, &token("RS256")), Err(NoOwner::Unread));
}
