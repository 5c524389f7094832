//! `dreamfs mount`: checks that need no store, then mounts here (`-f`) or in a process of its own, whose first line
//! tells whether the mount can be used.

use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;

use crate::config::{self, Environment, Typed, options};
use crate::fs;
use crate::fuse::host;
use crate::store::s3;

use super::args::{Addressing, Attrs, Cli, Command as CliCommand, Integrity, Mount};
use super::complain;

/// What the process in the background prints when the mount can be used.
const READY: &str = "ready";

/// The exit status of a command line that cannot be understood.
const USAGE: u8 = 2;

/// Runs `dreamfs mount`.
pub fn run(args: Mount) -> ExitCode {
    let (args, kernel_options) = match expand(args) {
        Ok(expanded) => expanded,
        Err(why) => {
            complain(&why);
            return ExitCode::from(USAGE);
        }
    };
    let (bucket, mountpoint) = match args.places.as_slice() {
        [mountpoint] => (None, PathBuf::from(mountpoint)),
        [bucket, mountpoint] => (Some(bucket.clone()), PathBuf::from(mountpoint)),
        _ => return complain("dreamfs mount [BUCKET[/PREFIX]] MOUNTPOINT"),
    };
    if let Err(why) = check_mountpoint(&mountpoint).and_then(|()| check_fuse()) {
        return complain(&why);
    }
    if !args.foreground && !args.daemon {
        return in_background();
    }
    let (log, daemon) = (args.log.clone(), args.daemon);
    let shown = format!("{} is mounted on {}", bucket.as_deref().unwrap_or("every bucket"), mountpoint.display());
    let meant = typed(args, bucket, mountpoint, kernel_options).meant(&Environment::current());
    let result = start_log(&log, daemon).and(meant).and_then(|config| {
        crate::mount::run(config, || {
            if daemon {
                host::leave_session();
                println!("{READY}");
            } else {
                eprintln!("dreamfs: {shown}");
            }
        })
    });
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => complain(&why),
    }
}

/// Turns `-o` options into flags and reads them like typed ones.
fn expand(args: Mount) -> Result<(Mount, Vec<String>), String> {
    if args.options.is_empty() {
        return Ok((args, Vec::new()));
    }
    let expanded = options::expand(&args.options)?;
    let typed = config::arguments();
    let words = typed.into_iter().map(|word| word.to_string_lossy().into_owned()).chain(expanded.flags);
    let cli = Cli::try_parse_from(words).map_err(|error| {
        let text = error.to_string();
        text.lines().next().unwrap_or("wrong option").trim_start_matches("error: ").to_owned()
    })?;
    match cli.command {
        CliCommand::Mount(args) => Ok((*args, expanded.kernel)),
        _ => Err("-o belongs to dreamfs mount".to_owned()),
    }
}

fn typed(args: Mount, bucket: Option<String>, mountpoint: PathBuf, kernel_options: Vec<String>) -> Typed {
    Typed {
        bucket,
        mountpoint: config::absolute(&mountpoint).unwrap_or(mountpoint),
        endpoint: args.endpoint,
        region: args.region,
        profile: args.profile,
        credentials: args.credentials,
        anonymous: args.anonymous,
        addressing: match args.addressing {
            Addressing::Auto => s3::Addressing::Auto,
            Addressing::Path => s3::Addressing::Path,
            Addressing::Virtual => s3::Addressing::Virtual,
        },
        ca: args.ca,
        integrity: match args.integrity {
            Integrity::Auto => s3::Integrity::Auto,
            Integrity::None => s3::Integrity::None,
            Integrity::Sha256 => s3::Integrity::Sha256,
            Integrity::Md5 => s3::Integrity::Md5,
        },
        read_only: args.read_only,
        allow_other: args.allow_other,
        uid: args.uid,
        gid: args.gid,
        file_mode: args.file_mode,
        dir_mode: args.dir_mode,
        umask: args.umask,
        no_bucket_ops: args.no_bucket_ops,
        attrs: match args.attrs {
            Attrs::Auto => fs::Attrs::Auto,
            Attrs::List => fs::Attrs::List,
            Attrs::Full => fs::Attrs::Full,
        },
        ttl: args.ttl,
        acl: args.acl,
        storage_class: args.storage_class,
        memory_bytes_max: args.memory,
        state: args.state,
        requests_max: args.max_requests,
        timeout: args.timeout,
        kernel_options,
        copy_bytes_max: args.test_copy_bytes_max,
        part_bytes: args.test_part_bytes,
    }
}

fn check_mountpoint(path: &Path) -> Result<(), String> {
    let shown = path.display();
    if host::is_stale(path) {
        return match host::clear_stale(path) {
            Ok(_) => Ok(()),
            Err(error) => {
                Err(format!("{shown} holds a dead mount that cannot be cleared: {error}. Run: umount -l {shown}"))
            }
        };
    }
    let absolute = match config::absolute(path) {
        Ok(absolute) if absolute.is_dir() => absolute,
        Ok(absolute) if absolute.exists() => return Err(format!("{shown} is not a directory. Choose a directory")),
        _ => return Err(format!("{shown} does not exist. Run: mkdir -p {shown}")),
    };
    match host::mounted_at(&absolute) {
        Some(there) if there.fs_type.starts_with("fuse") => {
            Err(format!("{shown} is already mounted ({}). Run: dreamfs umount {shown}", there.source.display()))
        }
        _ => Ok(()),
    }
}

fn check_fuse() -> Result<(), String> {
    match host::fuse_device() {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            Err("there is no /dev/fuse. Load the kernel module (modprobe fuse), or give the container the device"
                .to_owned())
        }
        Err(error) => Err(format!("/dev/fuse cannot be opened: {error}. Ask the administrator for access to it")),
    }
}

/// Runs this program again in the background and waits until the mount can be used, or cannot.
fn in_background() -> ExitCode {
    let again = config::current_program().and_then(|program| {
        let mut words = config::arguments().into_iter().skip(1);
        let command = words.next().unwrap_or_default();
        Command::new(program)
            .arg(command)
            .arg("--daemon")
            .args(words)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
    });
    let mut child = match again {
        Ok(child) => child,
        Err(error) => return complain(&format!("no process for the background: {error}")),
    };
    let mut first = String::new();
    if let Some(stdout) = child.stdout.take() {
        // An error here is an end of the pipe: the child's own words follow below.
        let _ = BufReader::new(stdout).read_line(&mut first);
    }
    if first.trim() == READY {
        return ExitCode::SUCCESS;
    }
    let mut words = String::new();
    if let Some(mut stderr) = child.stderr.take() {
        let _ = stderr.read_to_string(&mut words);
    }
    eprint!("{words}");
    match child.wait() {
        Ok(status) if words.is_empty() => complain(&format!("the background process ended: {status}")),
        _ => ExitCode::FAILURE,
    }
}

/// Starts logging: to the terminal in the foreground, to a file where one is named.
fn start_log(spec: &str, daemon: bool) -> Result<(), String> {
    let (filter, file) = match spec.split_once(':') {
        Some((filter, file)) if file.starts_with('/') => (filter, Some(file)),
        _ => (spec, None),
    };
    let mut builder = env_logger::Builder::new();
    // What fuser does not offer it says at every call; the kernel knows what to do then.
    builder.filter_module("fuser", log::LevelFilter::Error).parse_filters(filter);
    match file {
        Some(path) => {
            let file = File::options().create(true).append(true).open(path);
            let file = file.map_err(|error| format!("--log {path}: {error}"))?;
            builder.target(env_logger::Target::Pipe(Box::new(file)));
        }
        None if daemon => {
            builder.target(env_logger::Target::Pipe(Box::new(super::syslog::Syslog::new())));
            builder.format(|buffer, record| std::io::Write::write_fmt(buffer, format_args!("{}", record.args())));
        }
        None => {}
    }
    builder.init();
    Ok(())
}
