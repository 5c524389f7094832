//! The `-o` options: every flag of `mount` by its name, s3fs's common names, and what fstab and mount(8) add.
//!
//! An option becomes flags, which are parsed like typed ones, so that there is one parser and one set of rules. It
//! refuses what it does not know, with the nearest name that it knows, and what would make a mount less safe.

use std::collections::BTreeMap;

/// What an option stands for that is not the name of a flag.
#[derive(Clone, Copy)]
enum Meaning {
    /// Another name for a flag that takes the option's value.
    Value(&'static str),
    /// Another name for a flag without a value; `=0` takes it back.
    Switch(&'static str),
    /// An option of mount(8) that the kernel is told.
    Kernel,
    /// Without meaning here, or already so.
    WithoutEffect,
    /// Something that dreamfs refuses, and why or what to do instead.
    Refused(&'static str),
}

use Meaning::{Kernel, Refused, Switch, Value, WithoutEffect};

/// The names beside those of the flags. Sources: s3fs(1), mount(8), mount.fuse3(8).
const OTHERS: &[(&str, Meaning)] = &[
    ("url", Value("endpoint")),
    ("passwd_file", Value("credentials")),
    ("default_acl", Value("acl")),
    ("use_cache", Value("cache")),
    ("multireq_max", Value("max-requests")),
    ("public_bucket", Switch("anonymous")),
    ("use_path_request_style", Switch("addressing=path")),
    ("ro", Switch("read-only")),
    ("no_check_certificate", Refused("certificates are always checked. Trust yours with --ca FILE.pem")),
    ("ssl_verify_hostname", Refused("certificates are always checked. Trust yours with --ca FILE.pem")),
    ("iam_role", Refused("roles of machines are not read. Use credential_process in ~/.aws/config")),
    ("ecs", Refused("roles of containers are not read. Use credential_process in ~/.aws/config")),
    ("sigv2", Switch("signature=v2")),
    ("use_sse", Refused("the names differ here. Use sse=AES256, or sse=aws:kms and sse-kms-key-id=ID")),
    ("remount", Refused("a mount cannot be changed while it lasts. Unmount it and mount it again")),
    ("allow_root", Refused("the kernel knows no such rule. Use allow_other")),
    ("dev", Refused("device files are never opened. Leave it out")),
    ("suid", Refused("set-user-id programs are never run as such. Leave it out")),
    ("noexec", Kernel),
    ("noatime", Kernel),
    ("sync", Kernel),
    ("dirsync", Kernel),
    ("nosuid", WithoutEffect),
    ("nodev", WithoutEffect),
    ("exec", WithoutEffect),
    ("async", WithoutEffect),
    ("atime", WithoutEffect),
    ("relatime", WithoutEffect),
    ("norelatime", WithoutEffect),
    ("strictatime", WithoutEffect),
    ("lazytime", WithoutEffect),
    ("diratime", WithoutEffect),
    ("nodiratime", WithoutEffect),
    ("defaults", WithoutEffect),
    ("user", WithoutEffect),
    ("users", WithoutEffect),
    ("nouser", WithoutEffect),
    ("owner", WithoutEffect),
    ("group", WithoutEffect),
    ("auto", WithoutEffect),
    ("noauto", WithoutEffect),
    ("nofail", WithoutEffect),
    ("_netdev", WithoutEffect),
    ("comment", WithoutEffect),
    ("nonempty", WithoutEffect),
    ("default_permissions", WithoutEffect),
    ("subtype", WithoutEffect),
    ("auto_unmount", WithoutEffect),
    ("big_writes", WithoutEffect),
    ("kernel_cache", WithoutEffect),
    ("auto_cache", WithoutEffect),
    ("max_read", WithoutEffect),
    ("max_write", WithoutEffect),
    ("max_background", WithoutEffect),
    ("attr_timeout", WithoutEffect),
    ("entry_timeout", WithoutEffect),
    ("negative_timeout", WithoutEffect),
    ("retries", WithoutEffect),
    ("connect_timeout", WithoutEffect),
    ("readwrite_timeout", WithoutEffect),
    ("list_object_max_keys", WithoutEffect),
    ("parallel_count", WithoutEffect),
    ("multipart_size", WithoutEffect),
    ("multipart_copy_size", WithoutEffect),
    ("singlepart_copy_limit", WithoutEffect),
    ("max_dirty_data", WithoutEffect),
    ("ensure_diskfree", WithoutEffect),
    ("max_stat_cache_size", WithoutEffect),
    ("stat_cache_expire", WithoutEffect),
    ("enable_noobj_cache", WithoutEffect),
    ("disable_noobj_cache", WithoutEffect),
    ("enable_content_md5", WithoutEffect),
    ("complement_stat", WithoutEffect),
    ("compat_dir", WithoutEffect),
    ("notsup_compat_dir", WithoutEffect),
    ("use_xattr", WithoutEffect),
    ("sigv4", WithoutEffect),
    ("dbglevel", WithoutEffect),
    ("curldbg", WithoutEffect),
    ("logfile", WithoutEffect),
    ("del_cache", WithoutEffect),
];

/// Flags that are no options: they say how this one process runs.
const NOT_OPTIONS: [&str; 5] = ["daemon", "help", "version", "kernel-option", "without-effect"];

/// Takes `-o` lists apart and answers what they stand for as flags, in order. `command` has the flags of mount.
/// A comma in a value is written `\,`, a backslash `\\`.
pub fn expand(lists: &[String], command: &clap::Command) -> Result<Vec<String>, String> {
    let flags = flag_names(command);
    let mut words = Vec::new();
    for option in lists.iter().flat_map(|list| split(list)) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        if name.is_empty() || name.starts_with("x-") || name.starts_with("X-") {
            continue;
        }
        expand_one(&name.replace('-', "_"), value, &flags, &mut words)?;
    }
    Ok(words)
}

fn expand_one(
    name: &str,
    value: Option<&str>,
    flags: &BTreeMap<String, (String, bool)>,
    words: &mut Vec<String>,
) -> Result<(), String> {
    if name == "rw" {
        words.retain(|word| word != "--read-only");
        return Ok(());
    }
    if name == "endpoint" && value.is_some_and(is_region) {
        // s3fs calls the region so.
        words.push(format!("--region={}", value.unwrap_or_default()));
        return Ok(());
    }
    let other = OTHERS.iter().find(|(other, _)| *other == name).map(|(_, meaning)| *meaning);
    let meaning = match flags.get(name) {
        Some((flag, true)) => return push_value(name, flag, value, words),
        Some((flag, false)) => return push_switch(name, flag, value, words),
        None => other,
    };
    match meaning {
        Some(Value(flag)) => push_value(name, flag, value, words),
        Some(Switch(flag)) => push_switch(name, flag, value, words),
        Some(Kernel) => {
            words.push(format!("--kernel-option={name}"));
            Ok(())
        }
        Some(WithoutEffect) => {
            words.push(format!("--without-effect={name}"));
            Ok(())
        }
        Some(Refused(why)) => Err(format!("-o {name}: {why}")),
        None => Err(format!("-o {name} is not known. Did you mean {}?", nearest(name, flags))),
    }
}

fn push_value(name: &str, flag: &str, value: Option<&str>, words: &mut Vec<String>) -> Result<(), String> {
    match value {
        Some(value) if !value.is_empty() => words.push(format!("--{flag}={value}")),
        _ => return Err(format!("-o {name} needs a value. Write -o {name}=VALUE")),
    }
    Ok(())
}

fn push_switch(name: &str, flag: &str, value: Option<&str>, words: &mut Vec<String>) -> Result<(), String> {
    let word = format!("--{flag}");
    match value {
        None | Some("1" | "yes" | "true" | "on") => words.push(word),
        Some("0" | "no" | "false" | "off") => words.retain(|other| *other != word),
        Some(_) => return Err(format!("-o {name} is on or off. Write -o {name}, or leave it out")),
    }
    Ok(())
}

/// The names of the flags as options, each with its long name and whether it takes a value.
fn flag_names(command: &clap::Command) -> BTreeMap<String, (String, bool)> {
    let arguments = command.get_arguments();
    let flags = arguments.filter_map(|argument| Some((argument.get_long()?, argument.get_action().takes_values())));
    let flags = flags.filter(|(long, _)| !NOT_OPTIONS.contains(long));
    flags.map(|(long, valued)| (long.replace('-', "_"), (long.to_owned(), valued))).collect()
}

/// Whether what s3fs calls `endpoint` is meant: a region is neither a URL nor a host's name.
fn is_region(value: &str) -> bool {
    value != "localhost" && !value.is_empty() && !value.contains([':', '/', '.'])
}

/// Takes a list apart at its commas.
fn split(list: &str) -> Vec<String> {
    let mut all = Vec::new();
    let mut option = String::new();
    let mut letters = list.chars().peekable();
    while let Some(letter) = letters.next() {
        match letter {
            ',' => all.push(std::mem::take(&mut option)),
            '\\' => option.push(letters.next_if(|next| matches!(next, ',' | '\\')).unwrap_or('\\')),
            _ => option.push(letter),
        }
    }
    all.push(option);
    all
}

/// The known option that is spelled most alike.
fn nearest(name: &str, flags: &BTreeMap<String, (String, bool)>) -> String {
    let others = OTHERS.iter().filter(|(_, meaning)| !matches!(meaning, Refused(_))).map(|(other, _)| *other);
    let known = flags.keys().map(String::as_str).chain(others);
    known.min_by_key(|known| strsim::damerau_levenshtein(name, known)).unwrap_or("ro").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::flags::Flags;
    use clap::Args;

    fn command() -> clap::Command {
        Flags::augment_args(clap::Command::new("mount"))
    }

    fn expanded(list: &str) -> Result<Vec<String>, String> {
        expand(&[list.to_owned()], &command())
    }

    #[test]
    fn every_flag_has_an_option_of_its_name() {
        let mut count = 0;
        for argument in command().get_arguments() {
            let Some(long) = argument.get_long().filter(|long| !NOT_OPTIONS.contains(long)) else { continue };
            let value = if argument.get_action().takes_values() { "=https://v" } else { "" };
            let expected = vec![format!("--{long}{value}")];
            assert_eq!(expanded(&format!("{long}{value}")), Ok(expected.clone()));
            assert_eq!(expanded(&format!("{}{value}", long.replace('-', "_"))), Ok(expected));
            count += 1;
        }
        assert!(count > 25, "{count}");
    }

    #[test]
    fn no_name_is_listed_twice_or_hides_behind_a_flag() {
        let flags = flag_names(&command());
        for (index, (name, _)) in OTHERS.iter().enumerate() {
            assert!(!flags.contains_key(*name), "{name}");
            assert!(!OTHERS[..index].iter().any(|(other, _)| other == name), "{name}");
        }
    }

    #[test]
    fn a_line_of_s3fs_in_fstab_is_understood() {
        let line = "_netdev,allow_other,url=https://h:1,use_path_request_style,passwd_file=/a,umask=022,uid=3,\
                    x-systemd.automount,noexec,ro,default_acl=private,public_bucket=0,endpoint=us-east-1,retries=5";
        let flags = "--without-effect=_netdev --allow-other --endpoint=https://h:1 --addressing=path \
                     --credentials=/a --umask=022 --uid=3 --kernel-option=noexec --read-only --acl=private \
                     --region=us-east-1 --without-effect=retries";
        assert_eq!(expanded(line).unwrap().join(" "), flags);
    }

    #[test]
    fn values_hold_commas_and_backslashes() {
        assert_eq!(expanded(r"fsname=a\,b\\c\d,ro").unwrap(), [r"--fsname=a,b\c\d", "--read-only"]);
        assert_eq!(expanded(",,").unwrap(), Vec::<String>::new());
    }

    #[test]
    fn the_last_of_ro_and_rw_counts() {
        assert_eq!(expanded("ro,rw").unwrap(), Vec::<String>::new());
        assert_eq!(expanded("rw,ro").unwrap(), ["--read-only"]);
    }

    #[test]
    fn what_cannot_be_is_refused_with_advice() {
        let cases = [
            ("alow_other", "Did you mean allow_other?"),
            ("enpoint=https://x", "Did you mean endpoint?"),
            ("no_check_certificate", "--ca"),
            ("uid", "-o uid=VALUE"),
            ("ro=maybe", "on or off"),
            ("daemon", "not known"),
        ];
        for (list, advice) in cases {
            let why = expanded(list).unwrap_err();
            assert!(why.contains(advice) && !why.contains('\n'), "{why}");
        }
    }
}
