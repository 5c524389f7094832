//! Every attribute of `user.s3` on every kind of store: what it tells, what it takes, and what comes of it, with boto 2
//! as the witness of what lies in the bucket and bob of what it lets others do.

use crate::harness::{ALL, How, Kind, Mount, Rig, WITH_ACL, on};

/// What reading or setting comes to.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Comes<'a> {
    /// A value in which this stands; `=` before it: this value.
    To(&'a str),
    /// ENODATA.
    NoData,
    /// EOPNOTSUPP.
    Unsupported,
    /// EPERM.
    NotPermitted,
    /// EINVAL.
    Invalid,
}
use Comes::*;

impl Comes<'_> {
    fn check(self, what: &str, (status, words): (i32, String)) {
        let wanted = match self {
            To(_) => "",
            NoData => "No such attribute",
            Unsupported => "Operation not supported",
            NotPermitted => "Operation not permitted",
            Invalid => "Invalid argument",
        };
        match self {
            To(value) => {
                let told = value.strip_prefix('=').map_or(words.contains(value), |value| words == value);
                assert!(status == 0 && told, "{what}: {words:?}, not {self:?}");
            }
            _ => assert!(status != 0 && words.contains(wanted), "{what}: {words:?}, not {self:?}"),
        }
    }
}

/// Reads, sets and reads a name again. A value that was taken is told afterwards.
fn row(mount: &Mount, path: &str, (name, told, value, taken): (&str, Comes, &str, Comes)) {
    let what = format!("user.s3.{name} of {path}");
    let get = || mount.try_sh(&format!("getfattr --only-values -n user.s3.{name} {path}"));
    told.check(&what, get());
    let set = mount.try_sh(&format!("setfattr -n user.s3.{name} -v \"$(printf '{value}')\" {path}"));
    taken.check(&format!("{what} = {value:?}"), set);
    if let To("") = taken {
        mount.sh(&format!("setfattr -n user.s3.refresh -v 1 {path}"));
        // Stores keep grants and tags in an order of their own.
        let sorted = |text: &str| {
            let mut lines: Vec<String> = text.lines().map(str::to_owned).collect();
            lines.sort();
            lines
        };
        assert_eq!(sorted(&get().1), sorted(&value.replace("\\n", "\n")), "{what}");
    } else {
        told.check(&format!("{what}, which did not change"), get());
    }
}

/// What boto finds in an ACL.
fn grants(rig: &Rig, bucket: &str, key: &str) -> String {
    let acl = if key.is_empty() { "get_acl()".to_owned() } else { format!("get_key('{key}').get_acl()") };
    let line = "print(sorted((str(g.id or g.uri or g.email_address).split('/')[-1], g.permission) for g in";
    rig.boto(&format!("{line} conn.get_bucket('{bucket}').{acl}.acl.grants))")).trim().to_owned()
}

/// The table, for a file, a directory's marker and a bucket.
#[test]
fn every_attribute_is_told_and_taken_as_the_table_says() {
    for (kind, has_acl) in [(Kind::Rgw, true), (Kind::Embedded, true), (Kind::B2, false)] {
        let Some(rig) = Rig::start(kind, "every_attribute_is_told_and_taken_as_the_table_says") else { continue };
        let bucket = rig.bucket();
        let mount = Mount::with(&rig, &How { flags: &["--region", "eu-1"], ..How::default() });
        let (file, directory) = (format!("{bucket}/f.css"), format!("{bucket}/d"));
        mount.sh(&format!(
            "echo x > {file} && mkdir {directory} && touch {directory}/in && setfattr -n user.a -v b {directory}"
        ));
        let where_acls = if has_acl { To("") } else { Unsupported };
        let bucket_is = format!("={bucket}");
        let mut own = mount.sh(&format!("getfattr --only-values -n user.s3.grants {file}"));
        own.push_str("\\nREAD group=AuthenticatedUsers");
        let content = if has_acl { "text/x-mine" } else { "text/other" };
        let of_objects = [
            ("bucket", To(&bucket_is), "x", NotPermitted),
            ("etag", To(""), "x", NotPermitted),
            ("owner", To("=alice"), "bob", NotPermitted),
            ("version_id", NoData, "x", NotPermitted),
            ("upload", To("=stored"), "x", NotPermitted),
            ("acl", To("=private"), "public-read", where_acls),
            ("grants", To("FULL_CONTROL id=alice"), own.as_str(), where_acls),
            ("tags", NoData, "project=apollo\\nb c=1", where_acls),
            ("restore", NoData, "soon", Invalid),
            ("created", NoData, "1", NotPermitted),
            ("region", NoData, "1", NotPermitted),
            ("nonsense", NoData, "1", NotPermitted),
        ];
        let of_files = [
            ("key", To("=f.css"), "x", NotPermitted),
            ("content_type", To("=text/css"), content, To("")),
            ("cache_control", NoData, "max-age=60", To("")),
            ("content_disposition", NoData, "inline", To("")),
            ("content_encoding", NoData, "identity", To("")),
            ("content_language", NoData, "de", To("")),
            ("storage_class", To("=STANDARD"), "STANDARD", To("")),
            ("encryption", NoData, "ROT13", Invalid),
            ("url", To("/f.css"), "x", NotPermitted),
            ("signed_url", To("Signature="), "x", NotPermitted),
            ("signed_url.60", To("Expires=60"), "x", NotPermitted),
            ("signed_url.soon", Invalid, "x", NotPermitted),
        ];
        let of_directories = [
            ("key", To("=d/"), "x", NotPermitted),
            ("content_type", To("=application/x-directory"), "a/b", Unsupported),
            ("storage_class", To("=STANDARD"), "STANDARD", Unsupported),
            ("encryption", NoData, "AES256", Unsupported),
            ("url", NoData, "x", NotPermitted),
            ("signed_url", NoData, "x", NotPermitted),
        ];
        let of_buckets = [
            ("bucket", To(&bucket_is), "x", NotPermitted),
            ("owner", To("=alice"), "bob", NotPermitted),
            ("acl", To("=private"), "public-read", To("")),
            ("created", To("20"), "x", NotPermitted),
            ("region", To("=eu-1"), "x", NotPermitted),
            ("key", NoData, "x", NotPermitted),
            ("etag", NoData, "x", NotPermitted),
            ("upload", NoData, "x", NotPermitted),
            ("tags", NoData, "a=1", Unsupported),
            ("content_type", NoData, "a/b", Unsupported),
            ("url", NoData, "x", NotPermitted),
        ];
        of_objects.iter().chain(&of_files).for_each(|one| row(&mount, &file, *one));
        // What was set on the file is not on the directory, which is no archived object either.
        let of_markers = of_objects.iter().filter(|row| row.0 != "restore").chain(&of_directories);
        of_markers.for_each(|one| row(&mount, &directory, *one));
        of_buckets.iter().for_each(|one| row(&mount, &bucket, *one));

        let shown = "[('AuthenticatedUsers', 'READ'), ('alice', 'FULL_CONTROL')]";
        let headers = rig.boto(&format!(
            "k = conn.get_bucket('{bucket}').get_key('f.css')\n\
             print(k.content_type, k.cache_control, k.content_disposition, k.content_encoding, k.content_language)"
        ));
        assert_eq!(headers.trim(), format!("{content} max-age=60 inline identity de"));
        if has_acl {
            assert_eq!((grants(&rig, &bucket, "f.css"), grants(&rig, &bucket, "d/")), (shown.into(), shown.into()));
            let tags = "print(conn.make_request('GET', '{}', 'f.css', query_args='tagging').read().decode())";
            let tags = rig.boto(&tags.replace("{}", &bucket));
            assert!(tags.contains("<Value>apollo</Value>") && tags.contains("<Key>b c</Key>"), "{tags}");
        }
        let of_all = "[('AllUsers', 'READ'), ('alice', 'FULL_CONTROL')]";
        assert_eq!(grants(&rig, &bucket, ""), of_all);
        assert_eq!(mount.sh(&format!("getfattr -d {file} {bucket}")), "", "they are in no listing");
    }
}

/// What bob can do with `key`: read it, read its ACL, change its ACL; `y` and `n`.
fn bob_can(rig: &Rig, bucket: &str, key: &str) -> String {
    rig.boto(&format!(
        "k = bob.get_bucket('{bucket}', validate=False).get_key('{key}', validate=False)\n\
         def can(what):\n  \
           try: what(); return 'y'\n  \
           except boto.exception.S3ResponseError as e: assert e.status == 403, e; return 'n'\n\
         x = conn.get_bucket('{bucket}').get_key('{key}').get_xml_acl().decode()\n\
         print(can(lambda: k.get_contents_as_string()) + can(lambda: k.get_acl()) + can(lambda: k.set_xml_acl(x)))"
    ))
    .trim()
    .to_owned()
}

/// Each permission, by each way to name bob, lets him do what it says, and nothing once it is taken back.
#[test]
fn bob_may_what_he_is_granted_and_no_longer() {
    on(WITH_ACL, "bob_may_what_he_is_granted_and_no_longer", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f");
        let set = |name: &str, value: &str| mount.sh(&format!("setfattr -n user.s3.{name} -v '{value}' f"));
        assert_eq!(bob_can(rig, &bucket, "f"), "nnn", "denied before");
        let ways = [
            ("READ id=bob", "ynn"),
            ("READ_ACP id=bob", "nyn"),
            ("WRITE_ACP id=bob", "nny"),
            ("FULL_CONTROL id=bob", "yyy"),
            ("READ id=bob\nREAD_ACP id=bob", "yyn"),
            ("READ group=AllUsers", "ynn"),
            ("READ group=AuthenticatedUsers", "ynn"),
        ];
        for (granted, can) in ways {
            set("grants", &format!("FULL_CONTROL id=alice\n{granted}"));
            assert_eq!(bob_can(rig, &bucket, "f"), can, "{granted}");
            set("acl", "private");
            assert_eq!(bob_can(rig, &bucket, "f"), "nnn", "taken back: {granted}");
            assert_eq!(grants(rig, &bucket, "f"), "[('alice', 'FULL_CONTROL')]");
        }
        for (canned, can) in [("public-read", "ynn"), ("public-read-write", "ynn"), ("authenticated-read", "ynn")] {
            set("acl", canned);
            assert_eq!(bob_can(rig, &bucket, "f"), can, "{canned}");
        }
        set("acl", "private");
        assert_eq!(bob_can(rig, &bucket, "f"), "nnn", "denied again");
    });
}

/// The same of a bucket: who may list it, and who may store in it. On a B2-like store its ACL is its objects', too.
#[test]
fn a_buckets_acl_lets_others_in() {
    on(ALL, "a_buckets_acl_lets_others_in", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::with(rig, &How::default());
        mount.sh(&format!("echo x > {bucket}/f"));
        let stranger =
            |at: &str| mount.sh(&format!("curl -s -o /dev/null -w '%{{http_code}}' '{}/{bucket}{at}'", rig.endpoint));
        let set = |value: &str| drop(mount.sh(&format!("setfattr -n user.s3.acl -v {value} {bucket}")));
        let has_object_acl = mount.try_sh(&format!("setfattr -n user.s3.acl -v public-read {bucket}/f")).0 == 0;
        mount.try_sh(&format!("setfattr -n user.s3.acl -v private {bucket}/f"));
        assert_eq!((stranger(""), stranger("/f")), ("403".into(), "403".into()), "denied before");
        set("public-read");
        let of_object = if has_object_acl { "403" } else { "200" };
        assert_eq!((stranger(""), stranger("/f")), ("200".into(), of_object.into()), "allowed after");
        set("private");
        assert_eq!((stranger(""), stranger("/f")), ("403".into(), "403".into()), "denied again");
        if has_object_acl {
            let list = format!("print([k.name for k in bob.get_bucket('{bucket}', validate=False).list()])");
            let grants = format!("setfattr -n user.s3.grants -v 'FULL_CONTROL id=alice\nREAD id=bob' {bucket}");
            mount.sh(&grants);
            assert_eq!(rig.boto(&list).trim(), "['f']");
        }
    });
}

/// An address is an account to the store, which tells its id from then on.
#[test]
fn a_grant_by_address_is_one_to_the_account() {
    on(&[Kind::Embedded], "a_grant_by_address_is_one_to_the_account", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f && setfattr -n user.s3.grants -v 'FULL_CONTROL id=alice\nREAD email=bob@example.com' f");
        assert_eq!(grants(rig, &bucket, "f"), "[('alice', 'FULL_CONTROL'), ('bob', 'READ')]");
        mount.sh("setfattr -n user.s3.refresh -v 1 f && chmod 600 f && sync f");
        assert_eq!(grants(rig, &bucket, "f"), "[('alice', 'FULL_CONTROL'), ('bob', 'READ')]");
    });
}

/// Lines of the log that tell of this call, warnings alone unless asked for more.
fn lines_about(log: &str, call: &str, also_debug: bool) -> Vec<String> {
    let is_told = |line: &&str| line.contains(" WARN ") || also_debug && line.contains(" DEBUG ");
    log.lines().filter(is_told).filter(|line| line.contains(call)).map(str::to_owned).collect()
}

/// Bad input is refused with its errno and one line of the log that says what is valid, or what the store said; and
/// nothing changes.
#[test]
fn bad_input_is_refused_in_one_line() {
    on(WITH_ACL, "bad_input_is_refused_in_one_line", |rig| {
        let bucket = rig.bucket();
        let flags = &["--log", "debug", "--ttl", "60s"];
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        mount.sh("echo x > f && mkdir d && touch d/in && setfattr -n user.s3.acl -v public-read f && sync d");
        let before = grants(rig, &bucket, "f");
        let many = "READ id=bob\n".repeat(200);
        let rows = [
            ("acl", "publik", "Invalid argument", "valid are private, public-read,"),
            ("acl", "public-read\nprivate", "Invalid argument", "valid are"),
            ("acl", "", "Invalid argument", "valid are"),
            ("grants", "READ bob", "Invalid argument", "a line is PERMISSION GRANTEE"),
            ("grants", "OWN id=bob", "Invalid argument", "\"OWN id=bob\" is no grant"),
            ("grants", "READ id=nobody-has-this-id", "Invalid argument", "PutAcl"),
            ("grants", &many, "Invalid argument", "PutAcl"),
            ("tags", "colour", "Invalid argument", "lines KEY=VALUE"),
            ("tags", "a=1\na=2", "Invalid argument", "twice"),
            ("content_type", "a\nb", "Invalid argument", "without line breaks"),
            ("etag", "1", "Operation not permitted", "user.s3.etag cannot be set"),
        ];
        for (name, value, wanted, line) in rows {
            let logged = mount.log().len();
            let (status, words) = mount.try_sh(&format!("setfattr -n user.s3.{name} -v \"$(printf '{value}')\" f"));
            assert!(status != 0 && words.contains(wanted), "{name}={value}: {words}");
            // Standard error comes through a pipe: a second call, and its line, come after the first one's.
            mount.try_sh("setfattr -n user.s3.acl -v after f");
            crate::harness::wait_for("both lines", std::time::Duration::from_secs(10), || {
                mount.log()[logged..].contains("\"after\"")
            });
            let mut told = lines_about(&mount.log()[logged..], "", false);
            told.retain(|line| !line.contains("\"after\""));
            assert!(told.len() == 1 && told[0].contains(line), "{name}={value}: {told:?}");
        }
        assert_eq!(grants(rig, &bucket, "f"), before);
        for name in ["url", "signed_url"] {
            let logged = mount.log().len();
            let url = mount.try_sh(&format!("getfattr -n user.s3.{name} d"));
            assert!(url.1.contains("No such attribute"), "{url:?}");
            crate::harness::wait_for("its line", std::time::Duration::from_secs(10), || {
                let about = lines_about(&mount.log()[logged..], "only files have links", true);
                about.last().is_some_and(|line| line.contains("getxattr d "))
            });
            let told = lines_about(&mount.log()[logged..], "d: only files have links", false);
            assert_eq!(told.len(), 1, "one line each: {told:?}");
        }
        let told = mount.dreamfs(&["stat", &mount.path.join("d").display().to_string()]);
        assert!(told.status.success());
        assert_eq!(lines_about(&mount.log(), "d: only files have links", false).len(), 2, "stat asks for none");
        rig.boto(&format!("conn.get_bucket('{bucket}').delete_key('f')"));
        let (status, words) = mount.try_sh("setfattr -n user.s3.acl -v private f");
        assert!(status != 0 && words.contains("No such file"), "deleted by another client: {words}");
        crate::harness::wait_for("its line", std::time::Duration::from_secs(10), || {
            lines_about(&mount.log(), "setxattr f ", false).last().is_some_and(|line| line.contains("NoSuchKey"))
        });

        let flags = &["--read-only"];
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        let (status, words) = mount.try_sh("setfattr -n user.s3.acl -v private d");
        assert!(status != 0 && words.contains("Read-only file system"), "{words}");
    });
}

/// More grants than headers have room for are kept as well.
#[test]
fn grants_over_the_limit_of_headers_are_kept() {
    on(&[Kind::Embedded], "grants_over_the_limit_of_headers_are_kept", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        let long = "0123456789abcdef".repeat(4);
        let many = format!("FULL_CONTROL id=alice\n{}", format!("READ id={long}\n").repeat(90));
        mount.sh(&format!("echo x > f && setfattr -n user.s3.grants -v '{many}' f"));
        let before = grants(rig, &bucket, "f");
        assert!(before.contains(&long), "{before}");
        for road in ["chmod 600 f && sync f", "echo more >> f", "mv f g && mv g f"] {
            mount.sh(road);
            assert_eq!(grants(rig, &bucket, "f"), before, "{road}");
        }
    });
}

/// What is made below a directory with `user.s3.default_acl` has that ACL from its first byte on; the nearest directory's
/// counts, and `--acl` where none has one.
#[test]
fn a_directorys_default_acl_is_what_is_made_below_it() {
    on(WITH_ACL, "a_directorys_default_acl_is_what_is_made_below_it", |rig| {
        let bucket = rig.bucket();
        let flags = &["--acl", "authenticated-read"];
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        mount.sh("mkdir d && setfattr -n user.s3.default_acl -v public-read d && mkdir -p d/e d/p/q && setfattr -n user.s3.default_acl -v private d/p");
        let files =
            [("f", "authenticated-read"), ("d/f", "public-read"), ("d/e/f", "public-read"), ("d/p/q/f", "private")];
        let make = |what: &str| files.iter().for_each(|(name, _)| drop(mount.sh(&what.replace('%', name))));
        let check = |mount: &Mount, when: &str| {
            for (name, acl) in files {
                assert_eq!(mount.sh(&format!("getfattr --only-values -n user.s3.acl {name}")), acl, "{name} {when}");
            }
        };
        make("echo x > %");
        check(&mount, "as it is made");
        assert_eq!(grants(rig, &bucket, "d/e/f"), "[('AllUsers', 'READ'), ('alice', 'FULL_CONTROL')]");
        make("rm %");
        make("ln -s t %");
        drop(mount);
        // Another mount reads it from the markers.
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        files.iter().for_each(|(name, _)| drop(mount.sh(&format!("rm {name} && head -c 20M /dev/zero > {name}"))));
        check(&mount, "by another mount");
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.default_acl d && getfattr -d d"), "public-read");
        mount.sh("chmod 750 d && sync d && setfattr -n user.s3.refresh -v 1 . && echo x > d/g");
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.acl d/g"), "public-read", "chmod keeps it");
        mount.sh("setfattr -x user.s3.default_acl d && echo x > d/h");
        assert_eq!(mount.sh("getfattr --only-values -n user.s3.acl d/h"), "authenticated-read");
        Invalid.check("publik", mount.try_sh("setfattr -n user.s3.default_acl -v publik d"));
        Unsupported.check("of a file", mount.try_sh("setfattr -n user.s3.default_acl -v private d/h"));
        Unsupported.check("of a bucket", mount.try_sh("setfattr -n user.s3.default_acl -v private ."));
    });
}
