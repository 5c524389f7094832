//! Inodes by number. Most are files of which nothing is known but what a listing tells: those are kept in the few bytes
//! that this takes, and become whole inodes when more is known of them.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::store::ETag;

use super::inode::{FileKind, Ino, Inode, Object};
use super::sighting::file_attr;
use super::{Attr, Defaults};

/// So many names as listings tell them take the memory of a whole inode.
const WHOLE_WEIGHT: usize = 3;

/// A file as a listing tells it.
struct Listed {
    parent: Ino,
    name: Arc<str>,
    md5: [u8; 16],
    size_bytes: u64,
    /// Seconds since 1970.
    modified: u64,
    /// Nanoseconds since the table was made, when the store last confirmed it; 0 if it is to be asked again.
    checked_ns: u64,
    lookups: u32,
    /// The number of parts behind the MD5 in the entity tag; 0 if there is none.
    parts: u32,
}

/// All inodes.
pub(super) struct Inodes {
    /// Boxed, since a table is half empty when it has grown.
    whole: HashMap<Ino, Box<Inode>>,
    listed: HashMap<Ino, Box<Listed>>,
    defaults: Defaults,
    began: Instant,
}

/// An inode to look at.
pub(super) enum Look<'a> {
    Whole(&'a Inode),
    Listed(Box<Inode>),
}

impl Deref for Look<'_> {
    type Target = Inode;

    fn deref(&self) -> &Inode {
        match self {
            Look::Whole(inode) => inode,
            Look::Listed(inode) => inode,
        }
    }
}

impl Inodes {
    pub(super) fn new(defaults: Defaults) -> Self {
        Inodes { whole: HashMap::new(), listed: HashMap::new(), defaults, began: Instant::now() }
    }

    pub(super) fn get(&self, ino: &Ino) -> Option<Look<'_>> {
        let whole = self.whole.get(ino).map(|inode| Look::Whole(inode));
        whole.or_else(|| self.listed.get(ino).map(|listed| Look::Listed(Box::new(self.inflate(listed)))))
    }

    /// An inode that is kept whole, as all directories are.
    pub(super) fn whole(&self, ino: Ino) -> Option<&Inode> {
        self.whole.get(&ino).map(|inode| &**inode)
    }

    /// The same to be changed.
    pub(super) fn whole_mut(&mut self, ino: Ino) -> Option<&mut Inode> {
        self.whole.get_mut(&ino).map(|inode| &mut **inode)
    }

    /// An inode to be changed, which is kept whole from now on.
    pub(super) fn get_mut(&mut self, ino: &Ino) -> Option<&mut Inode> {
        if let Some(listed) = self.listed.remove(ino) {
            let inode = self.inflate(&listed);
            self.whole.insert(*ino, Box::new(inode));
        }
        self.whole_mut(*ino)
    }

    pub(super) fn insert(&mut self, ino: Ino, inode: Inode) {
        match self.deflate(&inode) {
            Some(listed) => _ = self.listed.insert(ino, Box::new(listed)),
            None => _ = self.whole.insert(ino, Box::new(inode)),
        }
    }

    /// Keeps an inode in few bytes if it has become one that can be.
    pub(super) fn settle(&mut self, ino: Ino) {
        if let Some(listed) = self.whole.get(&ino).and_then(|inode| self.deflate(inode)) {
            self.whole.remove(&ino);
            self.listed.insert(ino, Box::new(listed));
        }
    }

    pub(super) fn remove(&mut self, ino: Ino) -> Option<Inode> {
        match self.listed.remove(&ino) {
            Some(listed) => Some(self.inflate(&listed)),
            None => self.whole.remove(&ino).map(|inode| *inode),
        }
    }

    pub(super) fn contains(&self, ino: Ino) -> bool {
        self.whole.contains_key(&ino) || self.listed.contains_key(&ino)
    }

    pub(super) fn len(&self) -> usize {
        self.whole.len() + self.listed.len()
    }

    /// The memory that they take, in names as listings tell them.
    pub(super) fn weight(&self) -> usize {
        self.whole.len() * WHOLE_WEIGHT + self.listed.len()
    }

    /// Those that are kept whole.
    pub(super) fn all_whole(&self) -> impl Iterator<Item = &Inode> {
        self.whole.values().map(|inode| &**inode)
    }

    /// Attributes, and when the store last confirmed them, of a file that is as a listing told it.
    pub(super) fn listed_attr(&self, ino: Ino) -> Option<(Ino, Attr, Option<Instant>)> {
        let listed = self.listed.get(&ino)?;
        Some((listed.parent, file_attr(&self.defaults, listed.size_bytes, listed.modified()), self.checked(listed)))
    }

    /// When the store last confirmed an inode.
    pub(super) fn checked_at(&self, ino: Ino) -> Option<Instant> {
        let whole = || self.whole(ino).and_then(|inode| inode.checked);
        self.listed.get(&ino).map_or_else(whole, |listed| self.checked(listed))
    }

    /// The store confirms a file, or is to be asked again; answers its directory and name if it is as a listing told it.
    pub(super) fn check(&mut self, ino: Ino, at: Option<Instant>) -> Option<(Ino, Arc<str>)> {
        let checked_ns = self.since_began(at);
        let listed = self.listed.get_mut(&ino)?;
        listed.checked_ns = checked_ns;
        Some((listed.parent, listed.name.clone()))
    }

    /// The store has listed a file: answers whether it is as it was told before.
    pub(super) fn confirm(&mut self, ino: Ino, object: &Object, now: Instant) -> bool {
        let same = self.listed.get(&ino).is_some_and(|listed| {
            Some((listed.md5, listed.parts)) == read_md5(&object.etag)
                && listed.size_bytes == object.size_bytes
                && object.modified == Some(listed.modified())
                && object.storage_class.is_none()
        });
        same && self.check(ino, Some(now)).is_some()
    }

    /// Counts a lookup.
    pub(super) fn remember(&mut self, ino: Ino) {
        match self.listed.get_mut(&ino).filter(|listed| listed.lookups < u32::MAX) {
            Some(listed) => listed.lookups += 1,
            None => self.get_mut(&ino).into_iter().for_each(|inode| inode.lookups += 1),
        }
    }

    /// The kernel has forgotten lookups.
    pub(super) fn forget(&mut self, ino: Ino, lookups: u64) {
        match self.listed.get_mut(&ino) {
            Some(listed) => listed.lookups = u64::from(listed.lookups).saturating_sub(lookups) as u32,
            None => {
                self.whole_mut(ino).into_iter().for_each(|inode| inode.lookups = inode.lookups.saturating_sub(lookups))
            }
        }
    }

    fn since_began(&self, at: Option<Instant>) -> u64 {
        at.map_or(0, |at| (at.saturating_duration_since(self.began).as_nanos() as u64).max(1))
    }

    fn checked(&self, listed: &Listed) -> Option<Instant> {
        (listed.checked_ns > 0).then(|| self.began + Duration::from_nanos(listed.checked_ns))
    }

    fn inflate(&self, listed: &Listed) -> Inode {
        let etag = match listed.parts {
            0 => hex::encode(listed.md5),
            parts => format!("{}-{parts}", hex::encode(listed.md5)),
        };
        let object = Object {
            etag: ETag::new(&etag),
            size_bytes: listed.size_bytes,
            modified: Some(listed.modified()),
            version_id: None,
            storage_class: None,
            headers: None,
        };
        let attr = file_attr(&self.defaults, listed.size_bytes, listed.modified());
        let mut inode = Inode::new(listed.parent, listed.name.clone(), attr, Some(object), self.checked(listed));
        inode.lookups = listed.lookups.into();
        inode
    }

    /// The few bytes that an inode can be kept in, if it is as a listing tells it and nobody has it open.
    fn deflate(&self, inode: &Inode) -> Option<Listed> {
        let object = inode.object.as_ref()?;
        let plain = inode.attr.kind == FileKind::File
            && inode.is_as_listed()
            && object.headers.is_none()
            && object.version_id.is_none()
            && object.storage_class.is_none();
        let (md5, parts) = read_md5(&object.etag).filter(|_| plain)?;
        let modified = object.modified?.duration_since(UNIX_EPOCH).ok().filter(|since| since.subsec_nanos() == 0)?;
        let listed = Listed {
            parent: inode.parent,
            name: inode.name.clone(),
            md5,
            size_bytes: object.size_bytes,
            modified: modified.as_secs(),
            checked_ns: self.since_began(inode.checked),
            lookups: inode.lookups.try_into().ok()?,
            parts,
        };
        (inode.attr == file_attr(&self.defaults, listed.size_bytes, listed.modified())).then_some(listed)
    }
}

impl Listed {
    fn modified(&self) -> SystemTime {
        UNIX_EPOCH + Duration::from_secs(self.modified)
    }
}

/// The MD5 in an entity tag, and the number of parts behind it, if it is spelled as nearly all are.
fn read_md5(etag: &ETag) -> Option<([u8; 16], u32)> {
    let (digits, parts) = match etag.as_str().split_once('-') {
        Some((digits, parts)) => {
            (digits, parts.parse().ok().filter(|count: &u32| *count > 0 && count.to_string() == parts)?)
        }
        None => (etag.as_str(), 0),
    };
    let mut md5 = [0; 16];
    hex::decode_to_slice(digits, &mut md5).ok().filter(|()| !digits.bytes().any(|byte| byte.is_ascii_uppercase()))?;
    Some((md5, parts))
}
