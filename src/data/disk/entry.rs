//! A version's two files: `KEY-VERSION.data`, sparse and as long as the object, so that the kernel can be handed it as
//! it is; and `KEY-VERSION.sums`: what it belongs to, then a checksum of 8 bytes for each chunk, 0 for none. When the
//! second was last changed is when the version was last used.
//!
//! Bytes of a data file are written once and never changed to others; what is not wanted any more is unlinked. Refuses
//! to take the word of a file that does not name the version it is asked for.

use std::fs::{self, DirBuilder, File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{DirBuilderExt, FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use rustix::buffer::spare_capacity;
use sha2::{Digest, Sha256};
use twox_hash::XxHash3_64;

use crate::data::Version;

/// No checksum is recorded.
pub(super) const ABSENT: u64 = 0;

/// How files end.
pub(super) const DATA: &str = "data";
/// See [`DATA`].
pub(super) const SUMS: &str = "sums";

/// What a file of checksums begins with; another layout gets another number.
const MAGIC: [u8; 8] = *b"dreamfs1";
const HEADER_BYTES: u64 = 8 + 32;

/// Files are spread over folders named after so many digits, 4096 in all, so that none gets long.
const FOLDER_DIGITS: usize = 3;

/// How exactly the time of the last use is known: writing it down at every read would cost a write each.
const TOUCH_AGAIN: Duration = Duration::from_secs(60);

/// Where a version lies, and how its chunks are told from others.
pub(super) struct Entry {
    /// The files' common name without its ending.
    pub(super) stem: String,
    pub(super) size_bytes: u64,
    chunk_bytes: u64,
    digest: [u8; 32],
}

/// The file of checksums.
pub(super) struct Sums {
    file: File,
}

/// What became of a chunk that was to be written.
pub(super) struct Written {
    /// What it takes on disk; 0 if it was there.
    pub(super) taken_bytes: u64,
    /// Whether it is the first of its version.
    pub(super) is_new: bool,
    /// The data file's, before and after, unless it was there.
    pub(super) fingerprints: Option<(Fingerprint, Fingerprint)>,
}

/// Files of ours are for their owner alone.
pub(super) fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.read(true).write(true).mode(0o600);
    options
}

impl Entry {
    pub(super) fn of(store: &str, version: &Version, chunk_bytes: u64) -> Self {
        let location = &version.location;
        let key = digest(&[store.as_bytes(), location.bucket.as_str().as_bytes(), location.key.as_str().as_bytes()]);
        let numbers = [version.size_bytes.to_le_bytes(), chunk_bytes.to_le_bytes()];
        let digest = digest(&[&key, version.etag.as_str().as_bytes(), &numbers[0], &numbers[1]]);
        let stem = format!("{}-{}", hex::encode(&key[..16]), hex::encode(&digest[..16]));
        Entry { stem, size_bytes: version.size_bytes, chunk_bytes, digest }
    }

    pub(super) fn chunks(&self) -> u64 {
        self.size_bytes.div_ceil(self.chunk_bytes)
    }

    /// A chunk's bytes in the file.
    pub(super) fn chunk_range(&self, index: u64) -> Range<u64> {
        let start = index * self.chunk_bytes;
        start..(start + self.chunk_bytes).min(self.size_bytes)
    }

    /// A chunk's checksum. The seed is its place, so that bytes of another file or offset never fit.
    pub(super) fn sum(&self, index: u64, bytes: &[u8]) -> u64 {
        let seed = self.digest.first_chunk().map_or(0, |first| u64::from_le_bytes(*first));
        XxHash3_64::oneshot_with_seed(seed.wrapping_add(index), bytes).max(ABSENT + 1)
    }

    fn folder(&self, root: &Path) -> PathBuf {
        root.join(&self.stem[..FOLDER_DIGITS])
    }

    fn path(&self, root: &Path, ending: &str) -> PathBuf {
        self.folder(root).join(format!("{}.{ending}", self.stem))
    }

    pub(super) fn data_path(&self, root: &Path) -> PathBuf {
        self.path(root, DATA)
    }

    /// The checksums if there are any. What is shorter than a header is just being made, by us or another mount.
    pub(super) fn open_sums(&self, root: &Path) -> io::Result<Option<Sums>> {
        let file = match File::open(self.path(root, SUMS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            file => file?,
        };
        Ok(self.check_header(&file)?.then_some(Sums { file }))
    }

    /// The data, to read.
    pub(super) fn open_data(&self, root: &Path) -> io::Result<File> {
        let file = File::open(self.data_path(root))?;
        match file.metadata()?.len() == self.size_bytes {
            true => Ok(file),
            false => Err(io::Error::new(io::ErrorKind::UnexpectedEof, "its length is not what was written")),
        }
    }

    /// Writes a chunk, then its checksum.
    pub(super) fn write(&self, root: &Path, index: u64, bytes: &[u8], now: SystemTime) -> io::Result<Written> {
        let sums = self.make(root, SUMS)?;
        if !self.check_header(&sums)? {
            sums.write_all_at(&[MAGIC.as_slice(), &self.digest].concat(), 0)?;
        }
        let data = self.make(root, DATA)?;
        let is_new = data.metadata()?.len() != self.size_bytes;
        if is_new {
            // What was recorded of a file that is gone or damaged holds no more.
            sums.set_len(HEADER_BYTES)?;
            data.set_len(self.size_bytes)?;
        }
        let (sums, sum) = (Sums { file: sums }, self.sum(index, bytes));
        if sums.read(index..index + 1)? == [sum] {
            sums.touch(now);
            return Ok(Written { taken_bytes: 0, is_new, fingerprints: None });
        }
        let before = Fingerprint::of(&data)?;
        data.write_all_at(bytes, self.chunk_range(index).start)?;
        sums.record(index, sum)?;
        sums.touch(now);
        let taken_bytes = on_disk(bytes.len() as u64) + if is_new { on_disk(HEADER_BYTES) } else { 0 };
        Ok(Written { taken_bytes, is_new, fingerprints: Some((before, Fingerprint::of(&data)?)) })
    }

    fn make(&self, root: &Path, ending: &str) -> io::Result<File> {
        let path = self.path(root, ending);
        let open = || private().create(true).truncate(false).open(&path);
        match open() {
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                DirBuilder::new().recursive(true).mode(0o700).create(self.folder(root))?;
                open()
            }
            file => file,
        }
    }

    /// Whether the header is there; an error if it is another one.
    fn check_header(&self, sums: &File) -> io::Result<bool> {
        let mut header = [0; HEADER_BYTES as usize];
        if let Err(error) = sums.read_exact_at(&mut header, 0) {
            return if error.kind() == io::ErrorKind::UnexpectedEof { Ok(false) } else { Err(error) };
        }
        match header[..8] == MAGIC && header[8..] == self.digest {
            true => Ok(true),
            false => Err(io::Error::new(io::ErrorKind::InvalidData, "its checksums are not those of this version")),
        }
    }

    pub(super) fn forget_chunk(&self, root: &Path, index: u64) -> io::Result<()> {
        match OpenOptions::new().write(true).open(self.path(root, SUMS)) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            file => Sums { file: file? }.record(index, ABSENT),
        }
    }

    /// Unlinks both files.
    pub(super) fn remove(&self, root: &Path) {
        remove(&self.folder(root), &self.stem);
    }

    /// Unlinks all other versions of the key; answers what they took.
    pub(super) fn remove_others(&self, root: &Path) -> io::Result<u64> {
        let key = self.stem.split('-').next().unwrap_or_default();
        let mut freed = 0;
        for found in fs::read_dir(self.folder(root))? {
            let found = found?;
            let name = found.file_name();
            let name = name.to_str().unwrap_or_default();
            let Some((stem, _)) = name.rsplit_once('.').filter(|(stem, _)| *stem != self.stem) else { continue };
            if stem.split('-').next() == Some(key) {
                freed += found.metadata().map_or(0, |metadata| metadata.blocks() * 512);
                remove(&self.folder(root), stem);
            }
        }
        Ok(freed)
    }
}

impl Sums {
    /// The checksums of these chunks.
    pub(super) fn read(&self, chunks: Range<u64>) -> io::Result<Vec<u64>> {
        let count = chunks.end.saturating_sub(chunks.start) as usize;
        let mut bytes = vec![0; count * 8];
        let mut filled = 0;
        // The file ends with the last checksum that was recorded: what is behind it stays 0.
        while filled < bytes.len() {
            match self.file.read_at(&mut bytes[filled..], place(chunks.start) + filled as u64)? {
                0 => break,
                more => filled += more,
            }
        }
        Ok(bytes.as_chunks().0.iter().map(|sum| u64::from_le_bytes(*sum)).collect())
    }

    /// Whether the last of so many chunks can be recorded: cheap to know of a file that is far from whole.
    pub(super) fn reach(&self, chunks: u64) -> io::Result<bool> {
        Ok(self.file.metadata()?.len() >= place(chunks))
    }

    fn record(&self, index: u64, sum: u64) -> io::Result<()> {
        self.file.write_all_at(&sum.to_le_bytes(), place(index))
    }

    /// Notes that the version was used.
    pub(super) fn touch(&self, now: SystemTime) {
        let is_old = |then: SystemTime| now.duration_since(then).is_ok_and(|age| age >= TOUCH_AGAIN);
        if self.file.metadata().and_then(|metadata| metadata.modified()).is_ok_and(is_old)
            && let Err(error) = self.file.set_modified(now)
        {
            // It is evicted earlier than it should be, and nothing worse.
            log::debug!("the time of use of a cached file cannot be written: {error}");
        }
    }
}

/// Unlinks a pair. The checksums go first: data without them is never served.
pub(super) fn remove(folder: &Path, stem: &str) {
    for ending in [SUMS, DATA] {
        let path = folder.join(format!("{stem}.{ending}"));
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                log::debug!("{}: cannot be removed: {error}", path.display());
            }
            _ => {}
        }
    }
}

/// Whether a name is one of ours: two hashes.
pub(super) fn is_stem(name: &str) -> bool {
    let is_hash = |part: &str| part.len() == 32 && part.bytes().all(|byte| byte.is_ascii_hexdigit());
    name.split_once('-').is_some_and(|(key, version)| is_hash(key) && is_hash(version))
}

/// What tells that a file is still the one that was verified.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) struct Fingerprint {
    inode: (u64, u64),
    size_bytes: u64,
    modified_ns: (i64, i64),
}

impl Fingerprint {
    pub(super) fn of(file: &File) -> io::Result<Self> {
        let found = file.metadata()?;
        let modified_ns = (found.mtime(), found.mtime_nsec());
        Ok(Fingerprint { inode: (found.dev(), found.ino()), size_bytes: found.len(), modified_ns })
    }
}

/// Reads a range into `memory`, of which as much is added as it lacks. Nobody zeroes it first: it is overwritten at once.
pub(super) fn read_exact_at(file: &File, range: Range<u64>, memory: Vec<u8>) -> io::Result<Vec<u8>> {
    let length = (range.end - range.start) as usize;
    let mut bytes = memory;
    bytes.clear();
    bytes.reserve_exact(length);
    while bytes.len() < length {
        let at = range.start + bytes.len() as u64;
        match rustix::io::pread(file, spare_capacity(&mut bytes), at) {
            Ok(0) => return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "it was cut short")),
            Ok(_) | Err(rustix::io::Errno::INTR) => {}
            Err(error) => return Err(error.into()),
        }
    }
    // The memory may have been larger than what was asked for.
    bytes.truncate(length);
    Ok(bytes)
}

/// What bytes take on disk: file systems give them out in pages.
pub(super) fn on_disk(bytes: u64) -> u64 {
    bytes.next_multiple_of(4096)
}

/// Where a chunk's checksum lies.
fn place(index: u64) -> u64 {
    HEADER_BYTES + index * 8
}

/// SHA-256 over texts of which none runs into the next.
fn digest(texts: &[&[u8]]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for text in texts {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text);
    }
    hash.finalize().into()
}
