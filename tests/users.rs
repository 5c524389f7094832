//! Ordinary users, and users beside each other.

use crate::harness::{How, Kind, Mount, on, try_sh_as};

/// Users of the tests: nobody and daemon, which every distribution has. fusermount3 wants a name for who mounts.
const MOUNTER: u32 = 65_534;
const OTHER: u32 = 1;

fn is_root() -> bool {
    std::fs::metadata("/proc/self").map(|metadata| std::os::unix::fs::MetadataExt::uid(&metadata) == 0).unwrap_or(false)
}

/// An ordinary user mounts through fusermount3, works and unmounts.
#[test]
fn an_ordinary_user_mounts_works_and_unmounts() {
    if !is_root() {
        println!("skipped: an_ordinary_user_mounts_works_and_unmounts: only root can become another user");
        return;
    }
    on(&[Kind::Rgw, Kind::Embedded], "an_ordinary_user_mounts_works_and_unmounts", |rig| {
        let bucket = rig.bucket();
        let mut mount = Mount::with(rig, &How { bucket: Some(&bucket), uid: Some(MOUNTER), ..How::default() });
        let (status, words) = mount.try_sh(
            "mkdir d && echo x > d/f && chmod 600 d/f && mv d/f d/g && cat d/g && ln -s g d/l && cat d/l && \
             stat -c '%u %a' d/g && rm -r d",
        );
        assert_eq!((status, words.as_str()), (0, "x\nx\n65534 600\n"));
        let (gone, words, well) = mount.umount();
        assert!(gone && well, "{words}");
    });
}

/// With allow_other a second user is held to the modes, and gets no signed link.
#[test]
fn a_second_user_is_held_to_the_modes_and_gets_no_signed_link() {
    if !is_root() {
        println!(
            "skipped: a_second_user_is_held_to_the_modes_and_gets_no_signed_link: only root can become another user"
        );
        return;
    }
    on(&[Kind::Rgw, Kind::Embedded], "a_second_user_is_held_to_the_modes_and_gets_no_signed_link", |rig| {
        let bucket = rig.bucket();
        let how = How { bucket: Some(&bucket), uid: Some(MOUNTER), flags: &["--allow-other"], ..How::default() };
        let mount = Mount::with(rig, &how);
        let (status, words) = mount.try_sh("echo mine > mine && chmod 600 mine && echo all > all && chmod 666 all");
        assert_eq!(status, 0, "{words}");
        let other = |line: &str| try_sh_as(&mount.path, line, Some(OTHER));
        assert_eq!(other("cat all"), (0, "all\n".to_owned()));
        assert!(other("cat mine").1.contains("Permission denied"));
        assert!(other("echo x > new").1.contains("Permission denied"), "the root is not theirs to write");
        let (status, words) = other("getfattr --only-values -n user.s3.signed_url all");
        assert!(status != 0 && words.contains("not permitted"), "{words}");
        let (status, words) = other("setfattr -n user.s3.acl -v public-read all");
        assert!(status != 0 && words.contains("not permitted"), "{words}");
        assert_eq!(mount.try_sh("getfattr --only-values -n user.s3.signed_url all > /dev/null").0, 0);
    });
}
