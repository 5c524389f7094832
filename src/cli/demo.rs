//! `dreamfs demo`: the embedded store and a mount of it, a walk through the examples of the store's manual, and then a
//! folder to play with. Needs no account; the keys never leave this machine.

use std::ffi::OsString;
use std::io::{self, IsTerminal, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Child, ExitCode, Stdio};

use tokio::signal::unix::{SignalKind, signal};

use super::args::Demo;
use super::complain;
use super::mount::start_daemon;
use crate::clock::Clock;
use crate::config::{self, Environment, folders};
use crate::fuse::host;
use crate::serve::{self, Config, Profile, Server, User};

/// The examples: what one would say, and the command.
const STEPS: &[(&str, &str)] = &[
    ("Make a bucket: a directory at the top", "mkdir my-new-bucket"),
    ("List the buckets with their dates", "ls -l"),
    ("Make an object", "echo 'Hello World!' > my-new-bucket/hello.txt"),
    ("List a bucket: name, size, date", "ls -l my-new-bucket"),
    ("Read it back", "cat my-new-bucket/hello.txt"),
    ("Its ACL is private", "getfattr --only-values -n user.s3.acl my-new-bucket/hello.txt; echo"),
    (
        "So a stranger gets nothing",
        "curl -s -o /dev/null -w '%{http_code}\\n' \"$(getfattr --only-values -n user.s3.url my-new-bucket/hello.txt)\"",
    ),
    ("Make it public", "setfattr -n user.s3.acl -v public-read my-new-bucket/hello.txt"),
    (
        "Now its plain link works for everyone",
        "curl -fsS \"$(getfattr --only-values -n user.s3.url my-new-bucket/hello.txt)\"",
    ),
    (
        "A secret stays private, and a signed link lends it for an hour",
        "echo 'the plans' > my-new-bucket/secret_plans.txt",
    ),
    (
        "Open the signed link as a stranger",
        "curl -fsS \"$(getfattr --only-values -n user.s3.signed_url my-new-bucket/secret_plans.txt)\"",
    ),
    (
        "Copy, rename, append, delete: ordinary tools",
        "cp my-new-bucket/hello.txt my-new-bucket/copy.txt && mv my-new-bucket/copy.txt my-new-bucket/moved.txt && echo again >> my-new-bucket/moved.txt && cat my-new-bucket/moved.txt",
    ),
    ("A bucket that is not empty is not deleted", "rmdir my-new-bucket; test -d my-new-bucket"),
    ("Delete an object", "rm my-new-bucket/moved.txt"),
    ("Delete a bucket with all that is in it", "rm -r my-new-bucket && ls -l"),
];

/// What the steps need beside a shell and coreutils, each with the package that has it.
const TOOLS: [(&str, &str); 3] = [("setfattr", "attr"), ("getfattr", "attr"), ("curl", "curl")];

/// Runs `dreamfs demo`.
pub fn run(args: Demo) -> ExitCode {
    let environment = Environment::current();
    if let Some((tool, package)) = TOOLS.iter().find(|(tool, _)| !environment.has_program(tool)) {
        return complain(&format!("the demo shows {tool}, which is not installed. Run: apt install {package}"));
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("the demo cannot start its threads: {error}. Try again later")),
    };
    match runtime.block_on(show(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why),
    }
}

/// The folders of a demo.
struct Place {
    folder: PathBuf,
    mountpoint: PathBuf,
    /// Whether the folder was named by the user, who keeps it.
    kept: bool,
}

impl Place {
    fn make(named: Option<PathBuf>) -> io::Result<Self> {
        let kept = named.is_some();
        let folder = match named {
            Some(folder) => folder,
            None => folders::make_scratch()?,
        };
        folders::make_folder(&folder.join("mnt"))?;
        let folder = config::absolute(&folder)?;
        Ok(Place { mountpoint: folder.join("mnt"), folder, kept })
    }

    /// Removes what was made. A mountpoint that is still in use is left, with all that lies beside it.
    fn clean(&self) -> Result<(), String> {
        if self.kept {
            return Ok(());
        }
        let removed = folders::remove_empty(&self.mountpoint).and_then(|()| folders::remove_folder(&self.folder));
        removed.map_err(|error| format!("{0} cannot be removed: {error}. Run: rm -r {0}", self.folder.display()))
    }
}

async fn show(args: Demo) -> Result<(), String> {
    let place =
        Place::make(args.directory).map_err(|error| format!("no folder for the demo: {error}. Name another"))?;
    let result = in_place(&place, args.once).await;
    let cleaned = place.clean();
    result.and(cleaned)
}

async fn in_place(place: &Place, once: bool) -> Result<(), String> {
    let data = place.folder.join("data");
    let keys =
        serve::own_keys(&data).map_err(|error| format!("the demo's data cannot be kept: {error}. Name another"))?;
    let server = start(data, &keys).await?;
    let result = with_mount(&server, place, &keys, once).await;
    server.stop().await;
    result
}

async fn start(data_dir: PathBuf, (access_key, secret_key): &(String, String)) -> Result<Server, String> {
    let user = User {
        id: "demo".to_owned(),
        name: "demo".to_owned(),
        email: None,
        access_key: access_key.clone(),
        secret_key: secret_key.clone(),
    };
    let config = Config {
        data_dir,
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        profile: Profile::Rgw,
        users: vec![user],
        copy_bytes_max: serve::COPY_BYTES_MAX,
        part_bytes_min: serve::PART_BYTES_MIN,
        clock: Clock::system(),
    };
    serve::start(config).await.map_err(|error| format!("the embedded store does not start: {error}. Try again"))
}

async fn with_mount(server: &Server, place: &Place, keys: &(String, String), once: bool) -> Result<(), String> {
    let mut interrupt = signal(SignalKind::interrupt()).map_err(|error| format!("no signals: {error}. Try again"))?;
    let daemon = mount(server, place, keys).await?;
    let shown = place.mountpoint.display();
    say(&format!("An S3 store runs at {}. It is mounted on {shown}, where these commands run:", server.endpoint()));
    let walked = tokio::select! {
        walked = walk(&place.mountpoint) => walked,
        _ = interrupt.recv() => Err("interrupted. Run it again to see all".to_owned()),
    };
    if walked.is_ok() && !once {
        say(&format!("That was all. The mount stays to play with: cd {shown}\nCtrl-C ends the demo."));
        interrupt.recv().await;
    }
    walked.and(unmount(daemon, place.mountpoint.clone()).await)
}

/// Mounts every bucket by a process of its own; the keys go by the environment, never by the command line.
async fn mount(server: &Server, place: &Place, keys: &(String, String)) -> Result<Child, String> {
    let state = place.folder.join("state");
    let endpoint = server.endpoint();
    let words = ["mount".as_ref(), "--endpoint".as_ref(), endpoint.as_ref(), "--state".as_ref(), state.as_os_str()];
    let words: Vec<OsString> = words.into_iter().chain([place.mountpoint.as_os_str()]).map(OsString::from).collect();
    let (access_key, secret_key) = keys.clone();
    let started = tokio::task::spawn_blocking(move || {
        // A token of the caller's does not belong to these keys; an empty one counts as none.
        let token = ("AWS_SESSION_TOKEN", "");
        let keys = [("AWS_ACCESS_KEY_ID", access_key.as_str()), ("AWS_SECRET_ACCESS_KEY", secret_key.as_str()), token];
        start_daemon(&words, &keys)
    });
    started.await.map_err(|_| "the mount failed inside. Try again".to_owned())?
}

/// Detaches the mount, so that a shell that stands in it does not keep the demo, and waits until all is stored.
async fn unmount(mut daemon: Child, mountpoint: PathBuf) -> Result<(), String> {
    let ended = tokio::task::spawn_blocking(move || {
        let unmounted = host::unmount(&mountpoint, true);
        let ended = unmounted.and_then(|()| daemon.wait());
        ended.map_err(|error| format!("{0} stays mounted: {error}. Run: dreamfs umount {0}", mountpoint.display()))
    });
    match ended.await.map_err(|_| "the unmount failed inside. Try again".to_owned())?? {
        status if status.success() => Ok(()),
        status => Err(format!("the mount ended with {status}. Look into the system's log")),
    }
}

async fn walk(mountpoint: &Path) -> Result<(), String> {
    for (words, command) in STEPS {
        say(words);
        show_command(command);
        let mut shell = tokio::process::Command::new("/bin/sh");
        let status = shell.args(["-c", command]).current_dir(mountpoint).stdin(Stdio::null()).status();
        match status.await {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("this step failed ({status}): {command}. Run it again with --once")),
            Err(error) => return Err(format!("/bin/sh cannot be run: {error}. Install it")),
        }
    }
    Ok(())
}

fn say(words: &str) {
    println!("\n{words}");
}

fn show_command(command: &str) {
    if stdout().is_terminal() { println!("  \x1b[1m$ {command}\x1b[0m") } else { println!("  $ {command}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_example_of_the_manual_is_walked_through() {
        let all: Vec<&str> = STEPS.iter().map(|(_, command)| *command).collect();
        for needed in
            ["mkdir", "ls -l", "echo 'Hello World!'", "user.s3.acl -v public-read", "user.s3.signed_url", "rm -r"]
        {
            assert!(all.iter().any(|command| command.contains(needed)), "{needed}");
        }
    }
}
