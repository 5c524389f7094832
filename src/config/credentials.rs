//! Where the keys come from: the first source that has any, read again whenever it is asked. Refuses files with keys
//! that others can read. No secret is ever part of an error, a log line or Debug output.

use std::fs::File;
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;

use super::Environment;
use super::key_files::{self, Found};
use crate::store::s3::{CredentialSource, Credentials};

/// The keys of the whole machine; s3fs lets a group read them.
const MACHINE_FILE: &str = "/etc/passwd-s3fs";

/// Bytes of a file with keys at most; a larger one is something else.
const FILE_BYTES_MAX: u64 = 1 << 20;

/// Where to look.
#[derive(Clone, Debug)]
pub struct Search {
    /// `--credentials`: look nowhere else.
    pub file: Option<PathBuf>,
    /// `--profile`: look in the files of the AWS command line alone.
    pub profile: Option<String>,
    /// The bucket, for files that hold keys per bucket.
    pub bucket: Option<String>,
    /// The environment at the start.
    pub environment: Environment,
}

/// A source that searches anew each time it is asked. It may run the profile's `credential_process`.
pub fn source(search: Search) -> CredentialSource {
    Arc::new(move || search.find())
}

/// A source for `--anonymous`, which has no keys; whoever asks it has a fault.
pub fn none() -> CredentialSource {
    Arc::new(|| Err("this mount is anonymous and has no keys. Mount without --anonymous".to_owned()))
}

type Answer = Result<Option<Credentials>, String>;

impl Search {
    fn find(&self) -> Result<Credentials, String> {
        if let Some(path) = &self.file {
            return self.in_named_file(path);
        }
        if self.profile.is_none()
            && let Some(found) = from_environment(&self.environment)?
        {
            return Ok(found);
        }
        let profile = self.profile.clone().or_else(|| self.environment.get("AWS_PROFILE"));
        if let Some(found) = self.in_aws_files(profile.as_deref().unwrap_or("default"))? {
            return Ok(found);
        }
        if let Some(profile) = profile {
            return Err(format!(
                "the profile {profile} has no keys in ~/.aws/credentials or ~/.aws/config. Check its name, or run: aws \
                 configure --profile {profile}"
            ));
        }
        for path in self.other_files() {
            if let Some(found) = self.in_file(&path, |text| key_files::any(text, "default", self.bucket()))? {
                return Ok(found);
            }
        }
        Err("no credentials are found. Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or write KEY:SECRET to \
             ~/.passwd-s3fs (chmod 600), or name a file with --credentials FILE"
            .to_owned())
    }

    fn bucket(&self) -> Option<&str> {
        self.bucket.as_deref()
    }

    fn in_named_file(&self, path: &Path) -> Result<Credentials, String> {
        let shown = path.display();
        let profile = self.profile.clone().or_else(|| self.environment.get("AWS_PROFILE"));
        let profile = profile.as_deref().unwrap_or("default");
        match self.in_file(path, |text| key_files::any(text, profile, self.bucket()))? {
            Some(found) => Ok(found),
            None if path.exists() => {
                let what =
                    self.bucket.as_deref().map_or_else(|| "all buckets".to_owned(), |name| format!("bucket {name}"));
                Err(format!("{shown} has no keys for {what}. Write a line KEY:SECRET into it"))
            }
            None => Err(format!("{shown} is not there. Check --credentials")),
        }
    }

    /// Keys in either file go before a program in either.
    fn in_aws_files(&self, profile: &str) -> Answer {
        let place = |variable: &str, name: &str| {
            let told = self.environment.get(variable).map(PathBuf::from);
            told.or_else(|| Some(self.environment.home()?.join(".aws").join(name)))
        };
        let files = [place("AWS_SHARED_CREDENTIALS_FILE", "credentials"), place("AWS_CONFIG_FILE", "config")];
        for path in files.iter().flatten() {
            let keys = |text: &str| key_files::aws(text, profile).filter(|found| matches!(found, Found::Keys(_)));
            if let Some(found) = self.in_file(path, keys)? {
                return Ok(Some(found));
            }
        }
        for path in files.iter().flatten() {
            if let Some(found) = self.in_file(path, |text| key_files::aws(text, profile))? {
                return Ok(Some(found));
            }
        }
        Ok(None)
    }

    fn other_files(&self) -> Vec<PathBuf> {
        let home = self.environment.home();
        let at_home = |name: &str| home.as_ref().map(|home| home.join(name));
        let machine = Some(PathBuf::from(MACHINE_FILE));
        [at_home(".passwd-s3fs"), machine, at_home(".boto"), at_home(".s3cfg")].into_iter().flatten().collect()
    }

    /// What `parse` finds in a file; `None` where the file is missing, or belongs to others and was not named by the user.
    fn in_file(&self, path: &Path, parse: impl Fn(&str) -> Option<Found>) -> Answer {
        let (text, mode) = match read(path) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && self.file.is_none() => {
                log::debug!("{} is not for us to read", path.display());
                return Ok(None);
            }
            Err(error) => return Err(format!("{} cannot be read: {error}. Check the file", path.display())),
        };
        match parse(&text) {
            None => Ok(None),
            Some(Found::Process(command)) => run_process(&command).map(Some),
            Some(Found::Keys(keys)) => {
                check_mode(path, mode)?;
                log::debug!("keys from {}", path.display());
                Ok(Some(keys))
            }
        }
    }
}

fn from_environment(environment: &Environment) -> Answer {
    match (environment.get("AWS_ACCESS_KEY_ID"), environment.get("AWS_SECRET_ACCESS_KEY")) {
        (Some(access_key), Some(secret_key)) => {
            Ok(Some(Credentials { access_key, secret_key, session_token: environment.get("AWS_SESSION_TOKEN") }))
        }
        (None, None) => Ok(None),
        (Some(_), None) => {
            Err("AWS_ACCESS_KEY_ID is set without AWS_SECRET_ACCESS_KEY. Set both or neither".to_owned())
        }
        (None, Some(_)) => {
            Err("AWS_SECRET_ACCESS_KEY is set without AWS_ACCESS_KEY_ID. Set both or neither".to_owned())
        }
    }
}

/// The text and the mode of one and the same file.
fn read(path: &Path) -> io::Result<(String, u32)> {
    let file = File::open(path)?;
    let mode = file.metadata()?.mode();
    let mut text = String::new();
    file.take(FILE_BYTES_MAX).read_to_string(&mut text)?;
    Ok((text, mode))
}

fn check_mode(path: &Path, mode: u32) -> Result<(), String> {
    let (others, right) = if path == Path::new(MACHINE_FILE) { (0o027, "640") } else { (0o077, "600") };
    let shown = path.display();
    if mode & others == 0 {
        Ok(())
    } else {
        Err(format!("others can read the keys in {shown}. Run: chmod {right} {shown}"))
    }
}

/// A program that prints keys as JSON (AWS command line user guide, "Sourcing credentials with an external process").
fn run_process(command: &str) -> Result<Credentials, String> {
    // Not even its standard error is shown: nobody knows what it prints there.
    let run = Command::new("/bin/sh").args(["-c", command]).stdin(Stdio::null()).stderr(Stdio::null()).output();
    let output = run.map_err(|error| format!("credential_process cannot be run: {error}. Check the profile"))?;
    if !output.status.success() {
        return Err(format!("credential_process failed with {}. Run it by hand to see why", output.status));
    }
    key_files::process_answer(&output.stdout)
        .ok_or_else(|| "credential_process did not print keys (JSON, Version 1). Run it by hand to see what".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;
    use tempfile::TempDir;

    /// A home folder with these files, mode 0600.
    fn home(files: &[(&str, &str)]) -> TempDir {
        let home = tempfile::tempdir().unwrap();
        for (name, text) in files {
            let path = home.path().join(name);
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(&path, text).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        home
    }

    fn search(home: &TempDir, variables: &[(&str, &str)]) -> Search {
        let mut all = vec![("HOME", home.path().to_str().unwrap())];
        all.extend_from_slice(variables);
        Search { file: None, profile: None, bucket: None, environment: Environment::of(&all) }
    }

    fn key(search: &Search) -> String {
        search.find().unwrap().access_key
    }

    const ALL: [(&str, &str); 5] = [
        (
            ".aws/credentials",
            "[default]\naws_access_key_id=AWS\naws_secret_access_key=S\n[two]\naws_access_key_id=TWO\naws_secret_access_key=S",
        ),
        (
            ".aws/config",
            "[profile run]\ncredential_process = echo '{\"Version\":1,\"AccessKeyId\":\"RUN\",\"SecretAccessKey\":\"S\"}'",
        ),
        (".passwd-s3fs", "S3FS:S"),
        (".boto", "[Credentials]\naws_access_key_id = BOTO\naws_secret_access_key = S"),
        (".s3cfg", "[default]\naccess_key = S3CMD\nsecret_key = S"),
    ];

    #[test]
    fn sources_are_asked_in_order() {
        let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "S")];
        assert_eq!(key(&search(&home(&ALL), &keys)), "ENV");
        assert_eq!(key(&search(&home(&ALL), &[])), "AWS");
        assert_eq!(key(&search(&home(&ALL[1..]), &[])), "S3FS");
        if !Path::new(MACHINE_FILE).exists() {
            assert_eq!(key(&search(&home(&ALL[3..]), &[])), "BOTO");
            assert_eq!(key(&search(&home(&ALL[4..]), &[])), "S3CMD");
            let why = search(&home(&[]), &[]).find().unwrap_err();
            assert!(why.contains("AWS_ACCESS_KEY_ID") && why.contains(".passwd-s3fs") && why.contains("--credentials"));
        }
    }

    #[test]
    fn a_profile_is_a_wish_for_these_keys_and_no_others() {
        let home = home(&ALL);
        let keys = [("AWS_ACCESS_KEY_ID", "ENV"), ("AWS_SECRET_ACCESS_KEY", "S")];
        assert_eq!(key(&Search { profile: Some("two".to_owned()), ..search(&home, &keys) }), "TWO");
        assert_eq!(key(&search(&home, &[("AWS_PROFILE", "run")])), "RUN");
        let why = search(&home, &[("AWS_PROFILE", "three")]).find().unwrap_err();
        assert!(why.contains("profile three"), "{why}");
    }

    #[test]
    fn a_named_file_is_the_only_one() {
        let home = home(&[("keys", "photos:P:S\n"), (".passwd-s3fs", "S3FS:S")]);
        let named = Search { file: Some(home.path().join("keys")), ..search(&home, &[]) };
        assert_eq!(key(&Search { bucket: Some("photos".to_owned()), ..named.clone() }), "P");
        assert!(named.find().unwrap_err().contains("all buckets"));
        let gone = Search { file: Some(home.path().join("gone")), ..named };
        assert!(gone.find().unwrap_err().contains("is not there"));
    }

    #[test]
    fn files_that_others_can_read_are_refused_with_the_command_to_run() {
        for (name, text) in ALL.iter().filter(|(name, _)| *name != ".aws/config") {
            let home = home(&[(name, &text.replace("=S", "=TOPSECRET").replace(":S", ":TOPSECRET"))]);
            let path = home.path().join(name);
            fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).unwrap();
            let why = Search { file: Some(path.clone()), ..search(&home, &[]) }.find().unwrap_err();
            assert!(why.ends_with(&format!("Run: chmod 600 {}", path.display())), "{why}");
            assert!(!why.contains("TOPSECRET"), "{why}");
        }
        assert_eq!(check_mode(Path::new(MACHINE_FILE), 0o100640), Ok(()));
        assert!(check_mode(Path::new(MACHINE_FILE), 0o100644).is_err());
    }

    #[test]
    fn the_source_reads_again_each_time() {
        let home = home(&[(".passwd-s3fs", "OLD:S")]);
        let source = source(search(&home, &[]));
        assert_eq!(source().unwrap().access_key, "OLD");
        fs::write(home.path().join(".passwd-s3fs"), "NEW:S").unwrap();
        assert_eq!(source().unwrap().access_key, "NEW");
    }

    #[test]
    fn half_a_pair_and_failing_programs_are_told_without_their_output() {
        let home =
            home(&[(".aws/config", "[default]\ncredential_process = echo TOPSECRET; echo TOPSECRET >&2; exit 3")]);
        assert!(search(&home, &[("AWS_ACCESS_KEY_ID", "K")]).find().unwrap_err().contains("Set both"));
        let why = search(&home, &[]).find().unwrap_err();
        assert!(why.contains("exit status: 3") && !why.contains("TOPSECRET"), "{why}");
    }
}
