//! What the targets of all protocols do with their input: the rules of `tests/invariance`.

#[path = "../../tests/invariance/mod.rs"]
mod invariance;

use ferrypost_wire::{Channel, Follower, LineProtocol};
use invariance::Side;

/// The machine that faces the client. The first octet says how the leg is and how the rest is cut.
pub(crate) fn front<P: LineProtocol>(data: &[u8]) {
    if let Some((channel, piece, input)) = leg(data) {
        invariance::front::<P>(channel, input, &[piece]);
    }
}

/// The machine that faces the backend, and the login that it becomes. The first octet says how the leg is and
/// how the rest is cut.
pub(crate) fn back<P: LineProtocol>(data: &[u8]) {
    if let Some((channel, piece, input)) = leg(data) {
        invariance::back::<P>(channel, input, &[piece]);
    }
}

/// The machine that watches a relay. The first octet says how turns are cut, the second when to
/// drain; turns are separated by 0xff and alternate between the client and the server.
pub(crate) fn follow<F: Follower + Default>(data: &[u8]) {
    let [piece, drain, input @ ..] = data else {
        return;
    };
    let turns: Vec<_> = input
        .split(|&octet| octet == 0xff)
        .zip([Side::Client, Side::Server].into_iter().cycle())
        .map(|(bytes, side)| (side, bytes.to_vec()))
        .collect();
    invariance::follow::<F>(&turns, &[usize::from(*piece)], usize::from(*drain));
}

fn leg(data: &[u8]) -> Option<(Channel, usize, &[u8])> {
    let (&choice, input) = data.split_first()?;
    let channel = match choice & 1 {
        0 => Channel::Clear,
        _ => Channel::Secure,
    };
    Some((channel, usize::from(choice >> 1), input))
}
