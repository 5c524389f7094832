//! `dreamfs acl`: shows and sets the ACLs of objects and buckets, through the attributes `user.s3.acl` and
//! `user.s3.grants`.
//!
//! Setting many is taken up again where it ended: a file that has the ACL already is left alone. To find that out costs
//! a request too, so that looking ends once it finds nothing.
//!
//! It refuses to mix a canned ACL with grants: a store takes the one or the other.

use std::fmt::Write as _;
use std::io::{self, IsTerminal};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use indicatif::{HumanCount, ProgressBar};

use super::args::{self, AclAction};
use super::attributes::{self, is};
use super::each::{self, Found};
use super::text::{self, complain};
use crate::error::Meaning;
use crate::format::acl::{CANNED_NAMES, Grant, Permission, parse_lines, same_grants};

const ACL_ATTRIBUTE: &str = "user.s3.acl";
const GRANTS_ATTRIBUTE: &str = "user.s3.grants";
const OWNER_ATTRIBUTE: &str = "user.s3.owner";

/// So many files in a row without the ACL, and the rest is set unseen.
const MISSES_MAX: u32 = 100;

/// What `acl set` is to write.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Change {
    Canned(String),
    Grants(Vec<Grant>),
}

/// What came of a file.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Outcome {
    /// It has the ACL already.
    Same,
    /// It was set.
    Set,
    /// It has this one, and would be given the other.
    Differs(String),
}

/// Whether it pays to look before setting.
#[derive(Clone, Default)]
struct Looks(Arc<AtomicU32>);

impl Looks {
    fn pay(&self) -> bool {
        self.0.load(Ordering::Relaxed) < MISSES_MAX
    }

    fn note(&self, hit: bool) {
        match hit {
            true => self.0.store(0, Ordering::Relaxed),
            false => drop(self.0.fetch_add(1, Ordering::Relaxed)),
        }
    }
}

/// Runs the command.
pub fn run(args: args::Acl) -> ExitCode {
    let done = match args.action {
        AclAction::Get { recursive, paths } => get(paths, recursive),
        AclAction::Set { recursive, dry_run, arguments } => match split(arguments) {
            Ok((change, paths)) => set(change, paths, recursive, dry_run),
            Err(line) => Err(super::complain(&line)),
        },
    };
    done.unwrap_or_else(|status| status)
}

fn get(paths: Vec<PathBuf>, recursive: bool) -> Result<ExitCode, ExitCode> {
    let (mut first, mut failed) = (true, false);
    each::for_each(paths, recursive, &ProgressBar::hidden(), describe, |found, shown| match shown {
        Ok(shown) => {
            let gap = if std::mem::take(&mut first) { "" } else { "\n" };
            text::print(&format!("{gap}{shown}"))
        }
        Err(error) => {
            failed |= tell(found, &error);
            true
        }
    })?;
    Ok(text::exit(failed))
}

fn set(change: Change, paths: Vec<PathBuf>, recursive: bool, dry_run: bool) -> Result<ExitCode, ExitCode> {
    let bar = if recursive { each::bar() } else { ProgressBar::hidden() };
    let (mut changed, mut same, mut failed) = (0, 0, 0);
    let (looks, wanted) = (Looks::default(), change.to_string());
    let work = move |path: &Path| change.bring_to(path, &looks, dry_run);
    each::for_each(paths, recursive, &bar.clone(), work, |found, outcome| match outcome {
        Ok(Outcome::Same) => {
            same += 1;
            true
        }
        Ok(Outcome::Set) => {
            changed += 1;
            true
        }
        Ok(Outcome::Differs(old)) => {
            changed += 1;
            let line = format!("{}: {old} -> {wanted}", found.path.display());
            bar.suspend(|| text::print(&format!("{}\n", text::printable(&line))))
        }
        Err(error) => {
            failed += u64::from(bar.suspend(|| tell(found, &error)));
            true
        }
    })?;
    if recursive && (failed > 0 || io::stderr().is_terminal()) {
        complain(&summary(changed, same, failed, dry_run));
    }
    Ok(text::exit(failed > 0))
}

fn summary(changed: u64, same: u64, failed: u64, dry_run: bool) -> String {
    let changed = HumanCount(changed);
    let changed = if dry_run { format!("{changed} would be changed") } else { format!("{changed} changed") };
    let same = if same > 0 { format!(", {} left as they were", HumanCount(same)) } else { String::new() };
    let failed = match failed {
        0 => String::new(),
        failed => format!(", {} failed. The same command again does what is left", HumanCount(failed)),
    };
    format!("{changed}{same}{failed}.")
}

impl Change {
    fn bring_to(&self, path: &Path, looks: &Looks, dry_run: bool) -> io::Result<Outcome> {
        // Another file system would take the attribute for the file's own and say yes.
        attributes::check_mounted(path)?;
        if dry_run || looks.pay() {
            let old = attributes::value(path, ACL_ATTRIBUTE)?;
            let grants = match self {
                Change::Grants(_) => Some(attributes::value(path, GRANTS_ATTRIBUTE)?),
                Change::Canned(_) => None,
            };
            let is_same = self.is(&old, grants.as_deref());
            looks.note(is_same);
            match (is_same, dry_run) {
                (true, _) => return Ok(Outcome::Same),
                (false, true) => return Ok(Outcome::Differs(shown(path, old, grants)?)),
                (false, false) => {}
            }
        }
        match self {
            Change::Canned(name) => xattr::set_deref(path, ACL_ATTRIBUTE, name.as_bytes())?,
            Change::Grants(_) => xattr::set_deref(path, GRANTS_ATTRIBUTE, self.lines("\n").as_bytes())?,
        }
        Ok(Outcome::Set)
    }

    /// Whether a file that shows this has it already. What the store shows under another name (an address as an id, the
    /// rarer canned ones) is set again.
    fn is(&self, acl: &str, grants: Option<&str>) -> bool {
        match self {
            Change::Canned(name) => acl == name,
            Change::Grants(wanted) => {
                let found = grants.and_then(|grants| parse_lines(grants).ok());
                found.is_some_and(|found| same_grants(&found, wanted))
            }
        }
    }

    fn lines(&self, between: &str) -> String {
        match self {
            Change::Canned(name) => name.clone(),
            Change::Grants(grants) => grants.iter().map(Grant::to_string).collect::<Vec<_>>().join(between),
        }
    }
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.lines(", "))
    }
}

/// An ACL on one line: its name, or its grants.
fn shown(path: &Path, acl: String, grants: Option<String>) -> io::Result<String> {
    if acl != "custom" {
        return Ok(acl);
    }
    let grants = grants.map_or_else(|| attributes::value(path, GRANTS_ATTRIBUTE), Ok)?;
    Ok(grants.lines().collect::<Vec<_>>().join(", "))
}

/// Tells of a failure; false for what is none: a directory of a walk that is only the beginning of other keys.
fn tell(found: &Found, error: &io::Error) -> bool {
    if found.is_walked && has_no_acl(error) {
        return false;
    }
    text::complain_of(&found.path, error, advice(error));
    true
}

/// Whether there is nothing that could have an ACL.
fn has_no_acl(error: &io::Error) -> bool {
    is(error, Meaning::NoAttribute) || is(error, Meaning::Unsupported)
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Only the file's owner and root set ACLs, and the store must allow it.",
        io::ErrorKind::InvalidInput => "The daemon's log says which values this store takes.",
        io::ErrorKind::NotFound => "Check the path.",
        io::ErrorKind::ReadOnlyFilesystem => "It is mounted read-only.",
        _ if is(error, Meaning::NoAttribute) => {
            "Nothing is stored under this name: it is only the beginning of others."
        }
        _ if is(error, Meaning::Unsupported) => "This store has ACLs for buckets only: set that of the bucket.",
        _ if error.raw_os_error().is_none() => "Name files of a mount; `dreamfs status` lists the mounts.",
        _ => "The daemon's log says more.",
    }
}

/// The ACL of one path in the manner of getfacl.
fn describe(path: &Path) -> io::Result<String> {
    attributes::check_mounted(path)?;
    let acl = attributes::value(path, ACL_ATTRIBUTE)?;
    let owner = optional(attributes::value(path, OWNER_ATTRIBUTE))?;
    let grants = optional(attributes::value(path, GRANTS_ATTRIBUTE))?;
    let mut shown = format!("# file: {}\n", text::printable(&path.to_string_lossy()));
    if let Some(owner) = owner {
        let _ = writeln!(shown, "# owner: {}", text::printable(&owner));
    }
    let _ = writeln!(shown, "# acl: {}", text::printable(&acl));
    for line in grants.iter().flat_map(|grants| grants.lines()) {
        let _ = writeln!(shown, "{}", text::printable(line));
    }
    Ok(shown)
}

fn optional(value: io::Result<String>) -> io::Result<Option<String>> {
    match value {
        Err(error) if has_no_acl(&error) => Ok(None),
        other => other.map(Some),
    }
}

/// Parts the arguments into what to set and where: an ACL's name or grants come first, the rest are paths. A file with
/// the name of an ACL is reached as `./private`, or after the ACL.
fn split(arguments: Vec<String>) -> Result<(Change, Vec<PathBuf>), String> {
    let grants = arguments.iter().take_while(|argument| is_grant(argument)).count();
    let canned = arguments.first().is_some_and(|first| CANNED_NAMES.contains(&first.as_str()));
    let mut arguments = arguments.into_iter();
    let change = if canned {
        Change::Canned(arguments.next().expect("the first argument was just looked at"))
    } else if grants > 0 {
        let lines: Vec<String> = arguments.by_ref().take(grants).collect();
        Change::Grants(parse_lines(&lines.join("\n")).map_err(|why| format!("{why}."))?)
    } else {
        let names = CANNED_NAMES.join(", ");
        return Err(format!("no ACL is given. Name one of {names}, or give grants such as 'READ group=AllUsers'."));
    };
    let paths: Vec<PathBuf> = arguments.map(PathBuf::from).collect();
    match paths.first() {
        None => Err("no path is given. Name the files after the ACL.".into()),
        Some(path) if canned && path.to_str().is_some_and(is_grant) => {
            Err("a canned ACL and grants exclude each other. Give one or the other.".into())
        }
        Some(_) => Ok((change, paths)),
    }
}

fn is_grant(argument: &str) -> bool {
    argument.split_once(' ').is_some_and(|(permission, _)| Permission::from_name(permission).is_some())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parted(arguments: &[&str]) -> Result<(Change, Vec<PathBuf>), String> {
        split(arguments.iter().map(|argument| argument.to_string()).collect())
    }

    #[test]
    fn a_canned_name_is_followed_by_paths_even_of_the_same_name() {
        let (change, paths) = parted(&["private", "private", "READ_ME"]).unwrap();
        assert_eq!(change, Change::Canned("private".into()));
        assert_eq!(paths, [Path::new("private"), Path::new("READ_ME")]);
    }

    #[test]
    fn grants_are_taken_as_long_as_they_come() {
        let (change, paths) = parted(&["READ id=a b", "FULL_CONTROL email=x@y", "a b", "READ id=c"]).unwrap();
        assert_eq!(change.to_string(), "READ id=a b, FULL_CONTROL email=x@y");
        assert_eq!(paths, [Path::new("a b"), Path::new("READ id=c")]);
    }

    #[test]
    fn what_is_missing_or_mixed_is_named() {
        assert!(parted(&["file"]).unwrap_err().starts_with("no ACL"));
        assert!(parted(&["READ", "file"]).unwrap_err().starts_with("no ACL"), "a permission alone is no grant");
        assert!(parted(&["public", "file"]).unwrap_err().contains("public-read"));
        assert!(parted(&[]).unwrap_err().starts_with("no ACL"));
        assert!(parted(&["private"]).unwrap_err().starts_with("no path"));
        assert!(parted(&["READ id=a"]).unwrap_err().starts_with("no path"));
        assert!(parted(&["private", "READ id=a", "f"]).unwrap_err().contains("exclude"));
        assert!(parted(&["READ bob", "f"]).unwrap_err().contains("is no grant"));
    }

    #[test]
    fn what_a_file_has_already_is_recognised() {
        let canned = Change::Canned("private".into());
        assert!(canned.is("private", None) && !canned.is("custom", None));
        let grants = Change::Grants(parse_lines("READ id=b\nFULL_CONTROL id=a").unwrap());
        assert!(grants.is("custom", Some("FULL_CONTROL id=a\nREAD id=b")));
        assert!(!grants.is("custom", Some("FULL_CONTROL id=a")));
        assert_eq!(grants.to_string(), "READ id=b, FULL_CONTROL id=a");
    }

    #[test]
    fn looking_ends_where_it_finds_nothing() {
        let looks = Looks::default();
        (0..MISSES_MAX - 1).for_each(|_| looks.note(false));
        assert!(looks.pay());
        looks.note(true);
        (0..MISSES_MAX).for_each(|_| looks.note(false));
        assert!(!looks.pay());
    }

    #[test]
    fn the_last_line_says_what_is_left_to_do() {
        assert_eq!(summary(1234, 0, 0, false), "1,234 changed.");
        assert_eq!(summary(1, 2, 0, true), "1 would be changed, 2 left as they were.");
        assert!(summary(1, 0, 3, false).starts_with("1 changed, 3 failed. The same command again"));
    }

    #[test]
    fn a_file_outside_of_every_mount_is_let_be() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(describe(file.path()).is_err());
        let change = Change::Canned("private".into());
        assert!(change.bring_to(file.path(), &Looks::default(), false).is_err());
        assert_eq!(xattr::get(file.path(), ACL_ATTRIBUTE).ok().flatten(), None, "nothing is left on other files");
    }
}
