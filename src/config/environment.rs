//! The environment of the process, read once: variables, arguments and the folders that follow from them. Nothing else
//! in the program reads it. It never shows the value of a variable, because secrets live there.

use std::collections::BTreeMap;
use std::env;
use std::ffi::OsString;
use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use crate::fuse::host;

/// The variables as they were at the start.
#[derive(Clone)]
pub struct Environment {
    variables: BTreeMap<String, String>,
}

impl fmt::Debug for Environment {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Environment").field("names", &self.variables.keys()).finish_non_exhaustive()
    }
}

impl Environment {
    /// This process's variables. Those that are not UTF-8 are left out.
    pub fn current() -> Self {
        let text = |(name, value): (OsString, OsString)| Some((name.into_string().ok()?, value.into_string().ok()?));
        Environment { variables: env::vars_os().filter_map(text).collect() }
    }

    /// An environment of these variables alone.
    pub fn of(variables: &[(&str, &str)]) -> Self {
        let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        Environment { variables: variables.collect() }
    }

    /// The value of a variable that is set and not empty.
    pub fn get(&self, name: &str) -> Option<String> {
        self.variables.get(name).filter(|value| !value.is_empty()).cloned()
    }

    /// The absolute path in a variable; a relative one does not count (XDG base directory specification).
    fn folder(&self, name: &str) -> Option<PathBuf> {
        self.get(name).map(PathBuf::from).filter(|path| path.is_absolute())
    }

    /// The home folder.
    pub fn home(&self) -> Option<PathBuf> {
        self.folder("HOME")
    }

    /// Whether a program can be found under its name, or lies where system programs do.
    pub fn has_program(&self, name: &str) -> bool {
        let paths = self.get("PATH").unwrap_or_default();
        let folders = env::split_paths(&paths).chain(["/usr/bin", "/bin", "/usr/sbin", "/sbin"].map(PathBuf::from));
        folders.into_iter().any(|folder| folder.join(name).is_file())
    }
}

/// Where state lies by default: `/var/lib/dreamfs` for root, else `$XDG_STATE_HOME/dreamfs`.
pub fn state_dir(environment: &Environment) -> PathBuf {
    if host::is_root() { PathBuf::from("/var/lib/dreamfs") } else { users_state_dir(environment) }
}

fn users_state_dir(environment: &Environment) -> PathBuf {
    let at_home = || environment.home().map(|home| home.join(".local/state"));
    match environment.folder("XDG_STATE_HOME").or_else(at_home) {
        Some(base) => base.join("dreamfs"),
        None => env::temp_dir().join(format!("dreamfs-{}", host::effective_uid())),
    }
}

/// Where the sockets of running mounts lie: `/run/dreamfs` for root, else `$XDG_RUNTIME_DIR/dreamfs`, and without such
/// a folder below the state.
pub fn control_dir() -> PathBuf {
    if host::is_root() { PathBuf::from("/run/dreamfs") } else { users_control_dir(&Environment::current()) }
}

fn users_control_dir(environment: &Environment) -> PathBuf {
    match environment.folder("XDG_RUNTIME_DIR") {
        Some(runtime) => runtime.join("dreamfs"),
        None => users_state_dir(environment).join("run"),
    }
}

/// The folder for temporary files.
pub fn temporary_dir() -> PathBuf {
    env::temp_dir()
}

/// The program that runs.
pub fn current_program() -> io::Result<PathBuf> {
    env::current_exe()
}

/// The words that this process was started with, the program's name first.
pub fn arguments() -> Vec<OsString> {
    env::args_os().collect()
}

/// Goes to `/`, so that a daemon keeps no folder busy. Relative paths must have been made absolute before.
pub fn leave_current_dir() {
    // Where even `/` cannot be entered, staying is the better of two evils.
    let _ = env::set_current_dir("/");
}

/// The absolute path without links, as far as it exists. A path whose last part does not answer, such as the mountpoint
/// of a mount whose daemon died, keeps that part as it is.
pub fn absolute(path: &Path) -> io::Result<PathBuf> {
    if let Ok(real) = path.canonicalize() {
        return Ok(real);
    }
    let plain = std::path::absolute(path)?;
    match (plain.parent().and_then(|parent| parent.canonicalize().ok()), plain.file_name()) {
        (Some(parent), Some(name)) => Ok(parent.join(name)),
        _ => Ok(plain),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_values_of_variables_are_not_shown() {
        let environment = Environment::of(&[("AWS_SECRET_ACCESS_KEY", "TOPSECRET")]);
        let shown = format!("{environment:?}");
        assert!(shown.contains("AWS_SECRET_ACCESS_KEY") && !shown.contains("TOPSECRET"), "{shown}");
    }

    #[test]
    fn folders_follow_the_xdg_variables() {
        let told = Environment::of(&[("HOME", "/h"), ("XDG_STATE_HOME", "/s"), ("XDG_RUNTIME_DIR", "/r")]);
        assert_eq!(users_state_dir(&told), Path::new("/s/dreamfs"));
        assert_eq!(users_control_dir(&told), Path::new("/r/dreamfs"));
        let home = Environment::of(&[("HOME", "/h"), ("XDG_STATE_HOME", "relative"), ("XDG_RUNTIME_DIR", "")]);
        assert_eq!(users_state_dir(&home), Path::new("/h/.local/state/dreamfs"));
        assert_eq!(users_control_dir(&home), Path::new("/h/.local/state/dreamfs/run"));
    }

    #[test]
    fn absolute_paths_are_found_for_what_does_not_answer() {
        let folder = tempfile::tempdir().unwrap();
        let real = folder.path().canonicalize().unwrap();
        std::os::unix::fs::symlink(&real, real.join("link")).unwrap();
        assert_eq!(absolute(&real.join("link")).unwrap(), real);
        assert_eq!(absolute(&real.join("link/gone")).unwrap(), real.join("gone"));
    }
}
