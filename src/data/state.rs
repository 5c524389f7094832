//! The state folder of one live mount: staging files, and records of uploads that it has begun and of versions that it
//! has to finish.
//!
//! `ROOT/ENDPOINT/TARGET[.N]/` holds `lock`, `stage/`, `uploads/`, `finish/`, `temporary/`, `journal/` and `attributes`, mode 0700. The lock dies with the process, so an
//! unlocked folder belongs to a mount that is gone: what it left unfinished is found here by the next mount that
//! covers its keys. Nothing is ever judged by its age.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::store::{Acl, BucketName, Key, Location, Tag};

/// The target of a mount of every bucket.
pub const ALL_BUCKETS: &str = "all buckets";

/// The folder of records of uploads.
const UPLOADS: &str = "uploads";

/// The folder of records of versions that are to be finished.
const FINISH: &str = "finish";

/// The folder of records of temporary keys.
const TEMPORARIES: &str = "temporary";

/// The folder of changes that are not stored yet.
pub(super) const JOURNAL: &str = "journal";

/// Sibling folders at most: live mounts of the same target on this machine.
const SIBLINGS_MAX: u32 = 256;

/// A state folder that this process holds.
#[derive(Debug)]
pub struct State {
    folder: PathBuf,
    next_record: AtomicU64,
    _lock: File,
}

/// A multipart upload that was begun and is recorded: by a mount that died, or by this one.
#[derive(Debug)]
pub struct Leftover {
    /// Where it is to lie.
    pub location: Location,
    /// The store's id of it.
    pub upload_id: String,
    /// The mark of the plan by which it was begun, if the same content may go on with it.
    pub plan: Option<String>,
    note: NoteOnDisk,
}

impl Leftover {
    /// The upload is gone: its record may go too.
    pub fn forget(self) -> io::Result<()> {
        self.note.remove()
    }
}

/// What a version needs after it was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finish {
    /// Where it lies.
    pub location: Location,
    /// Its ACL, if no header could say it.
    pub acl: Option<Acl>,
    /// Its tags, if no header could say them.
    pub tags: Option<Vec<Tag>>,
}

/// The journal of a dead mount.
#[derive(Debug)]
pub struct Orphan {
    /// Where it lies.
    pub(super) folder: PathBuf,
    /// Only changes in this bucket are ours.
    pub(super) bucket: Option<String>,
    /// Keeps others away from the folder while this is taken over.
    _lock: Arc<File>,
}

/// What mounts that are gone have left.
#[derive(Debug, Default)]
pub struct Leftovers {
    /// Uploads that they did not finish.
    pub uploads: Vec<Leftover>,
    /// Versions that they made, or were about to make, and did not finish.
    pub finishes: Vec<(Finish, NoteOnDisk)>,
    /// Keys that they made for a while.
    pub temporaries: Vec<(Location, NoteOnDisk)>,
    /// Changes that they did not store.
    pub journals: Vec<Orphan>,
}

#[derive(Serialize, Deserialize)]
struct Record {
    bucket: String,
    key: String,
    upload_id: String,
    #[serde(default)]
    plan: Option<String>,
}

/// The record of an upload that is under way, of a version that is to be finished, or of a temporary key.
#[derive(Debug)]
pub struct NoteOnDisk {
    path: PathBuf,
    /// Keeps others away from the folder of a dead mount while this is worked off.
    _lock: Option<Arc<File>>,
}

impl State {
    /// Takes a state folder for a mount of `target` (a bucket's name or [`ALL_BUCKETS`]) at `endpoint`; answers also
    /// what mounts that are gone have left.
    pub fn open(root: &Path, endpoint: &str, target: &str) -> io::Result<(State, Leftovers)> {
        let endpoint = root.join(file_name(endpoint));
        make_folder(&endpoint)?;
        let own_name = file_name(target);
        let mut leftovers = Leftovers::default();
        let mut state = None;
        for number in 0..SIBLINGS_MAX {
            let name = if number == 0 { own_name.clone() } else { format!("{own_name}.{number}") };
            let folder = endpoint.join(name);
            if state.is_some() && !folder.exists() {
                break;
            }
            make_folder(&folder)?;
            let Some(lock) = try_lock(&folder)? else { continue };
            let lock = Arc::new(lock);
            leftovers.uploads.extend(clear(&folder, &lock, |_| true)?);
            leftovers.finishes.extend(records(&folder, FINISH, &lock)?);
            leftovers.temporaries.extend(records(&folder, TEMPORARIES, &lock)?);
            if state.is_none() {
                let lock = lock.try_clone()?;
                state = Some(State { folder, next_record: AtomicU64::new(1), _lock: lock });
            } else {
                leftovers.journals.push(Orphan { folder: folder.join(JOURNAL), bucket: None, _lock: lock });
            }
        }
        for other in fs::read_dir(&endpoint)? {
            let folder = other?.path();
            let name = folder.file_name().and_then(|name| name.to_str()).unwrap_or_default().to_owned();
            let base = name.rsplit_once('.').filter(|(_, number)| number.parse::<u32>().is_ok());
            let base = base.map_or(name.as_str(), |(base, _)| base);
            let covered = base != own_name && (target == ALL_BUCKETS || base == file_name(ALL_BUCKETS));
            if covered && let Some(lock) = try_lock(&folder)? {
                let (lock, bucket) = (Arc::new(lock), (target != ALL_BUCKETS).then(|| target.to_owned()));
                let ours = |of: &str| bucket.as_deref().is_none_or(|bucket| bucket == of);
                leftovers.uploads.extend(clear(&folder, &lock, ours)?);
                let finishes = records::<Finish>(&folder, FINISH, &lock)?.into_iter();
                leftovers.finishes.extend(finishes.filter(|(finish, _)| ours(finish.location.bucket.as_str())));
                let temporaries = records::<Location>(&folder, TEMPORARIES, &lock)?.into_iter();
                leftovers.temporaries.extend(temporaries.filter(|(location, _)| ours(location.bucket.as_str())));
                leftovers.journals.push(Orphan { folder: folder.join(JOURNAL), bucket, _lock: lock });
            }
        }
        let state =
            state.ok_or_else(|| io::Error::other(format!("{SIBLINGS_MAX} mounts hold {}", endpoint.display())))?;
        Ok((state, leftovers))
    }

    /// Where staging files lie.
    pub fn stage_folder(&self) -> PathBuf {
        self.folder.join("stage")
    }

    /// Where attributes of objects lie.
    pub fn attributes_file(&self) -> PathBuf {
        self.folder.join("attributes")
    }

    /// Where the journal lies.
    pub fn journal_folder(&self) -> PathBuf {
        self.folder.join(JOURNAL)
    }

    /// Records an upload, so that a killed daemon leaves a note of it. A loss of power may take the note, not the bytes.
    pub fn record_upload(&self, location: &Location, upload_id: &str) -> io::Result<NoteOnDisk> {
        self.record_planned(location.clone(), upload_id.to_owned(), None).map(|upload| upload.note)
    }

    /// The same of one that the same content may go on with, by the plan of this mark.
    pub fn record_planned(&self, location: Location, upload_id: String, plan: Option<String>) -> io::Result<Leftover> {
        let (bucket, key) = (location.bucket.to_string(), location.key.to_string());
        let note = self.record(UPLOADS, &Record { bucket, key, upload_id: upload_id.clone(), plan: plan.clone() })?;
        Ok(Leftover { location, upload_id, plan, note })
    }

    /// Records what a version needs after it was made, likewise.
    pub fn record_finish(&self, finish: &Finish) -> io::Result<NoteOnDisk> {
        self.record(FINISH, finish)
    }

    /// Records a key that is about to be made and deleted again, likewise.
    pub fn record_temporary(&self, location: &Location) -> io::Result<NoteOnDisk> {
        self.record(TEMPORARIES, location)
    }

    fn record(&self, folder: &str, record: &impl Serialize) -> io::Result<NoteOnDisk> {
        let (path, file) = loop {
            let number = self.next_record.fetch_add(1, Ordering::Relaxed);
            let path = self.folder.join(folder).join(format!("{}-{number}.json", std::process::id()));
            match OpenOptions::new().write(true).create_new(true).mode(0o600).open(&path) {
                Ok(file) => break (path, file),
                // A dead mount's whose process had the same number, as in a container.
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
        };
        serde_json::to_writer(&file, record)?;
        Ok(NoteOnDisk { path, _lock: None })
    }
}

impl NoteOnDisk {
    /// What it is about is done.
    pub fn remove(self) -> io::Result<()> {
        fs::remove_file(&self.path)
    }
}

pub(super) fn make_folder(path: &Path) -> io::Result<()> {
    fs::DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Takes a folder if no living process holds it.
fn try_lock(folder: &Path) -> io::Result<Option<File>> {
    let path = folder.join("lock");
    let file = OpenOptions::new().create(true).write(true).truncate(false).mode(0o600).open(path)?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(fs::TryLockError::WouldBlock) => Ok(None),
        Err(fs::TryLockError::Error(error)) => Err(error),
    }
}

/// Reads what a dead mount left, and removes the staged bytes that nobody was promised.
fn clear(folder: &Path, lock: &Arc<File>, ours: impl Fn(&str) -> bool) -> io::Result<Vec<Leftover>> {
    let stage = folder.join("stage");
    make_folder(&stage)?;
    for staged in fs::read_dir(stage)? {
        let path = staged?.path();
        let parked = path.extension().is_some() || path.with_extension("json").exists();
        if !parked {
            remove_known(&path)?;
        }
    }
    let mut leftovers = Vec::new();
    for (record, note) in records::<Record>(folder, UPLOADS, lock)? {
        if let (Ok(bucket), Ok(key), true) =
            (BucketName::new(&record.bucket), Key::new(&record.key), ours(&record.bucket))
        {
            let location = Location { bucket, key };
            leftovers.push(Leftover { location, upload_id: record.upload_id, plan: record.plan, note });
        }
    }
    Ok(leftovers)
}

/// The records that a dead mount left in a folder, which is made if need be.
fn records<T: DeserializeOwned>(folder: &Path, name: &str, lock: &Arc<File>) -> io::Result<Vec<(T, NoteOnDisk)>> {
    let folder = folder.join(name);
    make_folder(&folder)?;
    let mut records = Vec::new();
    for record in fs::read_dir(folder)? {
        let path = record?.path();
        let read = match fs::read(&path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => continue,
            read => read?,
        };
        match serde_json::from_slice(&read) {
            Ok(record) => records.push((record, NoteOnDisk { path, _lock: Some(lock.clone()) })),
            // Cut short by a crash: the record comes first, so that what it is about was not done yet.
            Err(_) => log::warn!("{}: not a whole record", path.display()),
        }
    }
    Ok(records)
}

/// Removes a file that was listed. What a dying mount had begun to remove may be gone by now.
pub(super) fn remove_known(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

/// A name that is one segment of a path.
fn file_name(text: &str) -> String {
    text.chars().map(|c| if c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | ' ') { c } else { '_' }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn location(bucket: &str) -> Location {
        Location { bucket: BucketName::new(bucket).expect("plain"), key: Key::new("a/b").expect("plain") }
    }

    #[test]
    fn what_a_dead_mount_left_is_found_and_a_live_one_is_let_be() {
        let root = tempfile::tempdir().expect("room");
        let open = |target: &str| State::open(root.path(), "http://host:80", target).expect("opens");
        let (live, none) = open("bucket");
        assert!(none.uploads.is_empty());
        let live_record = live.record_upload(&location("bucket"), "live").expect("recorded");
        let (second, none) = open("bucket");
        assert!(none.uploads.is_empty(), "the first mount lives");
        assert_ne!(second.stage_folder(), live.stage_folder());
        let plan = Some("a plan".to_owned());
        second.record_planned(location("bucket"), "dead".to_owned(), plan).expect("recorded");
        fs::write(second.stage_folder().join("1"), "torso").expect("staged");
        fs::write(second.stage_folder().join("2"), "parked").expect("staged");
        fs::write(second.stage_folder().join("2.json"), "{}").expect("staged");
        let stage = second.stage_folder();
        drop(second);
        let (third, mut found) = open("bucket");
        let plan = Some("a plan".to_owned());
        assert_eq!(
            found.uploads.iter().map(|left| (&*left.upload_id, &left.plan)).collect::<Vec<_>>(),
            [("dead", &plan)]
        );
        assert!(!stage.join("1").exists() && stage.join("2").exists());
        found.uploads.remove(0).forget().expect("removed");
        drop((third, found));
        let (_all, found) = open(ALL_BUCKETS);
        assert!(found.uploads.is_empty());
        live_record.remove().expect("removed");
    }

    #[test]
    fn what_is_to_be_finished_is_found_whole() {
        let root = tempfile::tempdir().expect("room");
        let open = |target: &str| State::open(root.path(), "http://host:80", target).expect("opens");
        let grants = crate::format::acl::parse_lines("READ id=a,b").expect("a grant");
        let acl = Some(Acl { owner_id: "me".to_owned(), owner_name: None, grants });
        let finish = |bucket| Finish { location: location(bucket), acl: acl.clone(), tags: None };
        let (first, _) = open(ALL_BUCKETS);
        first.record_finish(&finish("one")).expect("recorded");
        first.record_finish(&finish("two")).expect("recorded");
        first.record_finish(&finish("one")).expect("recorded").remove().expect("removed");
        drop(first);
        let (_second, mut found) = open("one");
        assert_eq!(found.finishes.iter().map(|(finish, _)| finish).collect::<Vec<_>>(), [&finish("one")]);
        found.finishes.remove(0).1.remove().expect("removed");
        drop((found, _second));
        assert!(open("one").1.finishes.is_empty());
    }

    #[test]
    fn a_bucket_mount_covers_that_buckets_records_of_an_all_buckets_mount() {
        let root = tempfile::tempdir().expect("room");
        let open = |target: &str| State::open(root.path(), "http://host:80", target).expect("opens");
        let (all, _) = open(ALL_BUCKETS);
        all.record_upload(&location("one"), "1").expect("recorded");
        all.record_upload(&location("two"), "2").expect("recorded");
        drop(all);
        let (_one, found) = open("one");
        assert_eq!(found.uploads.iter().map(|left| left.upload_id.as_str()).collect::<Vec<_>>(), ["1"]);
    }
}
