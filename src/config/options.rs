//! The `-o` options: every flag of `mount` by its name, s3fs's common names, and what fstab and mount(8) add.
//!
//! An option becomes flags, which are parsed like typed ones, so that there is one parser and one set of rules.

/// What an option stands for.
enum Meaning {
    /// A flag without a value.
    Flag(&'static str),
    /// A flag that takes the option's value.
    Valued(&'static str),
    /// An option of mount(8) that the kernel is told.
    Kernel,
    /// Without meaning here, or already so.
    Ignored,
    /// Something that dreamfs refuses, and what to do instead.
    Refused(&'static str),
}

use Meaning::{Flag, Ignored, Kernel, Refused, Valued};

/// Every known option.
const OPTIONS: &[(&str, Meaning)] = &[
    ("endpoint", Valued("--endpoint")),
    ("url", Valued("--endpoint")),
    ("region", Valued("--region")),
    ("profile", Valued("--profile")),
    ("credentials", Valued("--credentials")),
    ("passwd_file", Valued("--credentials")),
    ("anonymous", Flag("--anonymous")),
    ("public_bucket", Flag("--anonymous")),
    ("addressing", Valued("--addressing")),
    ("use_path_request_style", Flag("--addressing=path")),
    ("ca", Valued("--ca")),
    ("integrity", Valued("--integrity")),
    ("read_only", Flag("--read-only")),
    ("ro", Flag("--read-only")),
    ("rw", Ignored),
    ("allow_other", Flag("--allow-other")),
    ("uid", Valued("--uid")),
    ("gid", Valued("--gid")),
    ("umask", Valued("--umask")),
    ("file_mode", Valued("--file-mode")),
    ("dir_mode", Valued("--dir-mode")),
    ("no_bucket_ops", Flag("--no-bucket-ops")),
    ("attrs", Valued("--attrs")),
    ("ttl", Valued("--ttl")),
    ("stat_cache_expire", Valued("--ttl")),
    ("acl", Valued("--acl")),
    ("default_acl", Valued("--acl")),
    ("storage_class", Valued("--storage-class")),
    ("memory", Valued("--memory")),
    ("state", Valued("--state")),
    ("max_requests", Valued("--max-requests")),
    ("timeout", Valued("--timeout")),
    ("log", Valued("--log")),
    ("foreground", Flag("--foreground")),
    ("test_copy_bytes_max", Valued("--test-copy-bytes-max")),
    ("test_part_bytes", Valued("--test-part-bytes")),
    ("noexec", Kernel),
    ("noatime", Kernel),
    ("sync", Kernel),
    ("dirsync", Kernel),
    ("nosuid", Ignored),
    ("nodev", Ignored),
    ("exec", Ignored),
    ("async", Ignored),
    ("atime", Ignored),
    ("relatime", Ignored),
    ("defaults", Ignored),
    ("user", Ignored),
    ("users", Ignored),
    ("owner", Ignored),
    ("auto", Ignored),
    ("noauto", Ignored),
    ("nofail", Ignored),
    ("_netdev", Ignored),
    ("nonempty", Ignored),
    ("default_permissions", Ignored),
    ("retries", Ignored),
    ("connect_timeout", Ignored),
    ("readwrite_timeout", Ignored),
    ("parallel_count", Ignored),
    ("multipart_size", Ignored),
    ("use_xattr", Ignored),
    ("enable_noobj_cache", Ignored),
    ("write_back", Refused("--write-back is not in this version yet")),
    ("cache", Refused("--cache is not in this version yet")),
    ("use_cache", Refused("a cache on disk (--cache) is not in this version yet")),
    ("cache_size", Refused("--cache is not in this version yet")),
    ("no_check_certificate", Refused("certificates are always checked; trust yours with --ca FILE")),
    ("ssl_verify_hostname", Refused("certificates are always checked; trust yours with --ca FILE")),
    ("dev", Refused("device files do not exist in a store")),
    ("suid", Refused("set-id programs are not run from a store")),
];

/// What a comma-separated list of options stands for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Expanded {
    /// Flags, as if typed.
    pub flags: Vec<String>,
    /// Options for the kernel.
    pub kernel: Vec<String>,
}

/// Takes `-o` arguments apart. `\,` is a comma in a value.
pub fn expand(lists: &[String]) -> Result<Expanded, String> {
    let mut out = Expanded::default();
    for option in lists.iter().flat_map(|list| split(list)) {
        let (name, value) = match option.split_once('=') {
            Some((name, value)) => (name, Some(value)),
            None => (option.as_str(), None),
        };
        let name = name.replace('-', "_");
        if name.is_empty() || name.starts_with("x_") || name.starts_with("comment") {
            continue;
        }
        let known = OPTIONS.iter().find(|(known, _)| *known == name);
        match known.map(|(_, meaning)| meaning) {
            Some(Flag(_)) if value.is_some_and(|value| matches!(value, "0" | "no" | "false")) => {}
            Some(Flag(flag)) => out.flags.push((*flag).to_owned()),
            Some(Valued(flag)) => match value {
                Some(value) => out.flags.push(format!("{flag}={value}")),
                None => return Err(format!("-o {name} needs a value. Write -o {name}=…")),
            },
            Some(Kernel) => out.kernel.push(name),
            Some(Ignored) => {}
            Some(Refused(why)) => return Err(format!("-o {name}: {why}")),
            None => return Err(format!("unknown option -o {name}. Did you mean {}?", nearest(&name))),
        }
    }
    Ok(out)
}

fn split(list: &str) -> Vec<String> {
    let mut out = vec![String::new()];
    let mut escaped = false;
    for character in list.chars() {
        match (escaped, character) {
            (false, '\\') => escaped = true,
            (false, ',') => out.push(String::new()),
            _ => {
                let last = out.last_mut().expect("never empty");
                last.push(character);
                escaped = false;
            }
        }
    }
    out
}

/// The known option that is spelled most alike.
fn nearest(name: &str) -> &'static str {
    let closest = OPTIONS.iter().min_by_key(|(known, _)| (strsim::damerau_levenshtein(name, known), known.len()));
    closest.map_or("-o ro", |(known, _)| known)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn expanded(list: &str) -> Result<Expanded, String> {
        expand(&[list.to_owned()])
    }

    #[test]
    fn s3fs_and_fstab_lines_are_understood() {
        let line = "_netdev,allow_other,url=https://h,use_path_request_style,umask=022,x-systemd.automount,noexec,ro";
        let out = expanded(line).expect("understood");
        let flags = ["--allow-other", "--endpoint=https://h", "--addressing=path", "--umask=022", "--read-only"];
        assert_eq!(out.flags, flags);
        assert_eq!(out.kernel, ["noexec"]);
        assert_eq!(expanded("storage-class=A\\,B").expect("escaped").flags, ["--storage-class=A,B"]);
    }

    #[test]
    fn unknown_ones_are_refused_with_the_nearest() {
        assert!(expanded("alow_other").is_err_and(|why| why.contains("allow_other")));
        assert!(expanded("use_cache=/x").is_err_and(|why| why.contains("not in this version")));
        assert!(expanded("uid").is_err_and(|why| why.contains("needs a value")));
    }
}
