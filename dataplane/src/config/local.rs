//! Where the operator's own programs connect: `address`, or `socket` with its `mode`.

use ferrypost_runtime::config::Section;

use crate::net::local::Place;

/// Whoever runs the data plane, and nobody else.
const MODE: u32 = 0o600;

/// Reads one; `what` is an example of an address.
pub(super) fn place(section: &Section<'_>, what: &str) -> Option<Place> {
    let address = section.address("address");
    let path = section.path("socket");
    let mode = section.parsed("mode", mode);
    if section.has("mode") && !section.has("socket") {
        section.wrong(
            "mode",
            "is for a socket in the file system; name it: socket",
        );
        return None;
    }
    match (section.has("address"), section.has("socket")) {
        (true, false) => address.map(Place::Address),
        (false, true) => Some(Place::File {
            path: path?,
            mode: if section.has("mode") { mode? } else { MODE },
        }),
        (true, true) => {
            section.wrong("socket", "is in place of address; leave one of them out");
            None
        }
        (false, false) => section.required("address", what, None),
    }
}

/// As `chmod` has it.
fn mode(text: &str) -> Result<u32, &'static str> {
    let is_one = matches!(text.len(), 3 | 4) && text.bytes().all(|it| it.is_ascii_digit());
    let mode = u32::from_str_radix(text, 8).ok().filter(|_| is_one);
    mode.filter(|mode| *mode <= 0o777)
        .ok_or("must be who may open it, as \"660\"")
}
