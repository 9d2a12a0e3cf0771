//! `[tokens]`: who tells whose a bearer token is.

use ferrypost_runtime::config::{Section, has_impossible_port};
use http::Uri;

use super::is_loopback;
use crate::{
    metrics::words::TokenWay,
    tokens::{
        KeySet,
        settings::{
            IntrospectionSettings, IssuerLogin, JwtKeys, JwtSettings, Settings, WaySettings,
        },
    },
};

/// Where an issuer puts whose a token is, unless the file says otherwise: mail servers go by the address
/// (Dovecot's `username_attribute` is `email`).
const CLAIMS: [&str; 2] = ["email", "preferred_username"];
/// The same in what it answers (RFC 7662 §2.2).
const ANSWERED_CLAIMS: [&str; 2] = ["email", "username"];

/// The ways that have a table of their own.
const TABLES: [(&str, TokenWay); 2] = [
    ("jwt", TokenWay::Jwt),
    ("introspection", TokenWay::Introspection),
];

pub(super) fn read(section: &Section<'_>) -> Option<Settings> {
    let ways = ways(section)?;
    for (table, way) in TABLES {
        if section.has(table) && !ways.contains(&way) {
            section.wrong(
                table,
                format!("is for owner = [\"{table}\"], which is not said"),
            );
        }
    }
    let settings: Vec<_> = ways.into_iter().map(|way| settings(section, way)).collect();
    Some(Settings {
        owner: settings.into_iter().collect::<Option<_>>()?,
    })
}

/// Who is asked, in order.
fn ways(section: &Section<'_>) -> Option<Vec<TokenWay>> {
    let words = TokenWay::ALL.map(<&str>::from);
    let words = words.map(|word| format!("\"{word}\"")).join(", ");
    let find = |text: &str| {
        let mut all = TokenWay::ALL.into_iter();
        all.find(|way| way.into_str() == text)
            .ok_or_else(|| format!("must be one of {words}"))
    };
    let ways = section.parsed_texts("owner", find);
    if !section.has("owner") || ways.as_ref().is_some_and(Vec::is_empty) {
        let wanted = format!(
            "say who tells whose a token is, in the order in which they are asked: {words}"
        );
        section.wrong("owner", wanted);
        return None;
    }
    let ways = ways?;
    for (n, way) in ways.iter().enumerate() {
        if ways[..n].contains(way) {
            section.wrong(
                &format!("owner[{n}]"),
                format!("\"{}\" is there twice", way.into_str()),
            );
        }
    }
    Some(ways)
}

fn settings(section: &Section<'_>, way: TokenWay) -> Option<WaySettings> {
    match way {
        TokenWay::Stalwart => Some(WaySettings::Stalwart),
        TokenWay::Jwt => section.section("jwt", jwt).map(WaySettings::Jwt),
        TokenWay::Introspection => section
            .section("introspection", introspection)
            .map(WaySettings::Introspection),
        TokenWay::NameBeside => Some(WaySettings::NameBeside),
    }
}

fn jwt(section: &Section<'_>) -> Option<JwtSettings> {
    let keys = jwt_keys(section);
    let claims = claims(section, &CLAIMS);
    let issuer = section.parsed("issuer", |text| {
        let issuer = (!text.is_empty()).then(|| text.to_owned());
        issuer.ok_or("must be what the issuer writes into \"iss\"")
    });
    if section.has("issuer") {
        issuer.as_ref()?;
    }
    Some(JwtSettings {
        keys: keys?,
        issuer,
        claims: claims?,
    })
}

fn jwt_keys(section: &Section<'_>) -> Option<JwtKeys> {
    const FILE: &str = "keys_file";
    let is_checked = section
        .word("signature", &[("checked", true), ("unchecked", false)])
        .unwrap_or(true);
    if !is_checked {
        if section.has(FILE) {
            section.wrong(FILE, "is for signature = \"checked\"");
        }
        return Some(JwtKeys::Unchecked);
    }
    let what = "the issuer's key set (JWKS), a file that is read again when it changes; or say signature = \
                \"unchecked\": then what a token says of itself steers its login and proves nothing";
    let path = section.required(FILE, what, section.path(FILE))?;
    let read = KeySet::read(&path);
    section.checked(
        FILE,
        read.map_err(|error| format!("{} {error}", path.display())),
    )?;
    Some(JwtKeys::File(path))
}

fn introspection(section: &Section<'_>) -> Option<IntrospectionSettings> {
    let url = section.required(
        "url",
        "where the issuer is asked, as \"https://id.example.org/oauth2/introspect\"",
        section.parsed("url", issuer_url),
    );
    let ca_file = section.authorities_file("ca_file");
    let is_clear = url
        .as_ref()
        .is_some_and(|url| url.scheme_str() == Some("http"));
    if is_clear && section.has("ca_file") {
        section.wrong("ca_file", "is for https");
    }
    if section.has("ca_file") {
        ca_file.as_ref()?;
    }
    let login = login(section);
    let claims = claims(section, &ANSWERED_CLAIMS);
    Some(IntrospectionSettings {
        url: url?,
        ca_file,
        login: login?,
        claims: claims?,
    })
}

/// Who we are there: a client with a secret, or the bearer of a token of our own.
fn login(section: &Section<'_>) -> Option<IssuerLogin> {
    const SECRET: &str = "client_secret_file";
    const TOKEN: &str = "token_file";
    if section.has(TOKEN) {
        for key in ["client_id", SECRET] {
            if section.has(key) {
                section.wrong(key, "is not for token_file: say one or the other");
            }
        }
        let file = section.path(TOKEN)?;
        return usable(section, TOKEN, IssuerLogin::Token { file });
    }
    let id = section.required(
        "client_id",
        "our name there, with client_secret_file; or token_file for a bearer token of our own",
        section.text("client_id"),
    );
    let what = "a file with our password there, read again when it changes";
    let secret_file = section.required(SECRET, what, section.path(SECRET));
    let login = IssuerLogin::Client {
        id: id?,
        secret_file: secret_file?,
    };
    usable(section, SECRET, login)
}

/// Whether the file holds a secret.
fn usable(section: &Section<'_>, key: &str, login: IssuerLogin) -> Option<IssuerLogin> {
    let read = login
        .read()
        .map_err(|error| format!("{} {error}", login.file().display()));
    section.checked(key, read)?;
    Some(login)
}

fn claims(section: &Section<'_>, default: &[&str]) -> Option<Vec<String>> {
    if !section.has("claims") {
        return Some(default.iter().map(|&claim| claim.to_owned()).collect());
    }
    let claims = section.texts("claims")?;
    if claims.iter().any(String::is_empty) || claims.is_empty() {
        section.wrong(
            "claims",
            "name at least one, first the one that the mail servers go by, as [\"email\"]",
        );
        return None;
    }
    Some(claims)
}

/// Where an issuer is asked. A token is a secret: in clear it goes to this machine alone.
fn issuer_url(text: &str) -> Result<Uri, &'static str> {
    const FORM: &str = "use https://host/path";
    let uri: Uri = text.parse().map_err(|_| FORM)?;
    let authority = uri.authority().ok_or(FORM)?;
    let host = authority.host().trim_matches(['[', ']']);
    if host.is_empty()
        || authority.as_str().contains('@')
        || uri.port_u16() == Some(0)
        || has_impossible_port(&uri)
    {
        return Err(FORM);
    }
    match uri.scheme_str() {
        Some("https") if rustls::pki_types::ServerName::try_from(host).is_ok() => Ok(uri),
        Some("http") if host == "localhost" || host.parse().is_ok_and(is_loopback) => Ok(uri),
        Some("http") => Err("http is only for a loopback address; use https"),
        _ => Err(FORM),
    }
}
