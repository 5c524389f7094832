//! `dreamfs acl`: shows and sets the ACLs of objects and buckets, through the attributes `user.s3.acl` and
//! `user.s3.grants`.
//!
//! It refuses to mix a canned ACL with grants: a store takes the one or the other.

use std::fmt::Write as _;
use std::io;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use walkdir::WalkDir;

use super::args::{self, AclAction};
use super::text::{self, complain};
use crate::control;
use crate::error::Meaning;

const ACL_ATTRIBUTE: &str = "user.s3.acl";
const GRANTS_ATTRIBUTE: &str = "user.s3.grants";
const OWNER_ATTRIBUTE: &str = "user.s3.owner";

/// The canned ACLs (Amazon S3 user guide, "Canned ACL"). What the store makes of one is its own affair.
const CANNED: [&str; 8] = [
    "private",
    "public-read",
    "public-read-write",
    "authenticated-read",
    "aws-exec-read",
    "bucket-owner-read",
    "bucket-owner-full-control",
    "log-delivery-write",
];

/// What a grant line begins with.
const PERMISSIONS: [&str; 5] = ["READ", "WRITE", "READ_ACP", "WRITE_ACP", "FULL_CONTROL"];

/// What `acl set` is to write.
#[derive(Debug, PartialEq, Eq)]
enum Change {
    Canned(String),
    Grants(Vec<String>),
}

/// Runs the command.
pub fn run(args: args::Acl) -> ExitCode {
    match args.action {
        AclAction::Get { recursive, paths } => get(&paths, recursive),
        AclAction::Set { recursive, arguments } => match split(arguments) {
            Ok((change, paths)) => set(&change, &paths, recursive),
            Err(line) => {
                complain(&line);
                ExitCode::FAILURE
            }
        },
    }
}

fn get(paths: &[PathBuf], recursive: bool) -> ExitCode {
    let mut read_on = true;
    let mut first = true;
    let failed = for_each(paths, recursive, |path| {
        if !read_on {
            return Ok(());
        }
        let shown = describe(path)?;
        let gap = if std::mem::take(&mut first) { "" } else { "\n" };
        read_on = text::print(&format!("{gap}{shown}"));
        Ok(())
    });
    text::exit(failed)
}

fn set(change: &Change, paths: &[PathBuf], recursive: bool) -> ExitCode {
    text::exit(for_each(paths, recursive, |path| write(change, path)))
}

fn write(change: &Change, path: &Path) -> io::Result<()> {
    if control::socket_of(path)?.is_none() {
        // Another file system would take the attribute for the file's own and say yes.
        return Err(io::Error::from_raw_os_error(Meaning::Unsupported.errno()));
    }
    match change {
        Change::Canned(name) => xattr::set_deref(path, ACL_ATTRIBUTE, name.as_bytes()),
        Change::Grants(lines) => xattr::set_deref(path, GRANTS_ATTRIBUTE, lines.join("\n").as_bytes()),
    }
}

/// Does it to every path, and below directories where asked; whether anything failed, which is told at once. Links are
/// followed where they are named, not where they are met.
fn for_each(paths: &[PathBuf], recursive: bool, mut action: impl FnMut(&Path) -> io::Result<()>) -> bool {
    let mut failed = false;
    let mut tell = |path: &Path, error: &io::Error| {
        text::complain_of(path, error, advice(error));
        failed = true;
    };
    for path in paths {
        if !recursive {
            action(path).unwrap_or_else(|error| tell(path, &error));
            continue;
        }
        for entry in WalkDir::new(path).sort_by_file_name() {
            let entry = match entry {
                Ok(entry) => entry,
                Err(error) => {
                    let place = error.path().unwrap_or(path).to_owned();
                    tell(&place, &error.into_io_error().unwrap_or_else(|| io::Error::other("the tree is circular")));
                    continue;
                }
            };
            if entry.path_is_symlink() && entry.depth() > 0 {
                continue;
            }
            match action(entry.path()) {
                Err(error) if entry.file_type().is_dir() && has_no_acl(&error) => {}
                Err(error) => tell(entry.path(), &error),
                Ok(()) => {}
            }
        }
    }
    failed
}

/// Whether there is nothing that could have an ACL: a directory that is only the beginning of other keys.
fn has_no_acl(error: &io::Error) -> bool {
    let number = error.raw_os_error();
    number == Some(Meaning::NoAttribute.errno()) || number == Some(Meaning::Unsupported.errno())
}

fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => "Only the file's owner and root set ACLs, and the store must allow it.",
        io::ErrorKind::InvalidInput => "The daemon's log says which values this store takes.",
        io::ErrorKind::NotFound => "Check the path.",
        _ if has_no_acl(error) => "It is no object of a dreamfs mount, or its store has no such ACL.",
        _ => "The daemon's log says more.",
    }
}

/// The ACL of one path in the manner of getfacl.
fn describe(path: &Path) -> io::Result<String> {
    let acl = attribute(path, ACL_ATTRIBUTE)?;
    let owner = optional(attribute(path, OWNER_ATTRIBUTE))?;
    let grants = optional(attribute(path, GRANTS_ATTRIBUTE))?;
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

/// An attribute's value; one that is not there is the error that the kernel has for it.
fn attribute(path: &Path, name: &str) -> io::Result<String> {
    let value = xattr::get_deref(path, name)?;
    let value = value.ok_or_else(|| io::Error::from_raw_os_error(Meaning::NoAttribute.errno()))?;
    Ok(String::from_utf8_lossy(&value).trim_end().to_owned())
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
    let canned = arguments.first().is_some_and(|first| CANNED.contains(&first.as_str()));
    let mut arguments = arguments.into_iter();
    let change = if canned {
        Change::Canned(arguments.next().expect("the first argument was just looked at"))
    } else if grants > 0 {
        Change::Grants(arguments.by_ref().take(grants).collect())
    } else {
        let names = CANNED.join(", ");
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
    argument.split_once(' ').is_some_and(|(permission, _)| PERMISSIONS.contains(&permission))
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
        assert_eq!(change, Change::Grants(vec!["READ id=a b".into(), "FULL_CONTROL email=x@y".into()]));
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
    }

    #[test]
    fn a_walk_reaches_everything_but_links_and_goes_on_after_a_failure() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        std::fs::create_dir(at("d")).unwrap();
        std::fs::write(at("d/a"), "").unwrap();
        std::fs::write(at("d/b"), "").unwrap();
        std::os::unix::fs::symlink("a", at("d/link")).unwrap();
        let mut seen = Vec::new();
        let failed = for_each(&[at("d"), at("missing")], true, |path| {
            seen.push(path.to_owned());
            let meaning = if path.ends_with("a") { Meaning::AccessDenied } else { Meaning::Unsupported };
            if path.ends_with("b") { Ok(()) } else { Err(io::Error::from_raw_os_error(meaning.errno())) }
        });
        assert_eq!(seen, [at("d"), at("d/a"), at("d/b")]);
        assert!(failed);
        assert!(!for_each(&[at("d")], true, |path| match path.is_dir() {
            true => Err(io::Error::from_raw_os_error(Meaning::NoAttribute.errno())),
            false => Ok(()),
        }));
    }

    #[test]
    fn a_file_without_an_acl_is_an_error() {
        let file = tempfile::NamedTempFile::new().unwrap();
        assert!(has_no_acl(&describe(file.path()).unwrap_err()));
        assert!(has_no_acl(&write(&Change::Canned("private".into()), file.path()).unwrap_err()));
        assert_eq!(xattr::get(file.path(), ACL_ATTRIBUTE).ok().flatten(), None, "nothing is left on other files");
    }
}
