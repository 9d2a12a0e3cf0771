//! Which fields of the log's lines leave the machine.

/// Those that are numbers, words of ours, or what an operator has named. Not those that may name an account or repeat
/// what somebody wrote: names, accounts, paths, reasons, errors, what a hook prints. These stay in the log on standard
/// error, and a field that nobody has thought of stays there too.
const MAY_LEAVE: &[&str] = &[
    "accounts",
    "address",
    "allowed",
    "announcement",
    "attempts",
    "backend_closed",
    "backend_tls",
    "base",
    "blame",
    "boot",
    "caution",
    "client",
    "clients",
    "closed",
    "code",
    "connect_us",
    "contract",
    "contracts",
    "current",
    "cut",
    "data_plane",
    "data_planes",
    "delivered",
    "destination",
    "down",
    "end",
    "endpoint",
    "enough_for",
    "epoch",
    "handshake_us",
    "head_us",
    "held",
    "held_us",
    "home",
    "host",
    "http_rule",
    "installation",
    "instance",
    "keep",
    "keys",
    "known",
    "listen",
    "listener",
    "login_us",
    "lost",
    "migration",
    "needed",
    "negotiate_us",
    "operators",
    "outcome",
    "overtaken",
    "peer",
    "phase",
    "place",
    "position",
    "protocol",
    "recipients",
    "reference",
    "rejected",
    "relay_ms",
    "replica",
    "revision",
    "rule",
    "said",
    "schemas",
    "sealing",
    "seconds",
    "server_code",
    "session_ms",
    "signal",
    "source",
    "stage",
    "status",
    "step",
    "store",
    "succeeded",
    "target",
    "took_us",
    "trace",
    "unconfirmed",
    "untold",
    "up",
    "version",
];

/// Whether a field of this name may.
pub(super) fn may_leave(name: &str) -> bool {
    MAY_LEAVE.binary_search(&name).is_ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_may_name_somebody_stays() {
        assert!(MAY_LEAVE.is_sorted(), "it is searched by halves");
        for stays in [
            "name",
            "names",
            "account",
            "path",
            "reason",
            "error",
            "why",
            "line",
            "by",
            "caller",
            "id",
            "key",
            "refusal",
            "greeting",
            "method",
            "what comes next",
        ] {
            assert!(!may_leave(stays), "{stays}");
        }
        assert!(may_leave("destination"));
    }
}
