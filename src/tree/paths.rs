//! Where an inode lies: in the store, and below other inodes.

use crate::store::{BucketName, Location};

use super::Place;
use super::inode::{FileKind, Ino, ROOT};
use super::table::Table;

impl Table {
    pub(super) fn place(&self, ino: Ino) -> Option<Place> {
        if ino == ROOT {
            return Some(self.root.clone());
        }
        let inode = self.inodes.get(&ino).filter(|inode| !inode.detached)?;
        let is_directory = inode.attr.kind == FileKind::Directory;
        match self.place(inode.parent)? {
            Place::Account => {
                Some(Place::Directory { bucket: BucketName::new(&inode.name).ok()?, prefix: Default::default() })
            }
            Place::Directory { bucket, prefix } if is_directory => {
                Some(Place::Directory { bucket, prefix: prefix.directory(&inode.name).ok()? })
            }
            Place::Directory { bucket, prefix } => {
                Some(Place::File(Location { bucket, key: prefix.file(&inode.name).ok()? }))
            }
            Place::File(_) => None,
        }
    }

    pub(super) fn path(&self, ino: Ino) -> String {
        let mut names = Vec::new();
        let mut at = ino;
        while let Some(inode) = self.inodes.get(&at).filter(|_| at != ROOT) {
            names.push(inode.name.clone());
            at = inode.parent;
        }
        names.reverse();
        if names.is_empty() { ".".to_owned() } else { names.join("/") }
    }

    pub(super) fn is_below(&self, ino: Ino, directory: Ino) -> bool {
        let mut at = ino;
        while at != directory {
            match self.inodes.get(&at) {
                Some(inode) if at != ROOT && !inode.detached => at = inode.parent,
                _ => return false,
            }
        }
        true
    }

    pub(super) fn resolve(&self, directory: Ino, path: &str) -> Option<Ino> {
        path.trim_end_matches('/').split('/').try_fold(directory, |at, name| self.child(at, name))
    }
}
