//! fsx in a mount: random reads, writes, maps, truncations and copies of one file, checked against what they should give.

use std::path::{Path, PathBuf};
use std::process::Command;

use crate::harness::{How, Kind, Mount, on};

/// What is done how often. Holes cannot be punched here.
const WEIGHTS: &str = "[weights]\nclose_open = 0.5\ninvalidate = 0.5\nmapread = 10.0\nmapwrite = 10.0\nread = 10.0\n\
    write = 10.0\ntruncate = 5.0\nfsync = 0.3\nfdatasync = 0.2\nposix_fallocate = 1.0\nsendfile = 5.0\n\
    posix_fadvise = 1.0\ncopy_file_range = 5.0\n";

/// A file that is one PUT, and one that is stored in parts of which some are copied.
const SMALL: &str = "flen = 262144\n[opsize]\nmax = 65536\n";
const LARGE: &str = "flen = 25165824\n[opsize]\nmax = 12582912\n";

/// The program that `scripts/setup test` installs, or one that is on the path.
fn fsx() -> Option<PathBuf> {
    let installed = Path::new(env!("CARGO_MANIFEST_DIR")).join("target/tools/bin/fsx");
    let found = [installed, PathBuf::from("fsx")].into_iter().find(|program| {
        let asked = Command::new(program).arg("--version").output();
        asked.is_ok_and(|output| output.status.success())
    });
    assert!(found.is_some() || std::env::var("CI").is_err(), "CI must have fsx");
    found
}

fn exercise(test: &str, sizes: &str, short: u32, full: u32) {
    let Some(fsx) = fsx() else { return println!("skipped: {test}: no fsx here (scripts/setup test installs it)") };
    let count = if std::env::var("DREAMFS_TEST_FULL").is_ok() { full } else { short };
    println!("{test}: {count} operations");
    on(&[Kind::Embedded], test, |rig| {
        for flags in [&[][..], &["--write-back"]] {
            let bucket = rig.bucket();
            let mut mount = Mount::with(rig, &How { bucket: Some(&bucket), flags, ..How::default() });
            let config = mount.folder.path().join("fsx.toml");
            std::fs::write(&config, format!("{sizes}{WEIGHTS}")).expect("written");
            let mut command = Command::new(&fsx);
            command.args(["-N", &count.to_string(), "-S", "1", "-f"]).arg(&config).arg("-P").arg(mount.folder.path());
            let output = command.arg(mount.path.join("f")).output().expect("it starts");
            let words = [output.stdout, output.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
            assert!(output.status.success(), "{flags:?}: {}", words.concat());
            assert!(mount.umount().2, "all is stored");
        }
    });
}

/// A file of up to 256 KiB.
#[test]
fn fsx_finds_nothing_in_a_small_file() {
    exercise("fsx_finds_nothing_in_a_small_file", SMALL, 1000, 100_000);
}

/// A file of up to 24 MiB.
#[test]
fn fsx_finds_nothing_in_a_large_file() {
    exercise("fsx_finds_nothing_in_a_large_file", LARGE, 60, 2000);
}
