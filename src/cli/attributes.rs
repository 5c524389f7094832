//! Attributes of files in a mount, as the small commands read them.

use std::io;
use std::path::Path;

use crate::control;
use crate::error::Meaning;

/// Whether a path lies in a dreamfs mount.
pub fn check_mounted(path: &Path) -> io::Result<()> {
    match control::socket_of(path)? {
        Some(_) => Ok(()),
        None => Err(io::Error::other("it is not in a dreamfs mount")),
    }
}

/// An attribute's value; one that is not there is the error that the kernel has for it.
pub fn value(path: &Path, name: &str) -> io::Result<String> {
    let value = xattr::get_deref(path, name)?;
    let value = value.ok_or_else(|| io::Error::from_raw_os_error(Meaning::NoAttribute.errno()))?;
    Ok(String::from_utf8_lossy(&value).trim_end().to_owned())
}

/// Whether an error means this.
pub fn is(error: &io::Error, meaning: Meaning) -> bool {
    error.raw_os_error() == Some(meaning.errno())
}
