//! Links: whoever holds one can do what it says, for its time, and nothing else.

use std::path::Path;

use crate::harness::{ALL, How, Mount, WITH_ACL, on};

/// A link by `dreamfs url`.
fn url(mount: &Mount, arguments: &[&str]) -> String {
    let output = mount.dreamfs(&[&["url"], arguments].concat());
    assert!(output.status.success(), "{arguments:?}: {output:?}");
    String::from_utf8(output.stdout).expect("UTF-8").trim_end().to_owned()
}

/// What `dreamfs url` complains of: one line.
fn refused(mount: &Mount, arguments: &[&str], wanted: &str) {
    let output = mount.dreamfs(&[&["url"], arguments].concat());
    let words = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(!output.status.success() && output.stdout.is_empty(), "{arguments:?}");
    assert!(words.contains(wanted) && words.lines().count() == 1, "{arguments:?}: {words}");
}

fn shown(path: &Path) -> &str {
    path.to_str().expect("UTF-8")
}

/// Names that a URL must not bend.
const NAMES: [&str; 6] =
    ["plain.txt", "a b+c.txt", "50%41 ?&#=;.txt", "ümläut 😀.txt", "'quoted' \"twice\"", "~(x)!*$,@:[]"];

/// A link to get gets the bytes and nothing else; one to put stores them, under a name that need not be there.
#[test]
fn a_link_does_what_it_says() {
    on(ALL, "a_link_does_what_it_says", |rig| {
        let bucket = rig.bucket();
        let root = format!("{bucket}/below");
        rig.boto(&format!("conn.get_bucket('{bucket}').new_key('below/d/there').set_contents_from_string('x')"));
        // What was not there is not remembered either.
        let mount = Mount::with(rig, &How { bucket: Some(&root), flags: &["--ttl", "0s"], ..How::default() });
        let status =
            |arguments: &str| mount.try_sh(&format!("curl -gs -o /dev/null -w '%{{http_code}}' {arguments}")).1;
        for name in NAMES {
            let path = mount.path.join("d").join(name);
            let put = url(&mount, &["--method", "put", "--expires", "5m", shown(&path)]);
            assert_eq!(status(&format!("-X PUT -d 'the plans' '{put}'")), "200", "{name}");
            assert_eq!(std::fs::read_to_string(&path).expect("stored"), "the plans", "{name}");
            let get = url(&mount, &[shown(&path)]);
            assert_eq!(mount.sh(&format!("curl -gfsS '{get}'")), "the plans", "{name}");
            assert_eq!(status(&format!("-X PUT -d x '{get}'")), "403", "a link to get puts nothing");
            assert_eq!(status(&format!("'{put}'")), "403", "a link to put gets nothing");
            assert_eq!(status(&format!("'{}'", get.replacen("below", "belov", 1))), "403", "of another key");
        }
        let top = url(&mount, &["--method", "PUT", shown(&mount.path.join("new"))]);
        assert!(top.contains("/below/new?"), "{top}");
        assert_eq!(status(&format!("-X PUT -d top '{top}'")), "200");
        mount.sh("grep -q top new");
    });
}

/// Browsers are told the name under which to keep it.
#[test]
fn a_download_has_the_name_that_was_asked_for() {
    on(ALL, "a_download_has_the_name_that_was_asked_for", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("echo x > f");
        let path = mount.path.join("f");
        for (name, wanted) in
            [("report 1.pdf", "filename=\"report 1.pdf\""), ("übersicht.pdf", "filename*=UTF-8''%C3%BC")]
        {
            let link = url(&mount, &["--download-name", name, shown(&path)]);
            let headers = mount.sh(&format!("curl -gfsS -D - -o /dev/null '{link}'"));
            assert!(headers.contains("attachment; ") && headers.contains(wanted), "{headers}");
        }
    });
}

/// What has no link, and who gets none, is told in one line.
#[test]
fn what_has_no_link_is_told() {
    on(WITH_ACL, "what_has_no_link_is_told", |rig| {
        let bucket = rig.bucket();
        let mount = Mount::new(rig, Some(&bucket));
        mount.sh("mkdir d && echo x > f");
        let (directory, file) = (mount.path.join("d"), mount.path.join("f"));
        refused(&mount, &[shown(&directory)], "Is a directory. Only files have links.");
        refused(&mount, &["--public", shown(&mount.path)], "Is a directory.");
        refused(&mount, &["--method", "PUT", shown(&directory)], "Is a directory.");
        refused(&mount, &[shown(&mount.path.join("none"))], "No such file");
        refused(&mount, &["--method", "PUT", shown(&mount.path.join("none/f"))], "No such file");
        refused(&mount, &["--expires", "8d", shown(&file)], "7 days");
        refused(&mount, &["--expires", "0s", shown(&file)], "7 days");
        refused(&mount, &["/etc/passwd"], "not in a dreamfs mount");
        assert!(url(&mount, &["--expires", "7d", shown(&file)]).contains("Expires=604800"));
        for value in ["604801", "0", "x", ""] {
            let (status, words) = mount.try_sh(&format!("getfattr -n 'user.s3.signed_url.{value}' f"));
            assert!(status != 0 && words.contains("Invalid argument"), "{value}: {words}");
        }
        let signed = url(&mount, &[shown(&file)]);
        let secret = signed.split("Signature=").nth(1).expect("signed");
        assert!(!mount.log().contains(secret), "a link is in no log");
    });
}

/// Where requests are signed by version 2, links are, too.
#[test]
fn a_link_may_have_the_older_signature() {
    on(WITH_ACL, "a_link_may_have_the_older_signature", |rig| {
        let bucket = rig.bucket();
        let flags = &["--signature", "v2"];
        let mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
        mount.sh("echo 'the plans' > 'a b+.txt' && setfattr -n user.s3.acl -v private 'a b+.txt'");
        let link = url(&mount, &["--download-name", "ü.txt", shown(&mount.path.join("a b+.txt"))]);
        assert!(link.contains("AWSAccessKeyId=alicekey&Expires="), "{link}");
        assert_eq!(mount.sh(&format!("curl -gfsS '{link}'")), "the plans\n");
        let other = link.replacen("a%20b", "a%20c", 1);
        let status = mount.try_sh(&format!("curl -gs -o /dev/null -w '%{{http_code}}' '{other}'")).1;
        assert_eq!(status, "403", "of another key");
    });
}
