//! What a client is told when no server answers it.

use http::{HeaderMap, HeaderValue, StatusCode, header::ACCEPT};

/// A body of our own, and its media type.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// The value of `Content-Type`.
    pub media_type: &'static str,
    /// The body. It names the status and nothing of what is behind us.
    pub body: String,
}

/// Words for a status, in the form that the client likes best of those that there are: a problem document (RFC
/// 9457) for JMAP (RFC 8620 §3.6.1), HTML for a browser, else a line of text. Nothing in them depends on the
/// request but that form, so that nothing of a request can be reflected.
pub fn answer(status: StatusCode, request: &HeaderMap) -> Answer {
    let reason = status.canonical_reason().unwrap_or("Error");
    let code = status.as_u16();
    match preferred(request) {
        Form::Problem => Answer {
            media_type: "application/problem+json",
            body: format!(
                "{{\"type\":\"about:blank\",\"title\":\"{reason}\",\"status\":{code}}}\n"
            ),
        },
        Form::Html => Answer {
            media_type: "text/html; charset=utf-8",
            body: format!(
                "<!DOCTYPE html>\n<html lang=\"en\"><title>{code} {reason}</title>\n<h1>{reason}</h1>\n<p>{}</p>\n</html>\n",
                advice(status)
            ),
        },
        Form::Text => Answer {
            media_type: "text/plain; charset=utf-8",
            body: format!("{code} {reason}\n"),
        },
    }
}

/// What a person can do.
fn advice(status: StatusCode) -> &'static str {
    match status {
        StatusCode::BAD_GATEWAY | StatusCode::SERVICE_UNAVAILABLE | StatusCode::GATEWAY_TIMEOUT => {
            "The server cannot be reached at the moment. Please try again in a minute."
        }
        StatusCode::UNAUTHORIZED => "Please sign in.",
        _ => "The request cannot be served.",
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Form {
    Problem,
    Html,
    Text,
}

/// The first media range of `Accept` that is one of ours. Weights are not read: browsers and JMAP's clients put
/// first what they mean, and a form that is not the best does no harm.
fn preferred(request: &HeaderMap) -> Form {
    let lines = request.get_all(ACCEPT).iter().map(HeaderValue::as_bytes);
    let mut ranges = lines.flat_map(|line| line.split(|&octet| octet == b','));
    let form = |range: &[u8]| {
        let essence = range
            .split(|&octet| octet == b';')
            .next()
            .unwrap_or_default();
        match essence.trim_ascii().to_ascii_lowercase().as_slice() {
            b"application/json" | b"application/problem+json" => Some(Form::Problem),
            b"text/html" | b"application/xhtml+xml" => Some(Form::Html),
            b"text/plain" => Some(Form::Text),
            _ => None,
        }
    };
    ranges.find_map(form).unwrap_or(Form::Text)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn accepting(accept: &'static str) -> Answer {
        let mut headers = HeaderMap::new();
        headers.insert(ACCEPT, HeaderValue::from_static(accept));
        answer(StatusCode::BAD_GATEWAY, &headers)
    }

    #[test]
    fn each_client_is_answered_in_its_own_form() {
        let browser = accepting("text/html,application/xhtml+xml,application/xml;q=0.9,*/*;q=0.8");
        assert!(
            browser.media_type.starts_with("text/html") && browser.body.contains("502 Bad Gateway")
        );
        let problem = accepting("application/json; charset=utf-8");
        assert_eq!(problem.media_type, "application/problem+json");
        let document: serde_json::Value = serde_json::from_str(&problem.body).unwrap();
        assert_eq!(document["status"], 502);
        assert!(accepting("*/*").media_type.starts_with("text/plain"));
        let without = answer(StatusCode::BAD_GATEWAY, &HeaderMap::new());
        assert_eq!(without.body, "502 Bad Gateway\n");
    }
}
