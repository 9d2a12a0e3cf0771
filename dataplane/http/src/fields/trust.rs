//! Fields by which servers let a proxy tell them things.

use http::HeaderName;

/// What a proxy tells of its client, beside everything that begins with one of [`CLAIM_PREFIXES`]. From a
/// stranger each of these is a lie about an address, a certificate or a login.
const CLAIMS: [&str; 16] = [
    "forwarded",
    "x-real-ip",
    "client-ip",
    "x-client-ip",
    "x-cluster-client-ip",
    "proxy-client-ip",
    "wl-proxy-client-ip",
    "x-originating-ip",
    "x-original-forwarded-for",
    "true-client-ip",
    "x-true-client-ip",
    "fastly-client-ip",
    "client-cert",
    "client-cert-chain",
    "remote-user",
    "early-data",
];

const CLAIM_PREFIXES: [&str; 14] = [
    "x-forwarded",
    "cf-",
    "x-envoy-",
    "x-azure-",
    "x-appengine-",
    "x-proxyuser",
    "x-remote-",
    "x-auth-request-",
    "x-authenticated-",
    "x-webauth-",
    "x-ssl-",
    "ssl-client-",
    "x-client-cert",
    "x-client-verify",
];

/// What would make a server serve another request than its request line says, or gives a value to a CGI
/// program's environment that is not the client's to set (httpoxy). Nobody's word is taken for these.
const OVERRIDES: [&str; 9] = [
    "x-original-url",
    "x-rewrite-url",
    "x-original-host",
    "x-host",
    "x-http-host-override",
    "x-http-method",
    "x-http-method-override",
    "x-method-override",
    "proxy",
];

/// Whether a field makes a claim about the client that only a trusted peer may make.
pub(crate) fn is_claim(name: &HeaderName) -> bool {
    let name = name.as_str();
    CLAIMS.contains(&name) || CLAIM_PREFIXES.iter().any(|prefix| name.starts_with(prefix))
}

/// Whether a field is dropped whoever sent it. Names with more in them than letters, digits and hyphens are among
/// them: to CGI, WSGI and their kin `X_Real_IP` and `X.Real.IP` are `X-Real-IP`, and nginx drops them for that reason
/// too.
pub(super) fn is_override(name: &HeaderName) -> bool {
    let is_plain = |octet: u8| octet.is_ascii_alphanumeric() || octet == b'-';
    OVERRIDES.contains(&name.as_str()) || !name.as_str().bytes().all(is_plain)
}
