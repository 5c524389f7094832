//! Markers of directories: the objects that say that a directory is there, and what its attributes are.
//!
//! A marker is needed where no other key lies below the directory, or where the directory has attributes that nothing
//! else tells. It is stored a little later (`owed`), if it is needed then. A journal, which must not forget a directory,
//! has it at once, and gives it back when a name comes into the directory before it went up.
//!
//! A mount that makes none keeps such directories, and what was set on them, while it lives. Markers that are there
//! already it treats like any other.

use std::collections::HashSet;
use std::sync::{Mutex, MutexGuard};

use bytes::Bytes;

use crate::error::{Error, Meaning, Result};
use crate::store::Condition;
use crate::tree::{AclState, Attr, FileKind, Ino, Inode, Object, ROOT};

use super::{Attrs, Fs};

/// Markers in the journal that are remembered as ones that may be taken back.
const SPARE_MAX: usize = 100_000;

/// Directories whose marker is in the journal and says no more than that they are there.
#[derive(Default)]
pub(super) struct Spare(Mutex<HashSet<Ino>>);

impl Spare {
    fn lock(&self) -> MutexGuard<'_, HashSet<Ino>> {
        self.0.lock().expect("no panic under this lock")
    }
}

impl Fs {
    /// Stores the marker that a directory waits for, if it needs one.
    pub(super) async fn pay_marker(&self, ino: Ino) -> Result<()> {
        let _held = self.owed.hold_marker(ino).await;
        let Some(times) = self.owed.times(ino) else { return Ok(()) };
        match self.needs_marker(ino) {
            true => self.store_marker(ino).await,
            false => {
                self.is_stored(ino, times);
                Ok(())
            }
        }
    }

    /// Whether a directory would vanish without a marker, or lose what only a marker tells.
    pub(super) fn needs_marker(&self, ino: Ino) -> bool {
        if self.tree.place(ino).and_then(|place| place.location()).is_none() {
            return false;
        }
        let has_object = |ino: Ino| self.tree.read(ino, |inode| inode.object.is_some()) == Some(true);
        let tells = self.tree.read(ino, |inode| inode.times_set) == Some(true)
            || has_object(ino)
            || !self.is_plain(ino)
            || self.owed.is_demanded(ino);
        let is_there = |child: Ino| self.kind(child) == Some(FileKind::Directory) || has_object(child);
        tells || !self.tree.children(ino).iter().any(|(_, child)| is_there(child.ino))
    }

    /// Whether a directory has a marker or may get one.
    fn may_have_marker(&self, ino: Ino) -> bool {
        self.config.markers || self.tree.read(ino, |inode| inode.object.is_some()) == Some(true)
    }

    /// Whether mode and owner are those that the mount gives to what has none.
    pub(super) fn is_plain(&self, ino: Ino) -> bool {
        let defaults = self.config.defaults;
        let plain = self.tree.read(ino, |Inode { attr, .. }| {
            let mode = if attr.kind == FileKind::Directory { defaults.dir_mode } else { defaults.file_mode };
            attr.kind != FileKind::Symlink && (attr.mode, attr.uid, attr.gid) == (mode, defaults.uid, defaults.gid)
        });
        plain == Some(true)
    }

    fn is_stored(&self, ino: Ino, times: u64) {
        self.owes_no_longer(ino, times, || {
            self.tree.update(ino, |inode| inode.local = false);
        });
    }

    /// Has a directory stored soon, with these attributes if it is given new ones, if it needs a marker then; a `demanded`
    /// one is needed whatever lies in it.
    pub(super) async fn owe_marker(&self, ino: Ino, new: Option<&Attr>, demanded: bool) -> Result<()> {
        let set = || {
            if let Some(attr) = new {
                self.tree.update(ino, |inode| inode.attr = *attr);
            }
        };
        if !self.may_have_marker(ino) {
            set();
            self.tree.update(ino, |inode| inode.local = true);
            return Ok(());
        }
        if self.owe(ino, demanded, set) {
            return Ok(());
        }
        match new.copied().or_else(|| self.tree.read(ino, |inode| inode.attr)) {
            Some(attr) => self.put_marker(ino, &attr).await,
            None => Ok(()),
        }
    }

    /// Stores the marker of a directory with these attributes, keeping what else it has.
    pub(crate) async fn put_marker(&self, ino: Ino, attr: &Attr) -> Result<()> {
        if self.tree.place(ino).and_then(|place| place.location()).is_none() {
            return Ok(());
        }
        if !self.may_have_marker(ino) {
            let why = format!("{}: mounted with --markers never", self.path(ino));
            return Err(Error::new(Meaning::Unsupported, why));
        }
        let _held = self.owed.hold_marker(ino).await;
        let old = self.tree.update(ino, |inode| std::mem::replace(&mut inode.attr, *attr));
        let stored = self.store_marker(ino).await;
        if let (Err(_), Some(old)) = (&stored, old) {
            self.tree.update(ino, |inode| inode.attr = old);
        }
        stored
    }

    /// The same, with the marker held.
    async fn store_marker(&self, ino: Ino) -> Result<()> {
        let times = self.owed.times(ino);
        let known = self.tree.read(ino, |inode| (inode.object.is_none(), inode.attributes_known()));
        let (is_new, is_known) = known.unwrap_or((true, false));
        if is_new {
            let acl = self.created_acl(self.parent(ino)).await?;
            self.tree.update(ino, |inode| inode.set_acl(AclState::Sent(acl)));
        }
        let headers = self.headers_to_store(ino).await?;
        let _moving = self.moving.read().await;
        let Some(location) = self.place(ino)?.location() else { return Ok(()) };
        // A journal can take back what it knows to be new. The store need not know: one marker is as good as another.
        let condition = if is_new && is_known && self.has_journal() { Condition::IfAbsent } else { Condition::None };
        self.spare.lock().remove(&ino);
        let noted = self.note_finish(&location, self.known_acl(ino), &headers.tags).await?;
        let written = self.store.put(&location, Bytes::new(), &headers, &condition).await?;
        self.tree.update(ino, |inode| {
            inode.object = Some(Object {
                etag: written.etag,
                size_bytes: 0,
                modified: None,
                version_id: written.version_id,
                storage_class: headers.storage_class.clone(),
                headers: Some(headers.seen().into()),
            });
        });
        if self.config.attrs == Attrs::Auto {
            self.tree.set_posix(ino, true);
        }
        self.owed.note_writable(&location.bucket);
        if let Some(times) = times {
            self.is_stored(ino, times);
        }
        self.finish(noted).await
    }

    /// A directory was made here: it gets a marker, if it needs one.
    pub(super) async fn make_marker(&self, ino: Ino, attr: &Attr) -> Result<()> {
        let is_plain = self.is_plain(ino);
        self.owe_marker(ino, Some(attr), false).await?;
        match self.config.attrs {
            Attrs::List => self.tree.set_posix(ino, false),
            Attrs::Full => self.tree.set_posix(ino, true),
            Attrs::Auto if !self.config.markers => self.tree.set_posix(ino, false),
            Attrs::Auto if self.has_journal() => {
                if is_plain {
                    self.spare_marker(ino);
                }
            }
            Attrs::Auto => self.tree.set_posix(ino, !is_plain || self.owed.times(ino).is_none()),
        }
        Ok(())
    }

    /// Without names and without a marker a directory would vanish: it gets a marker when its last name leaves it.
    /// Called before, so that no listing ever misses it where the marker is stored at once; and after, if several left
    /// at the same time.
    pub(crate) async fn keep_directory(&self, directory: Ino, leaving: Option<&str>) {
        let needs_marker = self.tree.read(directory, |inode| inode.object.is_none()) == Some(true)
            && self.tree.children(directory).iter().all(|(name, _)| Some(&**name) == leaving)
            && self.tree.place(directory).and_then(|place| place.location()).is_some();
        if !needs_marker {
            return;
        }
        if let Err(error) = self.owe_marker(directory, None, false).await {
            log::warn!("{}: its last name leaves, and its marker could not be stored: {error}", self.path(directory));
        }
    }

    /// Notes that a marker in the journal says no more than that the directory is there.
    fn spare_marker(&self, ino: Ino) {
        self.tree.set_posix(ino, false);
        let mut spare = self.spare.lock();
        if spare.len() < SPARE_MAX {
            spare.insert(ino);
        }
    }

    /// A file is stored, or in the journal: the directories that it is in may do without markers.
    pub(super) async fn release_markers(&self, child: Ino) {
        let above = |ino: &Ino| self.tree.read(*ino, |inode| inode.parent_and_name().0);
        let above = std::iter::successors(above(&child), above).take_while(|ino| *ino != ROOT);
        if !self.config.markers {
            for directory in above.clone() {
                self.tree.update(directory, |inode| inode.local = false);
            }
        }
        let Some(journal) = self.journal.as_ref().filter(|journal| journal.accepts()) else { return };
        let mut spare: Vec<Ino> = above.collect();
        spare.retain(|ino| self.spare.lock().contains(ino));
        for directory in spare {
            let _held = self.owed.hold_marker(directory).await;
            let Some(location) = self.tree.place(directory).and_then(|place| place.location()) else { continue };
            if !self.spare.lock().remove(&directory) {
                continue;
            }
            match journal.withdraw(&location).await {
                true => drop(self.tree.update(directory, |inode| inode.object = None)),
                false if self.config.attrs == Attrs::Auto => self.tree.set_posix(directory, true),
                false => {}
            }
        }
    }
}
