//! How the file is divided, so that an interrupted write is told from damage.
//!
//! ```text
//!   frame: length (u32 LE) · of it the complement · digest of the body, 8 octets · body
//! ```

use std::{
    fs::File,
    io::{self, BufReader, Read as _, Seek as _},
};

use ferrypost_proto::CHUNK_BYTES;
use prost::Message;
use sha2::{Digest as _, Sha256};

pub(super) const HEADER: usize = 16;
/// A chunk or a delta as the stream carries it, with room to spare.
const MOST_BODY: usize = 64 * CHUNK_BYTES;

/// A message in its frame.
pub(super) fn of(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&(!length).to_le_bytes());
    frame.extend_from_slice(&digest(&body));
    frame.extend_from_slice(&body);
    frame
}

/// Gives every frame of a file to `take`, from the first on. Where the last whole one ends; `None` when
/// the file is damaged before its end, or `take` says that a frame means nothing.
pub(super) fn read_all(
    mut file: &File,
    mut take: impl FnMut(&[u8], u64) -> Option<()>,
) -> io::Result<Option<u64>> {
    let length = file.metadata()?.len();
    file.rewind()?;
    let mut reader = BufReader::new(file);
    let mut at = 0;
    while at < length {
        let rest = length - at;
        if rest < HEADER as u64 {
            return Ok(Some(at));
        }
        let mut header = [0; HEADER];
        reader.read_exact(&mut header)?;
        let Some(body) = body_length(&header) else {
            // A file can grow before what was written to it arrives.
            let unwritten = header == [0; HEADER] && is_zero(&mut reader)?;
            return Ok(unwritten.then_some(at));
        };
        let octets = (HEADER + body) as u64;
        if rest < octets {
            return Ok(Some(at));
        }
        let mut bytes = vec![0; body];
        reader.read_exact(&mut bytes)?;
        if digest(&bytes) != header[8..] {
            return Ok((rest == octets).then_some(at));
        }
        if take(&bytes, octets).is_none() {
            return Ok(None);
        }
        at += octets;
    }
    Ok(Some(at))
}

pub(super) fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = word(0);
    (word(4) == !length && length as usize <= MOST_BODY).then_some(length as usize)
}

fn digest(body: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::digest(body)[..8]);
    short
}

fn is_zero(reader: &mut impl io::Read) -> io::Result<bool> {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    Ok(rest.iter().all(|octet| *octet == 0))
}
