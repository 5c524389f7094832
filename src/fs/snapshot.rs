//! The names of a directory as an open handle sees them: in the order in which they were told, each at an offset that
//! stays, whatever happens to the directory meanwhile. Of a large directory the first can be read while the next come.

use std::sync::{Arc, Mutex};

use tokio::sync::watch;

use crate::error::{Error, Meaning, Result};
use crate::tree::{Entry, FileKind, Ino};

/// A name as it was told.
#[derive(Clone, Debug)]
pub struct Told {
    /// The name.
    pub name: Arc<str>,
    /// Its inode.
    pub ino: Ino,
    /// What sort of file.
    pub kind: FileKind,
}

/// How far a listing has come.
#[derive(Clone, Debug)]
enum Progress {
    Coming(usize),
    Ended,
    Failed(Meaning, String),
}

/// The names of an open directory.
#[derive(Debug)]
pub struct Snapshot {
    names: Arc<Mutex<Vec<Told>>>,
    progress: watch::Receiver<Progress>,
}

/// The other end of a [`Snapshot`]: where names come in.
pub(super) struct Growing {
    names: Arc<Mutex<Vec<Told>>>,
    progress: watch::Sender<Progress>,
}

fn told((name, entry): (Arc<str>, Entry)) -> Told {
    Told { name, ino: entry.ino, kind: entry.attr.kind }
}

impl Snapshot {
    /// A snapshot that is whole.
    pub(super) fn whole(children: Vec<(Arc<str>, Entry)>) -> Self {
        let (snapshot, growing) = Snapshot::growing();
        growing.add(children);
        growing.end(Ok(()));
        snapshot
    }

    /// A snapshot whose names are to come.
    pub(super) fn growing() -> (Self, Growing) {
        let names = Arc::<Mutex<Vec<Told>>>::default();
        let (sender, progress) = watch::channel(Progress::Coming(0));
        (Snapshot { names: names.clone(), progress }, Growing { names, progress: sender })
    }

    /// Up to so many names from one on, as soon as there are any; none at the end.
    pub(super) async fn from(&self, first: usize, count: usize) -> Result<Vec<Told>> {
        let mut progress = self.progress.clone();
        let has_come = |progress: &Progress| !matches!(progress, Progress::Coming(known) if *known <= first);
        let state = progress.wait_for(has_come).await.map(|state| state.clone());
        let names = self.names.lock().expect("no panic under this lock");
        let told: Vec<Told> = names.iter().skip(first).take(count).cloned().collect();
        match state {
            _ if !told.is_empty() => Ok(told),
            Ok(Progress::Failed(meaning, words)) => Err(Error::new(meaning, words)),
            Ok(Progress::Coming(_) | Progress::Ended) => Ok(told),
            Err(_) => Err(Error::new(Meaning::Io, "the listing was given up")),
        }
    }
}

impl Growing {
    /// Adds names.
    pub(super) fn add(&self, children: Vec<(Arc<str>, Entry)>) {
        let mut names = self.names.lock().expect("no panic under this lock");
        names.extend(children.into_iter().map(told));
        let count = names.len();
        drop(names);
        self.progress.send_replace(Progress::Coming(count));
    }

    /// Adds those that are not here yet.
    pub(super) fn add_missing(&self, mut children: Vec<(Arc<str>, Entry)>) {
        let names = self.names.lock().expect("no panic under this lock");
        let known: std::collections::HashSet<&str> = names.iter().map(|told| &*told.name).collect();
        children.retain(|(name, _)| !known.contains(&**name));
        drop(known);
        drop(names);
        self.add(children);
    }

    /// All have come, or no more will.
    pub(super) fn end(&self, result: Result<()>) {
        self.progress.send_replace(match result {
            Ok(()) => Progress::Ended,
            Err(error) => Progress::Failed(error.meaning(), error.to_string()),
        });
    }

    /// Whether nobody reads them any more.
    pub(super) fn is_closed(&self) -> bool {
        self.progress.is_closed()
    }
}
