//! ACLs: of many files at once, by `dreamfs acl`.

use crate::harness::{How, Kind, Mount, WITH_ACL, on};

/// `dreamfs acl`: (whether it succeeded, what it printed, what it complained of).
fn acl(mount: &Mount, arguments: &[&str]) -> (bool, String, String) {
    let output = mount.dreamfs(&[&["acl"], arguments].concat());
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    (output.status.success(), text(&output.stdout), text(&output.stderr))
}

/// `acl set -R` reaches every file and marker; a second run changes nothing and asks once for each; `--dry-run` shows what
/// would be changed and changes nothing.
#[test]
fn many_files_are_changed_at_once() {
    on(WITH_ACL, "many_files_are_changed_at_once", |rig| {
        let bucket = rig.bucket();
        rig.boto(&format!(
            "b = conn.get_bucket('{bucket}')\nb.new_key('t/d/').set_contents_from_string('')\n\
             for n in range(300): b.new_key('t/%s/f%03d' % ('de'[n % 2], n)).set_contents_from_string('x')"
        ));
        let mount = Mount::new(rig, Some(&bucket));
        let tree = mount.path.join("t").display().to_string();
        let public = || {
            let count = "sum(1 for k in conn.get_bucket('{}').list() if len(k.get_acl().acl.grants) == 2)";
            rig.boto(&format!("print({})", count.replace("{}", &bucket))).trim().to_owned()
        };
        let (good, shown, words) = acl(&mount, &["set", "-R", "--dry-run", "public-read", &tree]);
        assert!(good && words.is_empty(), "{words}");
        assert!(shown.lines().all(|line| line.ends_with(": private -> public-read")), "{shown}");
        assert_eq!((shown.lines().count(), public().as_str()), (301, "0"), "300 files and a marker");

        let first =
            mount.cost(|| assert_eq!(acl(&mount, &["set", "-R", "public-read", &tree]), (true, "".into(), "".into())));
        assert_eq!((first["PutAcl"], public().as_str()), (301, "301"), "{first:?}");
        let again = mount.cost(|| assert!(acl(&mount, &["set", "-R", "public-read", &tree]).0));
        assert!(again["GetAcl"] == 301 && !again.contains_key("PutAcl"), "{again:?}");
        mount.sh("setfattr -n user.s3.acl -v private t/e/f001");
        let rest = mount.cost(|| assert!(acl(&mount, &["set", "-R", "public-read", &tree]).0));
        assert_eq!(rest["PutAcl"], 1, "{rest:?}");
        let (good, shown, _) = acl(&mount, &["get", "-R", &tree]);
        assert!(good && shown.matches("# acl: public-read\n").count() == 301, "{shown}");
        let files: Vec<&str> = shown.lines().filter(|line| line.starts_with("# file:")).collect();
        assert!(files.is_sorted(), "{files:?}");
    });
}

/// What fails is named, the rest is done, and the status tells.
#[test]
fn what_cannot_be_changed_is_named() {
    on(WITH_ACL, "what_cannot_be_changed_is_named", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("mkdir d && touch d/a d/b d/c");
        let tree = mount.path.join("d").display().to_string();
        let (good, _, words) = acl(&mount, &["set", "-R", "READ id=nobody-has-this-id", &tree]);
        assert!(!good && words.lines().count() == 5, "{words}");
        for name in ["d", "d/a", "d/b", "d/c"] {
            let path = mount.path.join(name).display().to_string();
            assert!(words.contains(&format!("dreamfs: {path}: Invalid argument.")), "{words}");
        }
        assert!(words.contains("0 changed, 4 failed."), "{words}");
        let missing = mount.path.join("missing").display().to_string();
        let (good, _, words) =
            acl(&mount, &["set", "public-read", &format!("{tree}/a"), &missing, &format!("{tree}/c")]);
        assert!(
            !good && words == format!("dreamfs: {missing}: No such file or directory. Check the path.\n"),
            "{words}"
        );
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.acl d/a d/c 2> /dev/null"), "public-readpublic-read");
    });
}

/// Where objects have their bucket's ACL, that one is read, may be "set", and any other is refused with advice.
#[test]
fn a_bucket_wide_acl_is_read_and_set_on_the_bucket() {
    on(&[Kind::B2], "a_bucket_wide_acl_is_read_and_set_on_the_bucket", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::with(rig, &How::default());
        let top = mount.path.join(&bucket).display().to_string();
        mount.sh(&format!("echo x > {bucket}/f && mkdir {bucket}/d && touch {bucket}/d/g"));
        let (good, _, words) = acl(&mount, &["set", "public-read", &format!("{top}/f")]);
        assert!(!good && words.contains("ACLs for buckets only"), "{words}");
        assert_eq!(acl(&mount, &["set", "-R", "private", &top]), (true, "".into(), "".into()), "it is what they have");
        assert_eq!(acl(&mount, &["set", "public-read", &top]), (true, "".into(), "".into()));
        let (good, _, words) = acl(&mount, &["set", "private", &format!("{top}/f")]);
        assert!(!good && words.contains("ACLs for buckets only"), "what was theirs before is no more: {words}");
        let (good, shown, _) = acl(&mount, &["get", "-R", &top]);
        assert!(good && shown.matches("# acl: public-read\n").count() >= 3, "{shown}");
        let grants = rig.boto(&format!("print(len(conn.get_bucket('{bucket}').get_acl().acl.grants))"));
        assert_eq!(grants.trim(), "2");
        rig.boto(&format!("conn.get_bucket('{bucket}').set_canned_acl('private')"));
        assert!(acl(&mount, &["set", "private", &format!("{top}/f")]).0, "another client's change counts at once");
    });
}

/// `dreamfs stat` shows all there is, to people and to programs.
#[test]
fn stat_shows_all_there_is() {
    on(&[Kind::Rgw, Kind::Embedded, Kind::B2], "stat_shows_all_there_is", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f.css && chmod 640 f.css && setfattr -n user.colour -v blue f.css && touch -d '2001-02-03 04:05:06.5 UTC' f.css");
        let (file, root) = (mount.path.join("f.css").display().to_string(), mount.path.display().to_string());
        let told = mount.dreamfs(&["stat", "--json", &file, &root]);
        assert!(told.status.success(), "{told:?}");
        let text = String::from_utf8(told.stdout).expect("UTF-8");
        let told: Vec<serde_json::Value> = text.lines().map(|line| serde_json::from_str(line).expect("JSON")).collect();
        let [file_told, root_told] = &told[..] else { panic!("two lines: {text}") };
        let wanted = [
            ("/kind", "file"),
            ("/mode", "0640"),
            ("/modified", "2001-02-03T04:05:06.5Z"),
            ("/s3/key", "f.css"),
            ("/s3/bucket", &bucket),
            ("/s3/content_type", "text/css"),
            ("/s3/acl", "private"),
            ("/s3/upload", "stored"),
            ("/attributes/user.colour", "blue"),
        ];
        for (at, value) in wanted {
            assert_eq!(file_told.pointer(at).and_then(|told| told.as_str()), Some(value), "{at}: {file_told}");
        }
        assert_eq!((&file_told["size"], file_told["s3"]["grants"].as_array().map(Vec::len)), (&2.into(), Some(1)));
        let created = rig
            .boto(&format!("print([b.creation_date[:19] for b in conn.get_all_buckets() if b.name == '{bucket}'][0])"));
        assert!(
            root_told["s3"]["created"].as_str().is_some_and(|told| told.starts_with(created.trim())),
            "{root_told}"
        );
        let shown = mount.dreamfs(&["stat", &file]);
        let shown = String::from_utf8(shown.stdout).expect("UTF-8");
        for line in
            ["kind ", "etag ", "grants ", "url ", "user.colour    blue", "modified       2001-02-03 04:05:06 UTC"]
        {
            assert!(shown.lines().any(|found| found.starts_with(line)), "{line}: {shown}");
        }
    });
}
