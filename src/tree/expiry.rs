//! Forgetting: what is asked for anew after a refresh, and which names go first when there are too many.

use std::sync::Arc;
use std::time::Instant;

use super::inode::{AclState, Ino};
use super::table::Table;

/// Names that the kernel is asked to forget at once.
const UNWANTED_MAX: usize = 10_000;

impl Table {
    pub(super) fn expire(&mut self, ino: Ino) -> Vec<(Ino, Ino, Arc<str>)> {
        self.refreshed = Some(Instant::now());
        let mut expired = Vec::new();
        let mut next = vec![ino];
        while let Some(ino) = next.pop() {
            if let Some((parent, name)) = self.inodes.check(ino, None) {
                expired.push((ino, parent, name));
                continue;
            }
            let Some(inode) = self.inodes.get_mut(&ino) else { continue };
            inode.checked = None;
            if !inode.local {
                (inode.asked, inode.remembered) = (false, false);
                inode.set_acl(AclState::Unknown);
                inode.object.iter_mut().for_each(|object| object.headers = None);
            }
            if let Some(directory) = &mut inode.directory {
                directory.listed = None;
                directory.losses += 1;
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

    /// Forgets names of the directories that were not used for longest, where nobody needs them, until there is room;
    /// gathers those that only the kernel still knows.
    pub(super) fn shrink(&mut self) {
        if self.inodes.weight() <= self.shrink_above {
            return;
        }
        self.unwanted.clear();
        for _ in 0..self.recent.len() {
            let staying = self.inodes.weight() - self.unwanted.len().min(self.inodes.weight());
            if staying <= self.names_max - self.names_max / 8 {
                break;
            }
            let Some((ino, ())) = self.recent.pop_lru() else { break };
            self.forget_names(ino);
            if self.directory(ino).is_some_and(|directory| !directory.names.is_empty()) {
                self.recent.put(ino, ());
            }
        }
        // Where little could go at once, it is tried again when there are more.
        self.shrink_above = self.names_max.max(self.inodes.weight() + self.names_max / 16);
    }

    fn forget_names(&mut self, ino: Ino) {
        let Some(directory) = self.directory_mut(ino).filter(|directory| directory.held == 0) else { return };
        directory.forget_listing();
        let names: Vec<(Arc<str>, Ino)> = directory.names.iter().map(|(name, ino)| (name.clone(), *ino)).collect();
        for (name, child) in names {
            if self.is_idle(child) {
                self.detach(ino, &name);
            } else if self.unwanted.len() < UNWANTED_MAX && self.is_known_to_the_kernel_alone(child) {
                self.unwanted.push((ino, name));
            }
        }
    }

    /// Whether nobody would miss it, with the store to ask.
    fn is_idle(&self, ino: Ino) -> bool {
        self.inodes.get(&ino).is_some_and(|inode| {
            let empty = inode.directory.as_ref().is_none_or(|directory| directory.names.is_empty());
            inode.lookups == 0 && inode.pins == 0 && !inode.local && empty
        })
    }

    /// Whether it is a file that would be idle if the kernel forgot it. A directory may be somebody's working directory.
    fn is_known_to_the_kernel_alone(&self, ino: Ino) -> bool {
        let inode = self.inodes.get(&ino);
        inode.is_some_and(|inode| inode.directory.is_none() && inode.pins == 0 && !inode.local)
    }

    /// The kernel has forgotten an inode: where there are too many names, it goes at once.
    pub(super) fn forget_idle(&mut self, ino: Ino) {
        let Some((parent, name)) = self.inodes.get(&ino).map(|inode| inode.parent_and_name()) else { return };
        let too_many = self.inodes.weight() > self.names_max && self.child(parent, &name) == Some(ino);
        let goes = too_many && self.is_idle(ino);
        if let Some(directory) = self.directory_mut(parent).filter(|directory| goes && directory.held == 0) {
            directory.forget_listing();
            self.detach(parent, &name);
        }
    }
}
