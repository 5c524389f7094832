//! The order in which programs come to the files of a tree: each directory's names in the order in which it is listed,
//! or, as `cp -r` does it, by inode number; what is below a directory in that directory's place.

use std::ops::Bound;

use super::inode::{FileKind, Ino, ROOT};
use super::table::Table;

/// Inodes that one search looks at, at most.
const VISITS_MAX: usize = 1000;

/// Names of a directory that is looked through by number, at most.
const BY_NUMBER_MAX: usize = 2000;

/// Names behind one among which the next by number is looked for in larger ones.
const NEAR: usize = 32;

/// How the names of a directory follow each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// As they are listed.
    Name,
    /// By inode number.
    Number,
}

impl Table {
    /// Up to so many files that follow one, as far as all names on the way are known.
    pub(super) fn files_after(&self, ino: Ino, order: Order, count: usize) -> Vec<Ino> {
        let mut files = Vec::new();
        let (mut at, mut entering) = (ino, false);
        for _ in 0..VISITS_MAX {
            let next = if entering { self.first_in(at, order) } else { self.next_to(at, order) };
            match next.and_then(|next| Some((next, self.inodes.get(&next)?))) {
                Some((next, inode)) => {
                    (at, entering) = (next, inode.attr.kind == FileKind::Directory);
                    if entering && !inode.directory.as_ref().is_some_and(|directory| directory.complete) {
                        break;
                    }
                    if inode.attr.kind == FileKind::File {
                        files.push(next);
                    }
                }
                None if entering => entering = false,
                None => match self.inodes.get(&at) {
                    Some(inode) if at != ROOT && inode.parent != ROOT => at = inode.parent,
                    _ => break,
                },
            }
            if files.len() == count {
                break;
            }
        }
        files
    }

    pub(super) fn is_first_directory(&self, directory: Ino) -> bool {
        let names = || Some(&self.directory(self.inodes.get(&directory)?.parent)?.names);
        let is_directory = |ino: &Ino| self.inodes.get(ino).is_some_and(|inode| inode.attr.kind == FileKind::Directory);
        let first = names().and_then(|names| names.values().take(VISITS_MAX).copied().find(is_directory));
        first == Some(directory)
    }

    fn first_in(&self, directory: Ino, order: Order) -> Option<Ino> {
        let names = &self.directory(directory)?.names;
        match order {
            Order::Name => names.values().next().copied(),
            Order::Number => names.values().min().copied().filter(|_| names.len() <= BY_NUMBER_MAX),
        }
    }

    fn next_to(&self, ino: Ino, order: Order) -> Option<Ino> {
        let inode = self.inodes.get(&ino).filter(|inode| !inode.detached)?;
        let names = &self.directory(inode.parent)?.names;
        let behind = (Bound::Excluded(&*inode.name), Bound::Unbounded);
        match order {
            Order::Name => names.range::<str, _>(behind).next().map(|(_, next)| *next),
            // Numbers follow the names, nearly.
            Order::Number if names.len() > BY_NUMBER_MAX => {
                names.range::<str, _>(behind).take(NEAR).map(|(_, next)| *next).filter(|next| *next > ino).min()
            }
            Order::Number => names.values().filter(|next| **next > ino).min().copied(),
        }
    }
}
