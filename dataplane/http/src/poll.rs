//! Requests that wait for news, by a method that may write.
//!
//! ActiveSync's Ping is a POST that is answered when something has come, or after up to an hour. It names folders to watch
//! and changes nothing in them (MS-ASCMD §2.2.1.13), so that it is a long poll like one by GET.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use http::Method;

use crate::{identity, target::NormalPath};

/// The one path of ActiveSync (MS-ASHTTP §2.2.1.1.1).
const ACTIVE_SYNC: &str = "/Microsoft-Server-ActiveSync";

/// Ping among the commands of a query in base64 (MS-ASHTTP §2.2.1.1.1.1.2), where it is the second octet.
const PING: u8 = 18;

/// Whether a request is one that waits and changes nothing. A Sync that waits is none: it carries changes, in a body that
/// is not read.
pub fn is_ping(method: &Method, path: &NormalPath, query: Option<&str>) -> bool {
    let is_active_sync = path
        .as_str()
        .trim_end_matches('/')
        .eq_ignore_ascii_case(ACTIVE_SYNC);
    *method == Method::POST && is_active_sync && query.is_some_and(asks_to_wait)
}

fn asks_to_wait(query: &str) -> bool {
    match identity::parameter(query, "Cmd") {
        Some(command) => command == "Ping",
        // A query in the short form has no names.
        None => !query.contains('&') && is_short_ping(query),
    }
}

fn is_short_ping(query: &str) -> bool {
    let decoded = STANDARD.decode(query);
    decoded.is_ok_and(|octets| octets.get(1) == Some(&PING))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn is_ping(method: &Method, target: &str) -> bool {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        super::is_ping(method, &NormalPath::parse(path).unwrap(), Some(query))
    }

    #[test]
    fn a_ping_is_one_in_either_form_of_its_query() {
        let short = STANDARD.encode([141, 18, 9, 4, 1, b'x', 0, 1, b'y']);
        for query in [
            "Cmd=Ping&User=alice&DeviceId=1&DeviceType=phone",
            "User=alice&DeviceId=1&DeviceType=phone&Cmd=Ping",
            &short,
        ] {
            let target = format!("/Microsoft-Server-ActiveSync?{query}");
            assert!(is_ping(&Method::POST, &target), "{query}");
        }
    }

    #[test]
    fn whatever_may_write_is_none() {
        let sync = STANDARD.encode([141, 0, 9, 4, 1, b'x', 0, 1, b'y']);
        for query in [
            "Cmd=Sync",
            "Cmd=Ping&Cmd=Sync",
            "Cmd=Ping&cmd=SendMail",
            "Cmd=ping",
            "User=Ping",
            "",
            "Cmd",
            "jR",
            &sync,
        ] {
            let target = format!("/Microsoft-Server-ActiveSync?{query}");
            assert!(!is_ping(&Method::POST, &target), "{query}");
        }
        assert!(!is_ping(&Method::POST, "/other?Cmd=Ping"));
        assert!(!is_ping(
            &Method::PUT,
            "/Microsoft-Server-ActiveSync?Cmd=Ping"
        ));
    }
}
