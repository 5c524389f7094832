//! What commands need of the local disk before there is a mount: the log file, scratch folders.
//! Everything that is made here is for its owner alone. Refuses to take over a folder that exists.

use std::fs::{self, DirBuilder, File};
use std::io::{self, Read};
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// Attempts to find a free name for a scratch folder; with 64 random bits the first one always succeeds.
const NAME_ATTEMPTS: usize = 8;

/// Opens a log file to write at its end; made with mode 0600.
pub fn open_log(path: &Path) -> io::Result<File> {
    File::options().create(true).append(true).mode(0o600).open(path)
}

/// Makes a folder with mode 0700, and those above it, where they are missing.
pub fn make_folder(path: &Path) -> io::Result<()> {
    DirBuilder::new().recursive(true).mode(0o700).create(path)
}

/// Makes a new folder with mode 0700 among the temporary files.
pub fn make_scratch() -> io::Result<PathBuf> {
    for _ in 0..NAME_ATTEMPTS {
        let path = super::temporary_dir().join(format!("dreamfs-demo-{}", random_hex(8)?));
        match DirBuilder::new().mode(0o700).create(&path) {
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
            Ok(()) => return Ok(path),
        }
    }
    Err(io::Error::from(io::ErrorKind::AlreadyExists))
}

/// Removes a folder that is empty and in nobody's use; a mountpoint that is still mounted is neither.
pub fn remove_empty(path: &Path) -> io::Result<()> {
    fs::remove_dir(path)
}

/// Removes a folder with all that is in it. Call it only when nothing is mounted below.
pub fn remove_folder(path: &Path) -> io::Result<()> {
    fs::remove_dir_all(path)
}

/// Random bytes that cannot be guessed, as twice as many hexadecimal digits.
fn random_hex(bytes: usize) -> io::Result<String> {
    let mut random = vec![0; bytes];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    Ok(hex::encode(random))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn scratch_folders_are_private_and_different() {
        let (one, other) = (make_scratch().unwrap(), make_scratch().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.metadata().unwrap().permissions().mode() & 0o777, 0o700);
        remove_folder(&one).unwrap();
        remove_folder(&other).unwrap();
        assert!(!one.exists());
    }
}
