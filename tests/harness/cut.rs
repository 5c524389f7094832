//! A daemon that is killed at each of its requests in turn.

use std::time::Duration;

use tempfile::TempDir;

use super::link::{Fate, Gate};
use super::{How, Mount, Rig, try_sh_as, wait_for};

/// Runs a line of shell in a mount again and again: the daemon is killed at its first request, then at its second, and so
/// on until the line needs no more of them. Before each time the mount is prepared; after it, with another daemon, the
/// check gets that mount, what the line said, and words about the time.
pub fn killed_at_each_request(
    (rig, bucket): (&Rig, &str),
    flags: &[&str],
    fate: Fate,
    line: &str,
    prepare: impl Fn(&Mount),
    check: impl Fn(&Mount, &str, &str),
) {
    let (gate, state) = (Gate::new(&rig.endpoint), TempDir::new().expect("room"));
    let through = Rig::at(gate.endpoint());
    let how = How { bucket: Some(bucket), state: Some(state.path()), flags, ..How::default() };
    let mut mount = Mount::with(&through, &how);
    for requests in 0.. {
        prepare(&mount);
        gate.close_after(requests, fate);
        let (folder, line) = (mount.path.clone(), line.to_owned());
        let about = format!("{line}, after {requests} requests, then {fate:?}");
        let work = std::thread::spawn(move || try_sh_as(&folder, &line, None));
        wait_for(&about, Duration::from_secs(60), || work.is_finished() || gate.holds());
        let is_through = work.is_finished() && !gate.holds();
        mount.kill_9();
        drop(mount);
        let (_, output) = work.join().expect("joined");
        gate.open();
        mount = Mount::with(&through, &how);
        check(&mount, &output, &about);
        if is_through {
            assert!(requests > 0, "{about}: it sends requests");
            return;
        }
    }
}
