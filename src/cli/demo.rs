//! `dreamfs demo`: the embedded store and a mount of it, a walk through the examples of the store's manual, and then a
//! folder to play with. Needs no account; the keys never leave this machine.

use std::io::{IsTerminal, stdout};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::process::{Child, Command, ExitCode, Stdio};

use tokio::io::AsyncBufReadExt;
use tokio::signal::unix::{SignalKind, signal};

use crate::clock::Clock;
use crate::config;
use crate::fuse::host;
use crate::serve::{self, Config, Profile, Server, User};

use super::args::Demo;
use super::complain;

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

/// Runs `dreamfs demo`.
pub fn run(args: Demo) -> ExitCode {
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => return complain(&format!("no runtime: {error}")),
    };
    match runtime.block_on(show(args)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why),
    }
}

async fn show(args: Demo) -> Result<(), String> {
    let kept = args.directory.is_some();
    let folder = config::demo_folder(args.directory).map_err(|error| format!("no folder for the demo: {error}"))?;
    let mountpoint = folder.join("mnt");
    let keys = serve::own_keys(&folder.join("data")).map_err(|error| format!("no folder for the data: {error}"))?;
    let server = start(&folder, &keys).await?;
    let result = with_mount(&server, &folder, &mountpoint, &keys, args.once).await;
    server.stop().await;
    if !kept {
        config::remove_demo_folder(&folder).map_err(|error| format!("{} stays: {error}", folder.display()))?;
    }
    result
}

async fn start(folder: &Path, keys: &(String, String)) -> Result<Server, String> {
    let user = User {
        id: "demo".to_owned(),
        name: "demo".to_owned(),
        email: None,
        access_key: keys.0.clone(),
        secret_key: keys.1.clone(),
    };
    let config = Config {
        data_dir: folder.join("data"),
        listen: SocketAddr::from((Ipv4Addr::LOCALHOST, 0)),
        profile: Profile::Rgw,
        users: vec![user],
        copy_bytes_max: serve::COPY_BYTES_MAX,
        part_bytes_min: serve::PART_BYTES_MIN,
        clock: Clock::system(),
    };
    serve::start(config).await.map_err(|error| format!("the embedded store does not start: {error}"))
}

async fn with_mount(
    server: &Server,
    folder: &Path,
    mountpoint: &Path,
    keys: &(String, String),
    once: bool,
) -> Result<(), String> {
    let mut daemon = mount(server, folder, mountpoint, keys).await?;
    say(&format!("An S3 store runs on {} and is mounted on {}", server.endpoint(), mountpoint.display()));
    let walked = walk(mountpoint).await;
    if walked.is_ok() && !once {
        say(&format!("Play with {}; Ctrl-C ends the demo", mountpoint.display()));
        let told = async { signal(SignalKind::interrupt())?.recv().await.ok_or(std::io::ErrorKind::BrokenPipe.into()) };
        let _: std::io::Result<()> = told.await;
    }
    let at = mountpoint.to_owned();
    // Detached, so that a shell that stands in the folder does not keep the demo.
    let unmounted = tokio::task::spawn_blocking(move || host::unmount(&at, true)).await;
    let ended = daemon.wait().map_err(|error| error.to_string());
    match (walked, unmounted, ended) {
        (Err(why), _, _) => Err(why),
        (Ok(()), Ok(Ok(())), Ok(status)) if status.success() => Ok(()),
        _ => Err("the mount did not end well".to_owned()),
    }
}

/// Mounts every bucket by a process of its own; the keys go by the environment, never by the command line.
async fn mount(server: &Server, folder: &Path, mountpoint: &Path, keys: &(String, String)) -> Result<Child, String> {
    let program = config::current_program().map_err(|error| error.to_string())?;
    let mut daemon = Command::new(program)
        .args(["mount", "-f", "--ttl", "1s", "--endpoint", &server.endpoint(), "--state"])
        .arg(folder.join("state"))
        .arg(mountpoint)
        .env("AWS_ACCESS_KEY_ID", &keys.0)
        .env("AWS_SECRET_ACCESS_KEY", &keys.1)
        .stdin(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(|error| format!("no process for the mount: {error}"))?;
    let words = daemon.stderr.take().and_then(|stderr| tokio::process::ChildStderr::from_std(stderr).ok());
    let mut lines = words.map(|words| tokio::io::BufReader::new(words).lines()).ok_or("no words from the mount")?;
    match lines.next_line().await {
        Ok(Some(line)) if line.contains("is mounted on") => {}
        Ok(Some(line)) => return Err(line.trim_start_matches("dreamfs: ").to_owned()),
        _ => return Err("the mount ended at once".to_owned()),
    }
    tokio::spawn(async move {
        while let Ok(Some(line)) = lines.next_line().await {
            eprintln!("{line}");
        }
    });
    Ok(daemon)
}

async fn walk(mountpoint: &Path) -> Result<(), String> {
    for (words, command) in STEPS {
        say(words);
        show_command(command);
        let status = tokio::process::Command::new("/bin/sh").args(["-c", command]).current_dir(mountpoint).status();
        match status.await {
            Ok(status) if status.success() => {}
            Ok(status) => return Err(format!("this step failed ({status}): {command}")),
            Err(error) => return Err(format!("no shell: {error}")),
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
