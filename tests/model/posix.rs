//! What a POSIX user expects of a file system, as simply as it can be said: names, nodes, no caches.

use std::collections::BTreeMap;
use std::time::SystemTime;

use dreamfs::error::Meaning;
use dreamfs::tree::FileKind;

use crate::stand::{CALLER, DIR_MODE, FILE_MODE, split};

/// The number of a node; it stays with the node over renames and unlinks.
pub type Id = usize;

/// A file, directory or symbolic link.
#[derive(Clone, Debug)]
pub struct Node {
    pub kind: FileKind,
    /// Content, or a link's target.
    pub bytes: Vec<u8>,
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// `None` once it is unknown: see [`Posix::rename`].
    pub mtime: Option<SystemTime>,
    /// Whether another tool stored it, so that its time is that of its object.
    pub foreign: bool,
    pub xattrs: BTreeMap<String, Vec<u8>>,
    /// Whether it has what the store need not have yet.
    pub dirty: bool,
    /// Whether some of that was written, so that the next flush stores it.
    pub written: bool,
    /// Whether another client replaced or removed it while it was open.
    pub lost: bool,
}

/// The whole tree. The root has no node: it is always there.
#[derive(Default)]
pub struct Posix {
    names: BTreeMap<String, Id>,
    nodes: Vec<Node>,
}

type Result<T> = std::result::Result<T, Meaning>;

impl Posix {
    pub fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    pub fn node_mut(&mut self, id: Id) -> &mut Node {
        &mut self.nodes[id]
    }

    /// Every path with its node.
    pub fn all(&self) -> impl Iterator<Item = (&str, &Node)> {
        self.names.iter().map(|(path, id)| (path.as_str(), &self.nodes[*id]))
    }

    /// The node of a path, if all that leads there is a directory.
    pub fn find(&self, path: &str) -> Result<Id> {
        self.enter(split(path).0)?;
        self.names.get(path).copied().ok_or(Meaning::NotFound)
    }

    /// The first path that leads to a node.
    pub fn path_of(&self, id: Id) -> Option<&str> {
        self.names.iter().find(|(_, named)| **named == id).map(|(path, _)| path.as_str())
    }

    /// Goes into a directory, name by name.
    fn enter(&self, directory: &str) -> Result<()> {
        if directory.is_empty() {
            return Ok(());
        }
        let id = self.find(directory)?;
        if self.nodes[id].kind == FileKind::Directory { Ok(()) } else { Err(Meaning::NotDirectory) }
    }

    /// Names in a directory.
    pub fn children(&self, directory: &str) -> Vec<&str> {
        let below = self.names.keys().filter_map(|path| path.strip_prefix(directory)?.strip_prefix('/'));
        below.filter(|name| !name.contains('/')).collect()
    }

    fn has_children(&self, directory: &str) -> bool {
        !self.children(directory).is_empty()
    }

    fn add(&mut self, path: &str, kind: FileKind, mode: u32, now: SystemTime) -> Id {
        let (uid, gid) = (CALLER.uid, CALLER.gid);
        let (dirty, written, lost) = (kind == FileKind::File, false, false);
        let (bytes, xattrs, foreign) = (Vec::new(), BTreeMap::new(), false);
        self.nodes.push(Node { kind, bytes, mode, uid, gid, mtime: Some(now), foreign, xattrs, dirty, written, lost });
        self.names.insert(path.to_owned(), self.nodes.len() - 1);
        self.nodes.len() - 1
    }

    fn add_new(&mut self, path: &str, kind: FileKind, mode: u32, now: SystemTime) -> Result<Id> {
        self.enter(split(path).0)?;
        if self.names.contains_key(path) { Err(Meaning::Exists) } else { Ok(self.add(path, kind, mode, now)) }
    }

    /// open(2) with O_CREAT; directories and links are in the way.
    pub fn create(&mut self, path: &str, mode: u32, exclusive: bool, now: SystemTime) -> Result<Id> {
        match self.find(path) {
            Ok(_) if exclusive => Err(Meaning::Exists),
            Ok(id) if self.nodes[id].kind == FileKind::Directory => Err(Meaning::IsDirectory),
            Ok(id) => Ok(id),
            Err(_) => self.add_new(path, FileKind::File, mode, now),
        }
    }

    pub fn mkdir(&mut self, path: &str, mode: u32, now: SystemTime) -> Result<()> {
        self.add_new(path, FileKind::Directory, mode, now).map(drop)
    }

    pub fn symlink(&mut self, path: &str, target: &str, now: SystemTime) -> Result<()> {
        let id = self.add_new(path, FileKind::Symlink, 0o777, now)?;
        self.nodes[id].bytes = target.as_bytes().to_vec();
        Ok(())
    }

    /// O_TRUNC of an open: the times change, also of a file that is empty already.
    pub fn empty(&mut self, id: Id, now: SystemTime) {
        let node = &mut self.nodes[id];
        node.bytes.clear();
        node.dirty = true;
        changed(node, now);
    }

    pub fn write(&mut self, id: Id, offset: usize, bytes: &[u8], now: SystemTime) {
        let node = &mut self.nodes[id];
        let end = offset + bytes.len();
        if node.bytes.len() < end {
            node.bytes.resize(end, 0);
        }
        node.bytes[offset..end].copy_from_slice(bytes);
        (node.dirty, node.written) = (true, true);
        changed(node, now);
    }

    pub fn truncate(&mut self, id: Id, size: usize, now: SystemTime) {
        let node = &mut self.nodes[id];
        if node.bytes.len() != size {
            node.bytes.resize(size, 0);
            (node.dirty, node.written) = (true, true);
            changed(node, now);
        }
    }

    /// Its content and attributes are in the store now.
    pub fn stored(&mut self, id: Id) {
        let node = &mut self.nodes[id];
        node.foreign &= !node.dirty;
        (node.dirty, node.written) = (false, false);
    }

    pub fn unlink(&mut self, path: &str) -> Result<()> {
        let id = self.find(path)?;
        if self.nodes[id].kind == FileKind::Directory {
            return Err(Meaning::IsDirectory);
        }
        self.names.remove(path);
        Ok(())
    }

    pub fn rmdir(&mut self, path: &str) -> Result<()> {
        let id = self.find(path)?;
        if self.nodes[id].kind != FileKind::Directory {
            return Err(Meaning::NotDirectory);
        }
        if self.has_children(path) {
            return Err(Meaning::NotEmpty);
        }
        self.names.remove(path);
        Ok(())
    }

    /// An object of another tool has no time but that of its storing, and a move stores it anew: to keep the old time
    /// would cost a HEAD for every object of a directory, and the marker that makes it visible.
    pub fn rename(&mut self, from: &str, to: &str, no_replace: bool) -> Result<()> {
        self.enter(split(from).0)?;
        self.enter(split(to).0)?;
        let source = self.find(from)?;
        let target = self.find(to).ok();
        if target == Some(source) {
            return Ok(());
        }
        if no_replace && target.is_some() {
            return Err(Meaning::Exists);
        }
        let is_directory = |id: Id| self.nodes[id].kind == FileKind::Directory;
        match (is_directory(source), target.map(is_directory)) {
            (true, Some(false)) => return Err(Meaning::NotDirectory),
            (false, Some(true)) => return Err(Meaning::IsDirectory),
            (true, _) if to.starts_with(&format!("{from}/")) => return Err(Meaning::InvalidArgument),
            (true, Some(true)) if self.has_children(to) => return Err(Meaning::NotEmpty),
            _ => {}
        }
        let below = format!("{from}/");
        let moved: Vec<String> =
            self.names.keys().filter(|path| *path == from || path.starts_with(&below)).cloned().collect();
        for path in moved {
            if let Some(id) = self.names.remove(&path) {
                if self.nodes[id].foreign {
                    self.nodes[id].mtime = None;
                }
                self.names.insert(format!("{to}{}", &path[from.len()..]), id);
            }
        }
        Ok(())
    }

    /// Whether another tool can put an object here such that a path names it, and nobody's unsaved bytes lie there.
    pub fn is_free_for_others(&self, path: &str) -> bool {
        let above_is_free = matches!(self.enter(split(path).0), Ok(()) | Err(Meaning::NotFound));
        let has_unsaved = |id: Id| self.nodes[id].dirty || self.nodes[id].kind == FileKind::Directory;
        above_is_free && !self.names.get(path).is_some_and(|id| has_unsaved(*id))
    }

    /// Another tool stores an object: a plain file, in directories that come to be by its key alone.
    pub fn foreign_put(&mut self, path: &str, bytes: &[u8], modified: SystemTime, dir_time: SystemTime) {
        for (at, _) in path.match_indices('/') {
            if !self.names.contains_key(&path[..at]) {
                self.add(&path[..at], FileKind::Directory, DIR_MODE, dir_time);
            }
        }
        self.lose(path);
        let id = self.add(path, FileKind::File, FILE_MODE, modified);
        self.nodes[id].bytes = bytes.to_vec();
        self.stored(id);
        self.nodes[id].foreign = true;
    }

    /// Another tool deletes an object.
    pub fn foreign_delete(&mut self, path: &str) {
        self.lose(path);
    }

    fn lose(&mut self, path: &str) {
        if let Some(id) = self.names.remove(path) {
            self.nodes[id].lost = true;
        }
    }

    /// A directory that was nothing but the keys below it has gone with the last of them.
    pub fn vanish(&mut self, directory: &str) {
        self.names.remove(directory);
    }
}

/// What every change of content by an ordinary user does besides.
fn changed(node: &mut Node, now: SystemTime) {
    node.mtime = Some(now);
    node.mode &= !0o6000;
}
