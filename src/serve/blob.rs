//! Files that hold the bytes of objects. A blob is written once under a name of its own and never changed.
//!
//! A copy on the server gets a hard link of the blob, so that each blob's name belongs to one object and the file
//! system counts who still needs the bytes. [`Blobs`] are the names that one body owns: when the last reader of a
//! body that was replaced lets go, they are unlinked. What a crash leaves over is found at the next start.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::io::{self, Write};
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use bytes::Bytes;
use md5::{Digest, Md5};
use tokio::sync::mpsc;

use super::files::{new_id, sync_folder};
use super::record::Piece;

/// Bytes read from a file at once. Large enough that the hop to a blocking thread costs little beside the read.
pub const READ_BYTES: u64 = 512 * 1024;

/// The blobs that one body owns.
#[derive(Debug)]
pub struct Blobs {
    paths: Vec<PathBuf>,
    doomed: AtomicBool,
}

impl Blobs {
    /// Blobs that nothing refers to yet: they vanish with this value unless they are kept.
    pub fn new(paths: Vec<PathBuf>) -> Self {
        Blobs { paths, doomed: AtomicBool::new(true) }
    }

    /// A record on the disk refers to them now.
    pub fn keep(&self) {
        self.doomed.store(false, Ordering::Release);
    }

    /// No record refers to them any more.
    pub fn doom(&self) {
        self.doomed.store(true, Ordering::Release);
    }
}

impl Drop for Blobs {
    fn drop(&mut self) {
        if !self.doomed.load(Ordering::Acquire) {
            return;
        }
        for path in &self.paths {
            if let Err(error) = std::fs::remove_file(path) {
                log::warn!("{} stays until the next start: {error}", path.display());
            }
        }
    }
}

/// Where the bytes of a body lie.
#[derive(Clone, Debug)]
pub enum Body {
    /// In the record's own file.
    Inline(Bytes),
    /// In blobs.
    Pieces(Vec<Piece>, Arc<Blobs>),
}

/// The ownership of blobs that a record on the disk names; `None` for no pieces.
pub fn kept_blobs(folder: &Path, pieces: &[Piece]) -> Option<Arc<Blobs>> {
    if pieces.is_empty() {
        return None;
    }
    let names: HashSet<&str> = pieces.iter().map(|piece| piece.blob.as_str()).collect();
    let blobs = Blobs::new(names.into_iter().map(|name| folder.join(name)).collect());
    blobs.keep();
    Some(Arc::new(blobs))
}

/// Bytes that were written to a blob.
pub struct WrittenBlob {
    /// Where they lie.
    pub body: Body,
    /// How many they are.
    pub size_bytes: u64,
    /// Their MD5.
    pub md5: [u8; 16],
}

/// Writes what comes out of `chunks` to a new blob, durably. Blocks.
pub fn write_blob(folder: &Path, mut chunks: mpsc::Receiver<Bytes>) -> io::Result<WrittenBlob> {
    let blob = new_id();
    let path = folder.join(&blob);
    let blobs = Arc::new(Blobs::new(vec![path.clone()]));
    let mut file = File::create_new(&path)?;
    let mut hash = Md5::new();
    let mut size_bytes = 0;
    while let Some(chunk) = chunks.blocking_recv() {
        hash.update(&chunk);
        file.write_all(&chunk)?;
        size_bytes += chunk.len() as u64;
    }
    file.sync_all()?;
    sync_folder(folder)?;
    let pieces = if size_bytes == 0 { vec![] } else { vec![Piece { blob, offset: 0, length: size_bytes }] };
    Ok(WrittenBlob { body: Body::Pieces(pieces, blobs), size_bytes, md5: hash.finalize().into() })
}

/// The pieces that make up a range of a body.
pub fn cut(pieces: &[Piece], range: &Range<u64>) -> Vec<Piece> {
    let mut cut = Vec::new();
    let mut begin = 0;
    for piece in pieces {
        let end = begin + piece.length;
        let (from, to) = (range.start.max(begin), range.end.min(end));
        if from < to {
            cut.push(Piece { blob: piece.blob.clone(), offset: piece.offset + (from - begin), length: to - from });
        }
        begin = end;
    }
    cut
}

/// Gives another body the same bytes, without copying them where the file system can link. Blocks.
pub fn link_pieces(from: &Path, pieces: &[Piece], to: &Path) -> io::Result<Body> {
    let mut names: HashMap<&str, String> = HashMap::new();
    let mut linked = Vec::with_capacity(pieces.len());
    for piece in pieces {
        let name = names.entry(&piece.blob).or_insert_with(new_id);
        linked.push(Piece { blob: name.clone(), ..piece.clone() });
    }
    let paths = names.values().map(|name| to.join(name)).collect();
    let blobs = Arc::new(Blobs::new(paths));
    for (source, target) in &names {
        link_or_copy(&from.join(source), &to.join(target))?;
    }
    sync_folder(to)?;
    Ok(Body::Pieces(linked, blobs))
}

/// A file can have only so many names (65,000 on ext4), and some file systems know one name only: then it is copied.
fn link_or_copy(from: &Path, to: &Path) -> io::Result<()> {
    match std::fs::hard_link(from, to) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            std::fs::copy(from, to)?;
            File::open(to)?.sync_all()
        }
        done => done,
    }
}

/// Writes what was read elsewhere to a blob of its own, durably. Blocks.
pub fn flatten(folder: &Path, chunks: impl Iterator<Item = Chunk>) -> io::Result<Body> {
    let blob = new_id();
    let path = folder.join(&blob);
    let blobs = Arc::new(Blobs::new(vec![path.clone()]));
    let mut file = File::create_new(&path)?;
    let mut length = 0;
    for chunk in chunks {
        file.write_all(&chunk.read()?)?;
        length += chunk.length;
    }
    file.sync_all()?;
    sync_folder(folder)?;
    Ok(Body::Pieces(vec![Piece { blob, offset: 0, length }], blobs))
}

/// Writes some bytes to a new blob, durably. Blocks.
pub fn write_bytes(folder: &Path, bytes: &[u8]) -> io::Result<WrittenBlob> {
    let blob = new_id();
    let path = folder.join(&blob);
    let blobs = Arc::new(Blobs::new(vec![path.clone()]));
    let mut file = File::create_new(&path)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    sync_folder(folder)?;
    let size_bytes = bytes.len() as u64;
    let pieces = if bytes.is_empty() { vec![] } else { vec![Piece { blob, offset: 0, length: size_bytes }] };
    Ok(WrittenBlob { body: Body::Pieces(pieces, blobs), size_bytes, md5: Md5::digest(bytes).into() })
}

/// The MD5 of a body. Blocks.
pub fn md5_of(folder: &Path, pieces: &[Piece]) -> io::Result<[u8; 16]> {
    let mut hash = Md5::new();
    for chunk in chunks(folder, pieces) {
        hash.update(chunk.read()?);
    }
    Ok(hash.finalize().into())
}

/// A blob that is opened when it is first read.
#[derive(Debug)]
struct Source {
    path: PathBuf,
    file: OnceLock<File>,
}

/// Some bytes of a body that are read at once.
#[derive(Debug)]
pub struct Chunk {
    source: Arc<Source>,
    offset: u64,
    length: u64,
}

impl Chunk {
    /// Reads the bytes. Blocks.
    pub fn read(&self) -> io::Result<Bytes> {
        let file = match self.source.file.get() {
            Some(file) => file,
            None => {
                let file = File::open(&self.source.path)?;
                self.source.file.get_or_init(|| file)
            }
        };
        let mut buffer = vec![0; self.length as usize];
        file.read_exact_at(&mut buffer, self.offset)?;
        Ok(Bytes::from(buffer))
    }
}

/// Cuts a body into what is read at once, in order.
pub fn chunks(folder: &Path, pieces: &[Piece]) -> impl Iterator<Item = Chunk> + Send + Sync + use<> {
    let folder = folder.to_owned();
    let pieces = pieces.to_vec();
    pieces.into_iter().flat_map(move |piece| {
        let source = Arc::new(Source { path: folder.join(&piece.blob), file: OnceLock::new() });
        (0..piece.length.div_ceil(READ_BYTES)).map(move |index| {
            let begin = index * READ_BYTES;
            let length = READ_BYTES.min(piece.length - begin);
            Chunk { source: source.clone(), offset: piece.offset + begin, length }
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn piece(blob: &str, offset: u64, length: u64) -> Piece {
        Piece { blob: blob.into(), offset, length }
    }

    fn read_all(folder: &Path, pieces: &[Piece]) -> Vec<u8> {
        chunks(folder, pieces).flat_map(|chunk| chunk.read().unwrap()).collect()
    }

    #[test]
    fn cuts_ranges_across_pieces() {
        let pieces = [piece("a", 10, 5), piece("b", 0, 5)];
        assert_eq!(cut(&pieces, &(0..10)), pieces);
        assert_eq!(cut(&pieces, &(3..7)), [piece("a", 13, 2), piece("b", 0, 2)]);
        assert_eq!(cut(&pieces, &(5..6)), [piece("b", 0, 1)]);
        assert_eq!(cut(&pieces, &(10..12)), []);
    }

    #[test]
    fn links_outlive_their_source() {
        let folder = tempfile::tempdir().unwrap();
        std::fs::write(folder.path().join("a"), b"0123456789").unwrap();
        let source = Blobs::new(vec![folder.path().join("a")]);
        let pieces = [piece("a", 0, 4), piece("a", 6, 4)];
        let Body::Pieces(linked, blobs) = link_pieces(folder.path(), &pieces, folder.path()).unwrap() else {
            panic!("linked pieces are pieces");
        };
        drop(source);
        assert_eq!(read_all(folder.path(), &linked), b"01236789");
        assert_eq!(linked[0].blob, linked[1].blob, "a blob is linked once for all its pieces");
        let Body::Pieces(flat, flat_blobs) = flatten(folder.path(), chunks(folder.path(), &linked)).unwrap() else {
            panic!("flat is pieces")
        };
        drop(blobs);
        assert_eq!(read_all(folder.path(), &flat), b"01236789");
        flat_blobs.keep();
        drop(flat_blobs);
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1, "only the kept blob is left");
    }

    #[test]
    fn reads_in_chunks() {
        let folder = tempfile::tempdir().unwrap();
        let bytes: Vec<u8> = (0..READ_BYTES * 2 + 7).map(|n| (n % 251) as u8).collect();
        std::fs::write(folder.path().join("a"), &bytes).unwrap();
        let pieces = [piece("a", 1, READ_BYTES * 2 + 6)];
        assert_eq!(chunks(folder.path(), &pieces).count(), 3);
        assert!(read_all(folder.path(), &pieces) == bytes[1..]);
    }
}
