//! Files of other programs are read right here, and files written here are read right by them: s3fs, rclone, the AWS
//! CLI and boto as Debian has them, geesefs by what it was recorded to store.

use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::harness::{ALL, Kind, Mount, PATIENCE, Rig, on, run, sh_in, wait_for};

/// Mode, owner, time, type and target of all files below, one a line.
const SHOWN: &str = "TZ=UTC find . ! -type d -printf '%P %y %m %U:%G %TY-%Tm-%Td %TT %s %l\\n' | cut -c -200 | sort";

/// Makes a small tree with all that a file can have; the names in it are what the tests look for.
const MADE: &str = "mkdir d && echo one > d/f && chmod 640 d/f && chown 12:34 d/f && ln -s 'f ä' d/l && chmod 750 d && \
    setfattr -n user.colour -v 'blue ä' d/f && touch -d '2001-02-03 04:05:06.5 UTC' d/f";

/// Whether a program is here. CI must have it.
fn has(program: &str, test: &str) -> bool {
    let found = Command::new("sh").args(["-c", &format!("command -v {program}")]).output().expect("a shell");
    assert!(found.status.success() || std::env::var("CI").is_err(), "{test}: CI must have {program}");
    if !found.status.success() {
        println!("skipped: {test}: no {program} here (scripts/setup test installs it)");
    }
    found.status.success()
}

/// A bucket that s3fs has mounted.
struct S3fs {
    folder: TempDir,
    child: Child,
}

impl S3fs {
    fn mount(rig: &Rig, bucket: &str) -> S3fs {
        let folder = TempDir::new().expect("room");
        sh_in(folder.path(), "echo alicekey:alicesecret > keys && chmod 600 keys && mkdir mnt");
        let keys = folder.path().join("keys");
        let options = format!("url={},use_path_request_style,use_xattr,passwd_file={}", rig.endpoint, keys.display());
        let mut command = Command::new("s3fs");
        command.arg(bucket).arg(folder.path().join("mnt")).args(["-f", "-o", &options]);
        let child = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("s3fs");
        let mount = S3fs { folder, child };
        wait_for("s3fs mounts", PATIENCE, || sh_in(mount.folder.path(), "mountpoint -q mnt; echo $?") == "0\n");
        mount
    }

    fn sh(&self, line: &str) -> String {
        sh_in(&self.folder.path().join("mnt"), line)
    }
}

impl Drop for S3fs {
    fn drop(&mut self) {
        // What it could not unmount ends with it.
        let _ = Command::new("umount").arg(self.folder.path().join("mnt")).status();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// rclone, with the rig as the remote `:s3:`.
fn rclone(rig: &Rig, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("rclone");
    command.env("RCLONE_CONFIG", folder.join("no.conf")).env("RCLONE_S3_PROVIDER", "Ceph");
    command.env("RCLONE_S3_ENDPOINT", &rig.endpoint).env("RCLONE_S3_ACCESS_KEY_ID", "alicekey");
    command.env("RCLONE_S3_SECRET_ACCESS_KEY", "alicesecret").env_remove("AWS_CA_BUNDLE");
    run(command.current_dir(folder).args(arguments))
}

/// The AWS CLI.
fn aws(rig: &Rig, folder: &Path, arguments: &[&str]) -> String {
    let mut command = Command::new("aws");
    command.env("AWS_ACCESS_KEY_ID", "alicekey").env("AWS_SECRET_ACCESS_KEY", "alicesecret");
    command.env("AWS_DEFAULT_REGION", "us-east-1").env("AWS_CONFIG_FILE", folder.join("no.conf"));
    run(command.current_dir(folder).args(["--endpoint-url", &rig.endpoint]).args(arguments))
}

/// s3fs: mode, owner, time, link and attributes, in both directions; a change of its attributes is seen by it.
#[test]
fn files_pass_to_and_from_s3fs() {
    if !has("s3fs", "files_pass_to_and_from_s3fs") {
        return;
    }
    on(ALL, "files_pass_to_and_from_s3fs", |rig| {
        let bucket = rig.bucket();
        let s3fs = S3fs::mount(rig, &bucket);
        s3fs.sh(MADE);
        let theirs = s3fs.sh(SHOWN);
        assert!(theirs.contains("f f 640 12:34 2001-02-03 04:05:06.5000000000 4 \n"), "{theirs}");
        drop(s3fs);
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh(SHOWN), theirs);
        assert_eq!(mount.sh("stat -c %a d && getfattr --only-values -n user.colour d/f"), "750\nblue ä");
        assert_eq!(mount.sh("getfattr -d d/f | grep -c ="), "1\n", "their bundle is no attribute of its own");
        mount.sh("setfattr -n user.colour -v red d/f && mkdir e && cd e");
        mount.sh(&format!("cd e && {MADE} && sync ."));
        let ours = mount.sh(SHOWN);
        drop(mount);
        let s3fs = S3fs::mount(rig, &bucket);
        assert_eq!(s3fs.sh(SHOWN), ours, "s3fs reads what was written here");
        assert_eq!(s3fs.sh("stat -c %a e/d && getfattr --only-values -n user.colour d/f"), "750\nred");
    });
}

/// rclone: its time, and with `--metadata` mode and owner; it reads content and time of what was written here, and
/// finds nothing to copy again.
#[test]
fn files_pass_to_and_from_rclone() {
    if !has("rclone", "files_pass_to_and_from_rclone") {
        return;
    }
    on(ALL, "files_pass_to_and_from_rclone", |rig| {
        let (bucket, folder) = (rig.bucket(), TempDir::new().expect("room"));
        sh_in(folder.path(), &format!("mkdir made && cd made && {MADE} && rm d/l"));
        rclone(rig, folder.path(), &["copy", "made/d", &format!(":s3:{bucket}")]);
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh("TZ=UTC stat -c '%y' f"), "2001-02-03 04:05:06.500000000 +0000\n");
        drop(mount);
        rclone(rig, folder.path(), &["copy", "--ignore-times", "--metadata", "made/d", &format!(":s3:{bucket}")]);
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh(SHOWN), "f f 640 12:34 2001-02-03 04:05:06.5000000000 4 \n");
        assert_eq!(mount.sh("getfattr --only-values -n user.colour f"), "blue ä");
        mount.sh("mkdir e && cd e && echo two > g && touch -d '2002-02-03 04:05:06.25 UTC' g && rm ../f && sync g");
        drop(mount);
        rclone(rig, folder.path(), &["copy", &format!(":s3:{bucket}"), "back"]);
        assert_eq!(
            sh_in(folder.path(), "cat back/e/g && TZ=UTC stat -c %y back/e/g"),
            "two\n2002-02-03 04:05:06.250000000 +0000\n"
        );
        rclone(rig, folder.path(), &["check", "back", &format!(":s3:{bucket}")]);
    });
}

/// The AWS CLI: what it stores is a file with the store's time, or with the metadata that it was given; it reads what
/// was written here.
#[test]
fn files_pass_to_and_from_the_aws_cli() {
    if !has("aws", "files_pass_to_and_from_the_aws_cli") {
        return;
    }
    on(ALL, "files_pass_to_and_from_the_aws_cli", |rig| {
        let (bucket, folder) = (rig.bucket(), TempDir::new().expect("room"));
        let to = |name: &str| format!("s3://{bucket}/{name}");
        sh_in(folder.path(), "echo one > f.txt");
        aws(rig, folder.path(), &["s3", "cp", "f.txt", &to("plain/f.txt")]);
        let metadata = "mode=33184,uid=12,gid=34,mtime=981173106.5,colour=blue";
        aws(rig, folder.path(), &["s3", "cp", "f.txt", &to("f.txt"), "--metadata", metadata]);
        let mount = Mount::new(rig, Some(&bucket));
        let head = rig.boto(&format!("print(conn.get_bucket('{bucket}').get_key('plain/f.txt').last_modified)"));
        let stored = format!("date -u -d '{}' '+%F %T'", head.trim());
        assert_eq!(mount.sh("TZ=UTC date -r plain/f.txt '+%F %T'"), sh_in(folder.path(), &stored));
        assert_eq!(mount.sh("stat -c %a plain/f.txt && cat plain/f.txt"), "644\none\n");
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.content_type plain/f.txt"), "text/plain");
        let shown = mount.sh(SHOWN);
        assert!(shown.starts_with("f.txt f 640 12:34 2001-02-03 04:05:06.5000000000 4 \n"), "{shown}");
        assert_eq!(mount.sh("getfattr --only-values -n user.colour f.txt"), "blue");
        mount.sh("mkdir 'e ä' && echo two > 'e ä/g h'");
        drop(mount);
        aws(rig, folder.path(), &["s3", "cp", &to("e ä/g h"), "back"]);
        assert_eq!(sh_in(folder.path(), "cat back"), "two\n");
    });
}

/// geesefs 0.43 with `--enable-perms --enable-mtime`: metadata as recorded, a link without bytes among it, which stays
/// a link when it is changed here.
#[test]
fn what_geesefs_stores_is_read() {
    on(ALL, "what_geesefs_stores_is_read", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\n\
             def put(name, text, **metadata):\n    \
                 k = b.new_key(name)\n    \
                 [k.set_metadata(n.replace('_', '-'), v) for n, v in metadata.items()]\n    \
                 k.set_contents_from_string(text)\n\
             put('d/', '', mode='16872')\n\
             put('d/f', 'one\\n', mode='33184', uid='12', gid='34', mtime='981173106', colour='blue %C3%A4')\n\
             put('d/l', '', __symlink_target='f %C3%A4')"
        ));
        let mount = Mount::new(rig, Some(&bucket));
        let file = "d/f f 640 12:34 2001-02-03 04:05:06.0000000000 4 \n";
        let shown = mount.sh(SHOWN);
        assert!(shown.starts_with(file) && shown.ends_with(" 4 f ä\n") && shown.contains("d/l l 777 "), "{shown}");
        assert_eq!(mount.sh("stat -c %a d && getfattr --only-values -n user.colour d/f"), "750\nblue ä");
        mount.sh("mv d/l d/m && chown -h 12:34 d/m && setfattr -n user.s3.refresh -v 1 d");
        assert_eq!(mount.sh("readlink d/m && stat -c '%F %s %u' d/m"), "f ä\nsymbolic link 4 12\n");
    });
}

/// boto: a plain object is a file with the store's time and the mount's owner, and boto reads what was written here.
#[test]
fn files_pass_to_and_from_boto() {
    on(&[Kind::Rgw, Kind::Embedded, Kind::B2], "files_pass_to_and_from_boto", |rig| {
        let bucket = rig.bucket();
        let put = format!(
            "b = conn.get_bucket('{bucket}')\nk = b.new_key('a/f')\nk.set_metadata('Colour', 'blue ä')\n\
             k.set_contents_from_string('one\\n')\nprint(b.get_key('a/f').last_modified)"
        );
        let stored = rig.boto(&put);
        let mount = Mount::new(rig, Some(&bucket));
        assert_eq!(mount.sh("TZ=UTC date -r a/f '+%a, %d %b %Y %T GMT'"), stored);
        assert_eq!(mount.sh("stat -c '%a %u' a/f && getfattr --only-values -n user.colour a/f"), "644 0\nblue ä");
        mount.sh("echo two > a/g && chmod 600 a/g && setfattr -n user.shape -v round a/g");
        let told = rig.boto(&format!(
            "k = conn.get_bucket('{bucket}').get_key('a/g')\n\
             print(k.get_contents_as_string(encoding='utf-8').strip(), k.metadata['mode'], k.metadata['shape'])"
        ));
        assert_eq!(told, "two 33152 round\n");
    });
}
