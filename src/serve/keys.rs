//! The keys of a server that was given no users: made once and kept in its data folder, readable by its owner alone.

use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

/// Where they lie in the data folder.
const FILE_NAME: &str = ".keys";

/// Random bytes of a secret.
const SECRET_BYTES: usize = 20;

/// The access key and the secret key of a data folder.
pub fn own_keys(data_dir: &Path) -> io::Result<(String, String)> {
    fs::create_dir_all(data_dir)?;
    let path = data_dir.join(FILE_NAME);
    if let Ok(text) = fs::read_to_string(&path)
        && let Some((access_key, secret_key)) = text.trim().split_once(':')
    {
        return Ok((access_key.to_owned(), secret_key.to_owned()));
    }
    let mut random = [0; SECRET_BYTES];
    File::open("/dev/urandom")?.read_exact(&mut random)?;
    let keys = ("dreamfs".to_owned(), hex::encode(random));
    let mut file = File::options().write(true).create(true).truncate(true).mode(0o600).open(path)?;
    writeln!(file, "{}:{}", keys.0, keys.1)?;
    Ok(keys)
}
