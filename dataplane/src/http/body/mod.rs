//! Bodies on their way, frame by frame. One frame is on its way in each direction, so that whoever takes nothing
//! stops whoever sends: what is held is what two sockets and two windows hold.

mod download;
mod upload;

pub(super) use download::{Download, Manner};
pub(super) use upload::{Source, Upload, discard};

/// Why a body comes to no end.
#[derive(Debug, thiserror::Error)]
pub(super) enum Broken {
    /// It does not come any more.
    #[error("{0}")]
    Peer(#[from] hyper::Error),
    /// Nothing of it came for too long.
    #[error("nothing of the body came for too long")]
    Stuck,
    /// The exchange was ended.
    #[error("the exchange was ended")]
    Cut,
}
