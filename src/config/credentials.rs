//! Where the keys come from: the first source that has any. Files that others can read are refused. A source is read
//! again whenever the store refuses the keys. No secret is ever part of an error, a log line or a Debug output.

use std::collections::BTreeMap;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;

use crate::store::s3::{CredentialSource, Credentials};

use super::Environment;

/// What everybody but the owner may do.
const OTHERS: u32 = 0o077;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Search {
    /// `--credentials`.
    pub file: Option<PathBuf>,
    /// `--profile` or `AWS_PROFILE`.
    pub profile: Option<String>,
    /// The bucket, for files that hold keys per bucket.
    pub bucket: Option<String>,
    /// The environment at the start.
    pub environment: Environment,
}

/// A source that searches anew each time it is asked.
pub fn source(search: Search) -> CredentialSource {
    Arc::new(move || find(&search))
}

type Found = Result<Option<Credentials>, String>;

fn find(search: &Search) -> Result<Credentials, String> {
    if let Some(path) = &search.file {
        let text = read_private(path)?.ok_or_else(|| format!("{} is not there", path.display()))?;
        return parse_any(&text, search)?.ok_or_else(|| format!("{} holds no keys", path.display()));
    }
    if let Some(found) = from_environment(&search.environment)? {
        return Ok(found);
    }
    let home = search.environment.home();
    let at_home = |name: &str| home.as_ref().map(|home| home.join(name));
    let aws = at_home(".aws/credentials").into_iter().chain(at_home(".aws/config"));
    for path in aws {
        if let Some(text) = read_private(&path)?
            && let Some(found) = parse_aws(&text, search.profile.as_deref().unwrap_or("default"))?
        {
            return Ok(found);
        }
    }
    let s3fs = at_home(".passwd-s3fs").into_iter().chain([PathBuf::from("/etc/passwd-s3fs")]);
    for path in s3fs.chain(at_home(".boto")).chain(at_home(".s3cfg")) {
        if let Some(text) = read_private(&path)?
            && let Some(found) = parse_any(&text, search)?
        {
            return Ok(found);
        }
    }
    Err("no credentials found: set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write KEY:SECRET to \
         ~/.passwd-s3fs (chmod 600), or use --anonymous for public buckets"
        .to_owned())
}

fn from_environment(environment: &Environment) -> Found {
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Some(Credentials { access_key, secret_key, session_token: environment.get("AWS_SESSION_TOKEN") }))
        }
        (Some(_), None) => Err("AWS_ACCESS_KEY_ID is set and AWS_SECRET_ACCESS_KEY is not. Set both".to_owned()),
        (None, _) => Ok(None),
    }
}

/// The text of a file that only its owner can read; `None` if there is no such file.
fn read_private(path: &Path) -> Result<Option<String>, String> {
    let shown = path.display();
    let metadata = match std::fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(format!("{shown} cannot be read: {error}")),
    };
    // As s3fs has it, the machine's file may be shared with a group.
    let others = if path == Path::new("/etc/passwd-s3fs") { 0o027 } else { OTHERS };
    if metadata.mode() & others != 0 {
        return Err(format!("{shown} can be read by others. Run: chmod 600 {shown}"));
    }
    match std::fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == std::io::ErrorKind::PermissionDenied => Ok(None),
        Err(error) => Err(format!("{shown} cannot be read: {error}")),
    }
}

/// Sections of an ini file.
fn sections(text: &str) -> BTreeMap<String, BTreeMap<String, String>> {
    let mut all: BTreeMap<String, BTreeMap<String, String>> = BTreeMap::new();
    let mut section = String::new();
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with(['#', ';'])) {
        if let Some(name) = line.strip_prefix('[').and_then(|line| line.strip_suffix(']')) {
            section = name.trim().to_owned();
        } else if let Some((name, value)) = line.split_once('=') {
            let values = all.entry(section.clone()).or_default();
            values.insert(name.trim().to_ascii_lowercase(), value.trim().to_owned());
        }
    }
    all
}

fn keys(section: Option<&BTreeMap<String, String>>, id: &str, secret: &str, token: &str) -> Option<Credentials> {
    let section = section?;
    Some(Credentials {
        access_key: section.get(id)?.clone(),
        secret_key: section.get(secret)?.clone(),
        session_token: section.get(token).cloned(),
    })
}

fn parse_aws(text: &str, profile: &str) -> Found {
    let all = sections(text);
    let section = all.get(profile).or_else(|| all.get(&format!("profile {profile}")));
    if let Some(found) = keys(section, "aws_access_key_id", "aws_secret_access_key", "aws_session_token") {
        return Ok(Some(found));
    }
    match section.and_then(|section| section.get("credential_process")) {
        Some(command) => run_process(command).map(Some),
        None => Ok(None),
    }
}

/// `credential_process`: a program that prints the keys as JSON (AWS CLI user guide, "Sourcing credentials with an
/// external process").
fn run_process(command: &str) -> Result<Credentials, String> {
    let failed = |why: &str| format!("the credential_process of the profile {why}");
    let output = Command::new("/bin/sh").args(["-c", command]).output().map_err(|_| failed("cannot be run"))?;
    if !output.status.success() {
        return Err(failed("failed"));
    }
    let json: serde_json::Value = serde_json::from_slice(&output.stdout).map_err(|_| failed("printed no JSON"))?;
    let text = |name: &str| json.get(name).and_then(|value| value.as_str()).map(str::to_owned);
    match (text("AccessKeyId"), text("SecretAccessKey")) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Credentials { access_key, secret_key, session_token: text("SessionToken") })
        }
        _ => Err(failed("printed no keys")),
    }
}

/// `KEY:SECRET` or `BUCKET:KEY:SECRET` lines, as s3fs has them.
fn parse_s3fs(text: &str, bucket: Option<&str>) -> Option<Credentials> {
    let mut any = None;
    for line in text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let fields: Vec<&str> = line.split(':').collect();
        let found = |access_key: &str, secret_key: &str| Credentials {
            access_key: access_key.to_owned(),
            secret_key: secret_key.to_owned(),
            session_token: None,
        };
        match fields.as_slice() {
            [name, access_key, secret_key] if Some(*name) == bucket => return Some(found(access_key, secret_key)),
            [access_key, secret_key] => any = any.or_else(|| Some(found(access_key, secret_key))),
            _ => {}
        }
    }
    any
}

/// Any of the formats, told by what is in the file.
fn parse_any(text: &str, search: &Search) -> Found {
    if !text.lines().any(|line| line.trim_start().starts_with('[')) {
        return Ok(parse_s3fs(text, search.bucket.as_deref()));
    }
    let all = sections(text);
    let boto = keys(all.get("Credentials"), "aws_access_key_id", "aws_secret_access_key", "aws_session_token");
    let s3cfg = || keys(all.get("default"), "access_key", "secret_key", "access_token");
    match boto.or_else(s3cfg) {
        Some(found) => Ok(Some(found)),
        None => parse_aws(text, search.profile.as_deref().unwrap_or("default")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn search() -> Search {
        Search { file: None, profile: None, bucket: Some("photos".to_owned()), environment: Environment::of(&[]) }
    }

    fn parsed(text: &str) -> Option<(String, String)> {
        let found = parse_any(text, &search()).expect("readable");
        found.map(|found| (found.access_key, found.secret_key))
    }

    #[test]
    fn every_format_is_read() {
        let pair = |a: &str, b: &str| Some((a.to_owned(), b.to_owned()));
        assert_eq!(parsed("# mine\nK:S\n"), pair("K", "S"));
        assert_eq!(parsed("other:K1:S1\nphotos:K2:S2\nK3:S3"), pair("K2", "S2"));
        assert_eq!(parsed("[Credentials]\naws_access_key_id = K\naws_secret_access_key=S"), pair("K", "S"));
        assert_eq!(parsed("[default]\naccess_key = K\nsecret_key = S\n"), pair("K", "S"));
        assert_eq!(parsed("[default]\naws_access_key_id=K\naws_secret_access_key=S"), pair("K", "S"));
        assert_eq!(parsed("nothing here"), None);
        let config = "[profile work]\ncredential_process = echo '{\"AccessKeyId\":\"K\",\"SecretAccessKey\":\"S\"}'";
        let found = parse_aws(config, "work").expect("runs").expect("keys");
        assert_eq!((found.access_key, found.secret_key), ("K".to_owned(), "S".to_owned()));
    }

    #[test]
    fn a_file_that_others_can_read_is_refused_with_the_command_to_run() {
        let folder = tempfile::tempdir().expect("room");
        let path = folder.path().join("keys");
        std::fs::write(&path, "K:TOPSECRET").expect("written");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o644)).expect("set");
        let search = Search { file: Some(path.clone()), ..search() };
        let why = find(&search).map(|_| ()).expect_err("refused");
        assert!(why.contains("chmod 600") && !why.contains("TOPSECRET"), "{why}");
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).expect("set");
        let found = find(&search).map_err(|why| why.to_string()).expect("read");
        assert!(!format!("{found:?}").contains("TOPSECRET"));
    }

    #[test]
    fn without_any_the_message_says_how() {
        let why = find(&search()).map(|_| ()).expect_err("none");
        assert!(why.contains("AWS_ACCESS_KEY_ID"), "{why}");
    }
}
