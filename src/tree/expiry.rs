//! Forgetting: what is asked for anew after a refresh, and which names go first when there are too many.

use std::sync::Arc;

use super::inode::{AclState, Ino};
use super::table::Table;

impl Table {
    pub(super) fn expire(&mut self, ino: Ino) -> Vec<(Ino, Ino, Arc<str>)> {
        let mut expired = Vec::new();
        let mut next = vec![ino];
        while let Some(ino) = next.pop() {
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            inode.checked = None;
            if !inode.local {
                inode.asked = false;
                inode.set_acl(AclState::Unknown);
                inode.object.iter_mut().for_each(|object| object.headers = None);
            }
            if let Some(directory) = &mut inode.directory {
                directory.listed = None;
                directory.spans.clear();
                directory.posix = None;
                next.extend(directory.names.values());
            }
            expired.push((ino, inode.parent, inode.name.clone()));
        }
        expired
    }

    pub(super) fn hold(&mut self, ino: Ino) {
        if let Some(directory) = self.directory_mut(ino) {
            directory.held += 1;
        }
    }

    pub(super) fn let_go(&mut self, ino: Ino) {
        if let Some(directory) = self.directory_mut(ino) {
            directory.held = directory.held.saturating_sub(1);
        }
    }

    /// Forgets names of the directories that were not used for longest, where nobody needs them, until there is room.
    pub(super) fn shrink(&mut self) {
        if self.inodes.len() <= self.names_max {
            return;
        }
        for _ in 0..self.recent.len() {
            if self.inodes.len() <= self.names_max - self.names_max / 8 {
                break;
            }
            let Some((ino, ())) = self.recent.pop_lru() else { break };
            self.forget_names(ino);
            if self.directory(ino).is_some_and(|directory| !directory.names.is_empty()) {
                self.recent.put(ino, ());
            }
        }
    }

    fn forget_names(&mut self, ino: Ino) {
        let Some(directory) = self.directory_mut(ino).filter(|directory| directory.held == 0) else { return };
        directory.complete = false;
        directory.listed = None;
        directory.spans.clear();
        let names: Vec<(Arc<str>, Ino)> = directory.names.iter().map(|(name, ino)| (name.clone(), *ino)).collect();
        for (name, child) in names {
            let idle = self.inodes.get(&child).is_some_and(|inode| {
                let empty = inode.directory.as_ref().is_none_or(|directory| directory.names.is_empty());
                inode.lookups == 0 && inode.pins == 0 && !inode.local && empty
            });
            if idle {
                self.detach(ino, &name);
            }
        }
    }
}
