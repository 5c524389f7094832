//! Does one thing to many files, several at once, and tells what came of each in the order of the walk.
//!
//! It refuses to follow links that are met on the way: those that are named are followed. A failure ends nothing.

use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use futures_util::{StreamExt, stream};
use indicatif::{ProgressBar, ProgressStyle};
use tokio::sync::mpsc;
use tokio::task::spawn_blocking;
use walkdir::WalkDir;

use super::complain;

/// Files worked on at once: as many requests as a mount sends without further flags.
const AT_ONCE: usize = 64;

/// Files under way and files whose results wait for their turn: one that takes long does not hold up the others at once.
const AHEAD: usize = 4 * AT_ONCE;

/// Names that the walk may be ahead, so that the bar knows how many there are; some hundred bytes each.
const NAMES_AHEAD: usize = 100_000;

/// A file of the walk.
#[derive(Clone, Debug)]
pub struct Found {
    /// Its path.
    pub path: PathBuf,
    /// Whether it is a directory that a walk came to.
    pub is_walked: bool,
}

/// A bar on standard error, hidden where that is no terminal. Its length follows the walk.
pub fn bar() -> ProgressBar {
    let style = ProgressStyle::with_template("{bar:30} {human_pos} of {human_len}{msg}, {eta} left");
    let bar = ProgressBar::new(0).with_style(style.expect("a template of ours"));
    bar.enable_steady_tick(Duration::from_millis(200));
    bar
}

/// Does `work` to every path, and below directories where asked; `then` hears of each in turn, and ends it all by
/// answering false.
pub fn for_each<T: Send + 'static>(
    paths: Vec<PathBuf>,
    recursive: bool,
    bar: &ProgressBar,
    work: impl Fn(&Path) -> io::Result<T> + Clone + Send + 'static,
    mut then: impl FnMut(&Found, io::Result<T>) -> bool,
) -> Result<(), ExitCode> {
    let runtime = tokio::runtime::Builder::new_current_thread().max_blocking_threads(AT_ONCE).build();
    let runtime = runtime.map_err(|error| complain(&format!("no runtime: {error}. Try again")))?;
    let (names, mut walked) = mpsc::channel(NAMES_AHEAD);
    let counter = bar.clone();
    // It ends by itself once nobody takes its names any more.
    std::thread::spawn(move || {
        counter.set_message(" found");
        for entry in paths.iter().flat_map(|path| walk(path, recursive)) {
            counter.inc_length(1);
            if names.blocking_send(entry).is_err() {
                return;
            }
        }
        counter.set_message("");
    });
    runtime.block_on(async {
        let walked = stream::poll_fn(|context| walked.poll_recv(context));
        let results = walked.map(|(found, looked): (Found, io::Result<()>)| {
            let work = work.clone();
            spawn_blocking(move || {
                let result = looked.and_then(|()| work(&found.path));
                (found, result)
            })
        });
        let mut results = results.buffered(AHEAD);
        while let Some(done) = results.next().await {
            let (found, result) = done.expect("what is done to a file does not panic");
            bar.inc(1);
            if !then(&found, result) {
                break;
            }
        }
    });
    bar.finish_and_clear();
    Ok(())
}

/// A path, or all below it in the order of names; what cannot be looked at comes with the reason.
fn walk(path: &Path, recursive: bool) -> Box<dyn Iterator<Item = (Found, io::Result<()>)>> {
    if !recursive {
        return Box::new(std::iter::once((Found { path: path.to_owned(), is_walked: false }, Ok(()))));
    }
    let root = path.to_owned();
    Box::new(WalkDir::new(path).sort_by_file_name().into_iter().filter_map(move |entry| match entry {
        Ok(entry) if entry.path_is_symlink() && entry.depth() > 0 => None,
        Ok(entry) => {
            let is_walked = entry.file_type().is_dir();
            Some((Found { path: entry.into_path(), is_walked }, Ok(())))
        }
        Err(error) => {
            let place = error.path().unwrap_or(&root).to_owned();
            let error = error.into_io_error().unwrap_or_else(|| io::Error::other("the tree is circular"));
            Some((Found { path: place, is_walked: false }, Err(error)))
        }
    }))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::error::Meaning;

    #[test]
    fn a_walk_reaches_everything_but_links_and_goes_on_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/a"), "").unwrap();
        std::fs::write(at("d/b"), "").unwrap();
        std::os::unix::fs::symlink("a", at("d/link")).unwrap();
        let work = |path: &Path| match path.ends_with("a") {
            true => Err(io::Error::from_raw_os_error(Meaning::AccessDenied.errno())),
            false => Ok(path.to_owned()),
        };
        let mut seen = Vec::new();
        for_each(vec![at("d"), at("missing")], true, &ProgressBar::hidden(), work, |found, result| {
            seen.push((found.path.clone(), found.is_walked, result.is_ok()));
            true
        })
        .unwrap();
        let wanted =
            [(at("d"), true, true), (at("d/a"), false, false), (at("d/b"), false, true), (at("missing"), false, false)];
        assert_eq!(seen, wanted);
    }

    #[test]
    fn results_come_in_order_and_end_when_nobody_listens() {
        let paths: Vec<PathBuf> = (0..2000).map(|number| PathBuf::from(number.to_string())).collect();
        let (mut seen, bar) = (Vec::new(), ProgressBar::hidden());
        for_each(
            paths.clone(),
            false,
            &bar,
            |path| Ok(path.to_owned()),
            |_, result| {
                seen.push(result.unwrap());
                seen.len() < 1500
            },
        )
        .unwrap();
        assert_eq!(seen, paths[..1500]);
    }
}
