//! What this data plane last acknowledged, so that a restored store is found out also by one that restarts
//! (G16).
//!
//! One file, in the stream's own words: the chunks of a snapshot, then every delta after it, each in a
//! [frame](frame) of its own. No table is in force before the file holds it, and so the control plane hears of none, that
//! it is applied or that a fence of it is drained. It is compared with the store and never routes anybody.
//!
//! At most the last frame is not synced, so only a bad end of the file is an interrupted write: it was never
//! acknowledged, and is dropped. Any other damage is an error, never "nothing was held".

mod acknowledged;
mod frame;
#[cfg(test)]
mod tests;

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufWriter, Write as _},
    path::{Path, PathBuf},
};

use ferrypost_proto::{
    TablePosition,
    routing::v1::{Delta, SnapshotChunk},
};
use prost::Message as _;

use super::{StateDirError, at, sync_directory};

pub use acknowledged::Acknowledged;

const WITNESS: &str = "witness";
/// A snapshot that is not complete yet.
const COMING: &str = "witness.new";
/// Exists after the registration has ended: moves may have been missed since.
const LEFT: &str = "left";

/// Deltas of so many octets are borne beside any snapshot; beyond it they are folded into one when they
/// outweigh it.
const LEAST_FOLDED: u64 = 4 << 20;

/// The file, and the snapshot that is coming in.
#[derive(Debug)]
pub struct Witness {
    directory: PathBuf,
    /// Open for appending; `None` before the first snapshot.
    file: Option<File>,
    position: Option<TablePosition>,
    current: bool,
    /// The registration ends with this life.
    leaving: bool,
    /// Octets of the snapshot, and of the deltas after it.
    size: (u64, u64),
    coming: Option<BufWriter<File>>,
}

impl Witness {
    /// Finds out what was acknowledged. Reads the whole file.
    pub(super) fn open(directory: &Path) -> Result<Self, StateDirError> {
        let path = directory.join(WITNESS);
        let left = directory.join(LEFT);
        let mut witness = Self {
            directory: directory.to_owned(),
            file: None,
            position: None,
            current: !left.try_exists().map_err(at(&left))?,
            leaving: false,
            size: (0, 0),
            coming: None,
        };
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(witness),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut scan = Scan::default();
        let end = frame::read_all(&file, |body, octets| scan.take(body, octets).map(drop))
            .map_err(at(&path))?;
        let whole = end.and_then(|end| Some((end, scan.position.take()?)));
        let Some((end, position)) = whole else {
            return Err(damaged(path));
        };
        file.set_len(end).map_err(at(&path))?;
        witness.position = Some(position);
        witness.size = scan.size;
        witness.file = Some(file);
        Ok(witness)
    }

    /// How far the table reaches that was last acknowledged; `None`: none ever was.
    pub fn position(&self) -> Option<&TablePosition> {
        self.position.as_ref()
    }

    /// False once the registration has ended: moves may have been missed since.
    pub fn is_current(&self) -> bool {
        self.current
    }

    /// Writes a part of a snapshot, before it is complete.
    pub fn chunk(&mut self, chunk: &SnapshotChunk) -> Result<(), StateDirError> {
        let path = self.directory.join(COMING);
        if chunk.index == 0 {
            self.coming = None;
        }
        let coming = match &mut self.coming {
            Some(coming) => coming,
            none => none.insert(BufWriter::new(File::create(&path).map_err(at(&path))?)),
        };
        coming.write_all(&frame::of(chunk)).map_err(at(&path))
    }

    /// Puts the snapshot that has come in, up to its last chunk, in the place of what was held: durably.
    pub fn complete(&mut self, position: TablePosition) -> Result<(), StateDirError> {
        let path = self.directory.join(COMING);
        let coming = self.coming.take().ok_or_else(|| damaged(path.clone()))?;
        let replaced = || -> io::Result<(File, u64)> {
            coming
                .into_inner()
                .map_err(io::IntoInnerError::into_error)?
                .sync_all()?;
            fs::rename(&path, self.directory.join(WITNESS))?;
            sync_directory(&self.directory)?;
            // Only now: the mark speaks of what was held before.
            if !self.current && !self.leaving {
                fs::remove_file(self.directory.join(LEFT))?;
                sync_directory(&self.directory)?;
            }
            let whole = self.directory.join(WITNESS);
            let file = OpenOptions::new().read(true).append(true).open(whole)?;
            let size = file.metadata()?.len();
            Ok((file, size))
        };
        let (file, size) = replaced().map_err(at(&path))?;
        self.file = Some(file);
        self.position = Some(position);
        self.current = !self.leaving;
        self.size = (size, 0);
        Ok(())
    }

    /// Adds a delta to what is held: durably.
    pub fn delta(&mut self, delta: &Delta) -> Result<(), StateDirError> {
        let path = self.directory.join(WITNESS);
        let position = delta.to.clone().map(TablePosition::from);
        let (Some(file), Some(position)) = (&mut self.file, position) else {
            return Err(damaged(path));
        };
        let frame = frame::of(delta);
        file.write_all(&frame)
            .and_then(|()| file.sync_data())
            .map_err(at(&path))?;
        self.position = Some(position);
        self.size.1 += frame.len() as u64;
        if self.size.1 > LEAST_FOLDED.max(self.size.0) {
            self.fold()?;
        }
        Ok(())
    }

    /// Everything that was acknowledged; `None`: nothing ever was.
    pub fn read(&self) -> Result<Option<Acknowledged>, StateDirError> {
        let Some(file) = &self.file else {
            return Ok(None);
        };
        let path = self.directory.join(WITNESS);
        let mut all = Acknowledged::default();
        let mut scan = Scan::default();
        let read = frame::read_all(file, |body, octets| {
            all.take(scan.take(body, octets)?);
            Some(())
        });
        match read.map_err(at(&path))? {
            Some(_) => Ok(Some(all)),
            None => Err(damaged(path)),
        }
    }

    /// Writes down that the registration ends: from now on moves may be missed. Call it before the goodbye is
    /// said.
    pub fn leave(&mut self) -> Result<(), StateDirError> {
        let path = self.directory.join(LEFT);
        let write = || -> io::Result<()> {
            File::create(&path)?.sync_all()?;
            sync_directory(&self.directory)
        };
        // A snapshot may be on its way still: it is no word of a registration that goes on.
        self.leaving = true;
        write().map_err(at(&path))?;
        self.current = false;
        Ok(())
    }

    fn fold(&mut self) -> Result<(), StateDirError> {
        let Some(all) = self.read()? else {
            return Ok(());
        };
        let position = all.position.clone();
        for chunk in all.into_chunks() {
            self.chunk(&chunk)?;
        }
        self.complete(position)
    }
}

/// What a frame holds. The snapshot comes first, so where its last chunk ends the deltas begin.
enum Frame {
    Chunk(SnapshotChunk),
    Delta(Delta),
}

/// Follows the frames of a file.
#[derive(Default)]
struct Scan {
    /// Of the last complete table.
    position: Option<TablePosition>,
    size: (u64, u64),
}

impl Scan {
    fn take(&mut self, body: &[u8], octets: u64) -> Option<Frame> {
        if self.position.is_none() {
            let chunk = SnapshotChunk::decode(body).ok()?;
            self.size.0 += octets;
            if chunk.last {
                self.position = Some(chunk.position.clone()?.into());
            }
            return Some(Frame::Chunk(chunk));
        }
        let delta = Delta::decode(body).ok()?;
        self.size.1 += octets;
        self.position = Some(delta.to.clone()?.into());
        Some(Frame::Delta(delta))
    }
}

fn damaged(path: PathBuf) -> StateDirError {
    StateDirError::Damaged {
        path,
        kind: "copy of what was acknowledged",
    }
}
