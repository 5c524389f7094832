//! What lies in the state folder and nowhere else, found without a mount: changes that wait in a journal, those that
//! were set aside, and bytes that were parked when a mount ended. It changes nothing there.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Seek, SeekFrom, Write};
use std::ops::Range;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use serde::Deserialize;

use crate::data::stage::read_range;
use crate::data::state::JOURNAL;
use crate::store::Location;

use super::content::file_of;
use super::record::{Change, Segment};
use super::record_log::{Found as Logged, read_records};

use super::spool::{ASIDE, CONTENT, RECORDS};

/// Bytes copied at once.
const PIECE_BYTES: u64 = 1 << 20;

/// Why something lies there.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kept {
    /// The next mount stores it.
    Waiting,
    /// Another client was first, and its unchanged parts are gone.
    Aside,
    /// It was open and not stored when its mount ended.
    Parked,
}

/// One file that only this machine has.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where it was to lie.
    pub name: Location,
    /// Why it is here.
    pub kept: Kept,
    /// Its length in bytes.
    pub size_bytes: u64,
    /// Ranges of it that lie in these files, from these offsets; the rest is zeros, or was in a version of the store.
    local: Vec<(Range<u64>, PathBuf, u64)>,
}

impl Found {
    /// How many of its bytes are here.
    pub fn local_bytes(&self) -> u64 {
        self.local.iter().map(|(range, ..)| range.end - range.start).sum()
    }

    /// Writes it below `folder`, under its bucket and key, where nothing may be yet; answers where. What is not here
    /// is zeros.
    pub fn export(&self, folder: &Path) -> io::Result<PathBuf> {
        let to = folder.join(self.name.bucket.as_str()).join(self.name.key.as_str());
        if let Some(parent) = to.parent() {
            fs::create_dir_all(parent)?;
        }
        let mut out = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&to)?;
        out.set_len(self.size_bytes)?;
        for (range, path, offset) in &self.local {
            let file = File::open(path)?;
            out.seek(SeekFrom::Start(range.start))?;
            let mut at = *offset;
            let end = offset + range.end - range.start;
            while at < end {
                let piece = at..(at + PIECE_BYTES).min(end);
                at = piece.end;
                out.write_all(&read_range(&file, piece)?)?;
            }
        }
        Ok(to)
    }
}

/// What a file says that was parked beside its bytes.
#[derive(Deserialize)]
struct Parked {
    bucket: String,
    key: String,
    size_bytes: u64,
    extents: Vec<ParkedExtent>,
}

#[derive(Deserialize)]
struct ParkedExtent {
    start: u64,
    end: u64,
    from: serde_json::Value,
}

/// Looks through a state folder: everything that its mounts, living or dead, keep for the store.
pub fn find(state: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for endpoint in folders(state)? {
        for target in folders(&endpoint)? {
            let journal = target.join(JOURNAL);
            for (part, kept) in [(RECORDS, Kept::Waiting), (ASIDE, Kept::Aside)] {
                if journal.join(part).is_dir() {
                    found.extend(journaled(&journal, part, kept)?);
                }
            }
            if target.join("stage").is_dir() {
                found.extend(parked(&target.join("stage"))?);
            }
        }
    }
    Ok(found)
}

fn folders(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        if path.is_dir() {
            found.push(path);
        }
    }
    found.sort();
    Ok(found)
}

fn journaled(journal: &Path, part: &str, kept: Kept) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for Logged { record, .. } in read_records(&journal.join(part))?.found {
        let Change::Store(pending) = &record.change else { continue };
        // A copy of what the store has: nothing of it is here alone.
        if pending.copied_from().is_some() || record.to.key.is_marker() {
            continue;
        }
        let mut at = 0;
        let mut local = Vec::new();
        for segment in &pending.segments {
            let range = at..at + segment.length();
            at = range.end;
            if let Segment::Local { file, range: within } = segment {
                local.push((range, journal.join(CONTENT).join(file_of(file)), within.start));
            }
        }
        found.push(Found { name: record.to.clone(), kept, size_bytes: at, local });
    }
    Ok(found)
}

fn parked(stage: &Path) -> io::Result<Vec<Found>> {
    let mut found = Vec::new();
    for entry in fs::read_dir(stage)? {
        let path = entry?.path();
        if path.extension().is_none_or(|ending| ending != "json") {
            continue;
        }
        let parked: Parked = match serde_json::from_slice(&fs::read(&path)?) {
            Ok(parked) => parked,
            Err(error) => {
                log::warn!("{}: not a record of parked bytes: {error}", path.display());
                continue;
            }
        };
        let name = serde_json::json!({ "bucket": parked.bucket, "key": parked.key });
        let name: Location = serde_json::from_value(name).map_err(io::Error::other)?;
        let bytes = path.with_extension("");
        let staged = parked.extents.iter().filter(|extent| extent.from == "staged");
        let local = staged.map(|extent| (extent.start..extent.end, bytes.clone(), extent.start)).collect();
        found.push(Found { name, kept: Kept::Parked, size_bytes: parked.size_bytes, local });
    }
    Ok(found)
}
