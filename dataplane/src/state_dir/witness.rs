//! What this data plane last acknowledged, so that a restored store is found out also by one that restarts
//! (G16).
//!
//! One file, in the stream's own words: the chunks of a snapshot, then every delta after it, each in a
//! *frame* of its own. The control plane hears nothing about a table, that it is applied or that a fence of
//! it is drained, before the file holds it. It is compared with the store and never routes anybody.
//!
//! ```text
//!   frame: length (u32 LE) · of it the complement · digest of the body, 8 octets · body
//! ```
//!
//! At most the last frame is not synced, so only a bad end of the file is an interrupted write: it was never
//! acknowledged, and is dropped. Any other damage is an error, never "nothing was held".

use std::{
    collections::BTreeMap,
    fs::{self, File, OpenOptions},
    io::{self, BufReader, BufWriter, Read as _, Seek as _, Write as _},
    path::{Path, PathBuf},
};

use ferrypost_proto::{
    CHUNK_BYTES, TablePosition,
    routing::v1::{AccountEntry, Delta, SnapshotChunk, change::Change as Kind},
    v1::RoutingConfig,
};
use prost::Message;
use sha2::{Digest as _, Sha256};

use super::{StateDirError, at, sync_directory};

const WITNESS: &str = "witness";
/// A snapshot that is not complete yet.
const COMING: &str = "witness.new";
/// Exists after the registration has ended: moves may have been missed since.
const LEFT: &str = "left";

const HEADER: usize = 16;
/// A chunk or a delta as the stream carries it, with room to spare.
const MOST_BODY: usize = 64 * CHUNK_BYTES;
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
    /// Octets of the snapshot, and of the deltas after it.
    size: (u64, u64),
    coming: Option<BufWriter<File>>,
}

/// Everything that was acknowledged.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Acknowledged {
    /// How far it reaches.
    pub position: TablePosition,
    /// The routing configuration.
    pub config: Option<RoutingConfig>,
    /// By account id.
    pub accounts: BTreeMap<String, AccountEntry>,
}

impl Witness {
    /// Finds out what was acknowledged. Reads the whole file.
    pub(super) fn open(directory: &Path) -> Result<Self, StateDirError> {
        let path = directory.join(WITNESS);
        let mut witness = Self {
            directory: directory.to_owned(),
            file: None,
            position: None,
            current: !directory.join(LEFT).exists(),
            size: (0, 0),
            coming: None,
        };
        let file = match OpenOptions::new().read(true).append(true).open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(witness),
            Err(error) => return Err(at(&path)(error)),
        };
        let mut scan = Scan::default();
        let end = read_frames(&file, |body, octets| scan.take(body, octets)).map_err(at(&path))?;
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
        coming.write_all(&frame(chunk)).map_err(at(&path))
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
            if !self.current {
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
        self.current = true;
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
        let frame = frame(delta);
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
        let read = read_frames(file, |body, octets| {
            let frame = scan.take(body, octets)?;
            all.take(&frame);
            Some(frame)
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

impl Acknowledged {
    /// Takes a chunk of a snapshot in.
    pub fn chunk(&mut self, chunk: &SnapshotChunk) {
        if let Some(position) = &chunk.position {
            self.position = position.clone().into();
        }
        if chunk.config.is_some() {
            self.config.clone_from(&chunk.config);
        }
        self.put(&chunk.accounts);
    }

    fn take(&mut self, frame: &Frame) {
        match frame {
            Frame::Chunk(chunk) => self.chunk(chunk),
            Frame::Delta(delta) => {
                if let Some(to) = &delta.to {
                    self.position = to.clone().into();
                }
                for change in &delta.changes {
                    match &change.change {
                        Some(Kind::Account(entry)) => self.put(std::slice::from_ref(entry)),
                        Some(Kind::AccountRemoved(account)) => {
                            self.accounts.remove(account);
                        }
                        Some(Kind::Config(config)) => self.config = Some(config.clone()),
                        None => {}
                    }
                }
            }
        }
    }

    fn put(&mut self, entries: &[AccountEntry]) {
        for entry in entries {
            self.accounts
                .insert(entry.account_id.clone(), entry.clone());
        }
    }

    fn into_chunks(self) -> Vec<SnapshotChunk> {
        let position = Some(self.position.into());
        let mut chunk = SnapshotChunk {
            position: position.clone(),
            config: self.config,
            ..SnapshotChunk::default()
        };
        let (mut chunks, mut octets) = (Vec::new(), 0);
        for entry in self.accounts.into_values() {
            octets += entry.encoded_len();
            chunk.accounts.push(entry);
            if octets >= CHUNK_BYTES {
                let next = SnapshotChunk {
                    position: position.clone(),
                    index: chunk.index + 1,
                    ..SnapshotChunk::default()
                };
                chunks.push(std::mem::replace(&mut chunk, next));
                octets = 0;
            }
        }
        chunk.last = true;
        chunks.push(chunk);
        chunks
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

fn frame(message: &impl Message) -> Vec<u8> {
    let body = message.encode_to_vec();
    let length = u32::try_from(body.len()).unwrap_or(u32::MAX);
    let mut frame = Vec::with_capacity(HEADER + body.len());
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(&(!length).to_le_bytes());
    frame.extend_from_slice(&digest(&body));
    frame.extend_from_slice(&body);
    frame
}

fn digest(body: &[u8]) -> [u8; 8] {
    let mut short = [0; 8];
    short.copy_from_slice(&Sha256::digest(body)[..8]);
    short
}

/// Gives every frame of a file to `take`, from the first on. Where the last whole one ends; `None` when
/// the file is damaged before its end, or `take` says that a frame means nothing.
fn read_frames(
    mut file: &File,
    mut take: impl FnMut(&[u8], u64) -> Option<Frame>,
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

fn body_length(header: &[u8; HEADER]) -> Option<usize> {
    let word = |at: usize| {
        u32::from_le_bytes([header[at], header[at + 1], header[at + 2], header[at + 3]])
    };
    let length = word(0);
    (word(4) == !length && length as usize <= MOST_BODY).then_some(length as usize)
}

fn is_zero(reader: &mut impl io::Read) -> io::Result<bool> {
    let mut rest = Vec::new();
    reader.read_to_end(&mut rest)?;
    Ok(rest.iter().all(|octet| *octet == 0))
}

fn damaged(path: PathBuf) -> StateDirError {
    StateDirError::Damaged {
        path,
        kind: "copy of what was acknowledged",
    }
}

#[cfg(test)]
mod tests {
    use ferrypost_proto::routing::v1::{Change, Head, TablePosition as WirePosition};

    use super::*;

    fn position(store: u64) -> WirePosition {
        WirePosition {
            revision: Some(ferrypost_proto::v1::Revision { base: 0, store }),
            head: Some(Head {
                store,
                nonce: vec![7; 16].into(),
            }),
        }
    }

    fn entry(account: &str, home: &str) -> AccountEntry {
        AccountEntry {
            account_id: account.into(),
            home: home.into(),
            ..AccountEntry::default()
        }
    }

    fn chunk(index: u32, last: bool, accounts: Vec<AccountEntry>) -> SnapshotChunk {
        SnapshotChunk {
            position: Some(position(5)),
            index,
            last,
            accounts,
            ..SnapshotChunk::default()
        }
    }

    fn delta(to: u64, entry: AccountEntry) -> Delta {
        Delta {
            from: None,
            to: Some(position(to)),
            changes: vec![Change {
                change: Some(Kind::Account(entry)),
            }],
        }
    }

    /// With a snapshot at 5 and a delta to 9.
    fn witness(directory: &Path) -> Witness {
        let mut witness = Witness::open(directory).unwrap();
        witness
            .chunk(&chunk(0, false, vec![entry("a", "old")]))
            .unwrap();
        witness
            .chunk(&chunk(1, true, vec![entry("b", "old")]))
            .unwrap();
        witness.complete(position(5).into()).unwrap();
        witness.delta(&delta(9, entry("a", "new"))).unwrap();
        witness
    }

    fn homes(witness: &Witness) -> Vec<(String, String)> {
        let all = witness.read().unwrap().unwrap();
        let accounts = all.accounts.into_values();
        accounts
            .map(|entry| (entry.account_id, entry.home))
            .collect()
    }

    fn expected() -> Vec<(String, String)> {
        [("a", "new"), ("b", "old")]
            .map(|(a, b)| (a.into(), b.into()))
            .to_vec()
    }

    #[test]
    fn what_was_acknowledged_is_known_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(Witness::open(dir.path()).unwrap().position(), None);
        drop(witness(dir.path()));
        let again = Witness::open(dir.path()).unwrap();
        assert_eq!(again.position(), Some(&position(9).into()));
        assert!(again.is_current());
        assert_eq!(homes(&again), expected());
    }

    #[test]
    fn an_interrupted_write_was_never_acknowledged() {
        let dir = tempfile::tempdir().unwrap();
        drop(witness(dir.path()));
        let path = dir.path().join(WITNESS);
        let whole = fs::read(&path).unwrap();
        let next = frame(&delta(12, entry("b", "new")));
        for cut in 0..next.len() {
            fs::write(&path, [&whole[..], &next[..cut]].concat()).unwrap();
            let mut again = Witness::open(dir.path()).unwrap();
            assert_eq!(again.position(), Some(&position(9).into()), "{cut} octets");
            // And it goes on behind what was whole.
            again.delta(&delta(13, entry("c", "new"))).unwrap();
            let again = Witness::open(dir.path()).unwrap();
            assert_eq!(again.position(), Some(&position(13).into()), "{cut} octets");
        }
        fs::write(&path, [&whole[..], &vec![0; next.len()]].concat()).unwrap();
        let again = Witness::open(dir.path()).unwrap();
        assert_eq!(again.position(), Some(&position(9).into()));
    }

    #[test]
    fn damage_is_an_error_and_never_nothing() {
        let dir = tempfile::tempdir().unwrap();
        drop(witness(dir.path()));
        let path = dir.path().join(WITNESS);
        let whole = fs::read(&path).unwrap();
        let first = HEADER + body_length(whole[..HEADER].try_into().unwrap()).unwrap();
        for at in 0..first {
            let mut wrong = whole.clone();
            wrong[at] ^= 0x40;
            fs::write(&path, &wrong).unwrap();
            let error = Witness::open(dir.path()).unwrap_err();
            assert!(
                matches!(error, StateDirError::Damaged { .. }),
                "{at}: {error}"
            );
        }
        // A file that ends before its snapshot does was never put in place.
        for cut in [0, 3, first] {
            fs::write(&path, &whole[..cut]).unwrap();
            assert!(Witness::open(dir.path()).is_err(), "{cut}");
        }
    }

    #[test]
    fn whoever_left_may_have_missed_moves_until_the_next_snapshot() {
        let dir = tempfile::tempdir().unwrap();
        witness(dir.path()).leave().unwrap();
        let mut again = Witness::open(dir.path()).unwrap();
        assert!(!again.is_current());
        assert_eq!(
            again.position(),
            Some(&position(9).into()),
            "it proves a restore all the same"
        );
        again.chunk(&chunk(0, true, vec![])).unwrap();
        again.complete(position(20).into()).unwrap();
        assert!(Witness::open(dir.path()).unwrap().is_current());
    }

    #[test]
    fn deltas_that_outweigh_the_snapshot_are_folded_into_it() {
        let dir = tempfile::tempdir().unwrap();
        let mut witness = witness(dir.path());
        let heavy = AccountEntry {
            traceparent: "x".repeat(1 << 20),
            ..entry("c", "old")
        };
        for to in 10..16 {
            witness.delta(&delta(to, heavy.clone())).unwrap();
        }
        let length = fs::metadata(dir.path().join(WITNESS)).unwrap().len();
        assert!(length < 4 << 20, "{length}");
        let again = Witness::open(dir.path()).unwrap();
        assert_eq!(again.position(), Some(&position(15).into()));
        assert_eq!(homes(&again).len(), 3);
    }
}
