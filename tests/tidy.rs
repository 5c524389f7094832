//! The border rules of the code: who may know what. A rule that is broken names the place to go instead.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::path::{Path, PathBuf};

/// Lines of a file at most, without its tests; lines of a function at most.
const FILE_LINES_MAX: usize = 400;
const FUNCTION_LINES_MAX: usize = 70;

struct Source {
    path: String,
    /// Without comments, strings and in-file tests; line by line as in the file.
    code: Vec<String>,
    text: String,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut out = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("readable") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
                continue;
            }
            let text = fs::read_to_string(&path).expect("UTF-8");
            let name = path.strip_prefix(&root).expect("below").display().to_string();
            if name.ends_with("tests.rs") {
                continue;
            }
            out.push(Source { code: code_of(&text), path: name, text });
        }
    }
    out.sort_by(|a, b| a.path.cmp(&b.path));
    out
}

/// Blanks out comments, strings and everything from the in-file test module on.
fn code_of(text: &str) -> Vec<String> {
    let mut out = String::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let (skip, keep_lines) = if rest.starts_with("//") {
            (rest.find('\n').unwrap_or(rest.len()), true)
        } else if rest.starts_with("/*") {
            (rest.find("*/").map_or(rest.len(), |end| end + 2), true)
        } else if rest.starts_with("r\"") || rest.starts_with("r#") {
            let hashes = rest[1..].bytes().take_while(|byte| *byte == b'#').count();
            let close = format!("\"{}", "#".repeat(hashes));
            let start = 2 + hashes;
            match rest
                .get(start..)
                .filter(|_| rest.as_bytes().get(1 + hashes) == Some(&b'"'))
                .and_then(|body| body.find(&close))
            {
                Some(end) => (start + end + close.len(), true),
                None => (0, false),
            }
        } else if first == '"' {
            (string_end(rest), true)
        } else if first == '\'' {
            (char_end(rest), true)
        } else {
            (0, false)
        };
        if skip > 0 && keep_lines {
            out.extend(rest[..skip].chars().filter(|c| *c == '\n'));
            rest = &rest[skip..];
        } else {
            out.push(first);
            rest = &rest[first.len_utf8()..];
        }
    }
    let lines: Vec<String> = out.lines().map(str::to_owned).collect();
    let is_module = |index: usize| {
        lines.get(index + 1).is_some_and(|line| line.contains("mod tests {") || line.contains("mod tests{"))
    };
    let end = (0..lines.len())
        .find(|&index| {
            lines[index].contains("#[cfg(test)]") && is_module(index) || lines[index].contains("pub(super) mod tests {")
        })
        .unwrap_or(lines.len());
    lines[..end].to_vec()
}

fn string_end(text: &str) -> usize {
    let mut escaped = false;
    for (at, c) in text.char_indices().skip(1) {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return at + 1,
            _ => {}
        }
    }
    text.len()
}

/// The length of a character literal; 0 for a lifetime.
fn char_end(text: &str) -> usize {
    let mut chars = text.char_indices().skip(1);
    match chars.next() {
        Some((_, '\\')) => text[2..].find('\'').map_or(0, |end| if end == 0 { 4 } else { end + 3 }),
        Some((_, _)) => chars.next().filter(|(_, c)| *c == '\'').map_or(0, |(at, _)| at + 1),
        None => 0,
    }
}

/// Whether a word stands in a line by itself.
fn has_word(line: &str, word: &str) -> bool {
    let boundary = |c: Option<char>| c.is_none_or(|c| !c.is_alphanumeric() && c != '_');
    line.match_indices(word)
        .any(|(at, _)| boundary(line[..at].chars().next_back()) && boundary(line[at + word.len()..].chars().next()))
}

/// Fails for every line with one of these words outside of the allowed places.
fn only_in(words: &[&str], allowed: &[&str], instead: &str) {
    let mut broken = Vec::new();
    for source in sources() {
        if allowed.iter().any(|place| source.path.starts_with(place)) {
            continue;
        }
        for (number, line) in source.code.iter().enumerate() {
            if let Some(word) = words.iter().find(|word| {
                if word.ends_with("::") || word.starts_with('.') { line.contains(**word) } else { has_word(line, word) }
            }) {
                broken.push(format!("src/{}:{}: {word}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "{instead}\n{}", broken.join("\n"));
}

#[test]
fn only_fuse_names_fuser() {
    only_in(&["fuser::"], &["fuse/"], "the kernel's side is fuse/: give it a method of Fs instead");
}

#[test]
fn only_the_store_names_its_libraries() {
    only_in(&["s3::signing", "reqwest::", "s3::Region"], &["store/"], "requests go out through the trait Store");
}

#[test]
fn only_the_edges_know_status_numbers() {
    only_in(&["StatusCode"], &["store/", "serve/", "control/"], "decide by store::Kind");
}

#[test]
fn only_error_rs_names_errnos() {
    let errnos = [
        "ENOENT",
        "EIO",
        "EEXIST",
        "EACCES",
        "EPERM",
        "EINVAL",
        "ENOSPC",
        "ESTALE",
        "EBUSY",
        "ENOTEMPTY",
        "ENODATA",
        "EOPNOTSUPP",
    ];
    let words: Vec<String> = errnos.iter().map(|errno| format!("libc::{errno}")).collect();
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    only_in(&words, &["error.rs"], "say what it means: crate::error::Meaning");
}

#[test]
fn only_some_folders_touch_local_files() {
    let allowed = [
        "data/",
        "config/",
        "serve/",
        "control/",
        "cli/recover.rs",
        "cli/doctor.rs",
        "fuse/host.rs",
        "store/s3/client.rs",
        "cli/mount.rs",
    ];
    only_in(
        &["std::fs::", "tokio::fs::", "File::open", "File::create"],
        &allowed,
        "content lies behind data/, settings behind config/",
    );
}

#[test]
fn only_config_reads_the_environment() {
    only_in(&["std::env::"], &["config/"], "ask config::Environment");
}

#[test]
fn only_the_clock_tells_the_time() {
    only_in(&["SystemTime::now", "now_utc"], &["clock.rs"], "take a Clock");
}

#[test]
fn only_roots_build_runtimes() {
    only_in(
        &["Builder::new_multi_thread", "Builder::new_current_thread", "block_on"],
        &["mount.rs", "main.rs", "cli/"],
        "be async, and be called",
    );
}

#[test]
fn passive_folders_never_wait() {
    let pure = ["tree/", "format/", "data/extents.rs", "data/plan.rs", "data/readahead.rs"];
    let sources = sources();
    let waits = sources.iter().filter(|source| pure.iter().any(|place| source.path.starts_with(place)));
    let broken: Vec<&str> = waits
        .filter(|source| source.code.iter().any(|line| line.contains(".await")))
        .map(|source| source.path.as_str())
        .collect();
    assert!(broken.is_empty(), "passive and pure: answer at once, the caller waits: {broken:?}");
}

#[test]
fn proc_and_sys_are_read_in_one_place() {
    let broken: Vec<String> = sources()
        .into_iter()
        .filter(|source| source.path != "fuse/host.rs")
        .filter(|source| {
            let end = source.code.len();
            source.text.lines().take(end).any(|line| {
                !line.trim_start().starts_with("//") && (line.contains("\"/proc") || line.contains("\"/sys"))
            })
        })
        .map(|source| source.path)
        .collect();
    assert!(broken.is_empty(), "facts of this machine are in fuse/host.rs: {broken:?}");
}

#[test]
fn files_and_functions_are_short() {
    let mut broken = Vec::new();
    for source in sources() {
        if source.code.len() > FILE_LINES_MAX {
            broken.push(format!("src/{}: {} lines; split it by noun", source.path, source.code.len()));
        }
        let mut open: Option<(usize, usize)> = None;
        for (number, line) in source.code.iter().enumerate() {
            let indent = line.len() - line.trim_start().len();
            let starts = line.trim_start().split('(').next().is_some_and(|head| has_word(head, "fn"))
                && !line.trim_end().ends_with(';');
            match open {
                None if starts => open = Some((number, indent)),
                Some((start, at)) if indent == at && line.trim_start().starts_with('}') => {
                    if number - start + 1 > FUNCTION_LINES_MAX {
                        broken.push(format!(
                            "src/{}:{}: a function of {} lines",
                            source.path,
                            start + 1,
                            number - start + 1
                        ));
                    }
                    open = None;
                }
                _ => {}
            }
        }
    }
    assert!(broken.is_empty(), "{}", broken.join("\n"));
}

#[test]
fn every_file_says_what_it_is_for() {
    let silent: Vec<String> =
        sources().into_iter().filter(|source| !source.text.starts_with("//! ")).map(|source| source.path).collect();
    assert!(silent.is_empty(), "open each file with a //! paragraph: what it is for, what it refuses: {silent:?}");
}

#[test]
fn nothing_is_left_unfinished() {
    let markers = [["TO", "DO"].concat(), ["FIX", "ME"].concat(), ["HA", "CK"].concat(), ["X", "XX"].concat()];
    let mut broken = Vec::new();
    for source in sources() {
        for (number, line) in source.text.lines().enumerate() {
            if markers.iter().any(|marker| has_word(line, marker)) || line.contains("#[ignore") {
                broken.push(format!("src/{}:{}: {}", source.path, number + 1, line.trim()));
            }
        }
    }
    assert!(broken.is_empty(), "finish it or leave it out:\n{}", broken.join("\n"));
}

#[test]
fn the_map_names_every_verb() {
    let map = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("src/lib.rs")).expect("readable");
    let verbs = sources()
        .into_iter()
        .filter_map(|source| source.path.strip_prefix("fs/").map(|name| name.trim_end_matches(".rs").to_owned()));
    let missing: Vec<String> = verbs.filter(|verb| verb != "mod" && !has_word(&map, verb)).collect();
    assert!(missing.is_empty(), "lib.rs is the map: {missing:?}");
}

/// Folders use each other in one direction.
#[test]
fn folders_form_no_cycle() {
    let mut uses: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let module = |path: &str| path.split('/').next().expect("not empty").trim_end_matches(".rs").to_owned();
    for source in sources() {
        let own = module(&source.path);
        for line in &source.code {
            for (at, _) in line.match_indices("crate::") {
                let other: String = line[at + 7..].chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
                if other != own && !other.is_empty() {
                    uses.entry(own.clone()).or_default().insert(other);
                }
            }
        }
    }
    fn walk(at: &str, uses: &BTreeMap<String, BTreeSet<String>>, trail: &mut Vec<String>) -> Option<Vec<String>> {
        if let Some(start) = trail.iter().position(|seen| seen == at) {
            return Some(trail[start..].to_vec());
        }
        trail.push(at.to_owned());
        let found = uses.get(at).into_iter().flatten().find_map(|next| walk(next, uses, trail));
        trail.pop();
        found
    }
    let cycle = uses.keys().find_map(|at| walk(at, &uses, &mut Vec::new()));
    assert!(cycle.is_none(), "what is below must not know what is above: {cycle:?}");
}

#[test]
fn dependencies_have_their_reasons() {
    let manifest = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("Cargo.toml")).expect("readable");
    let section =
        manifest.split("[dependencies]").nth(1).and_then(|rest| rest.split("\n[").next()).expect("dependencies");
    let mut explained = false;
    for line in section.lines() {
        match line.trim() {
            "" => explained = false,
            comment if comment.starts_with('#') => explained = true,
            dependency => assert!(explained, "no reason beside it: {dependency}"),
        }
    }
}

/// The lexer under the rules sees code and nothing else.
#[test]
fn the_rules_see_code_only() {
    let code = code_of(
        "let a = \"std::env::var\"; // std::env::\nlet b = 'x'; let c: &'static str = r#\"std::env::\"#;\nstd::env::args();\n#[cfg(test)]\nmod tests {\nstd::env::x();\n}\n",
    );
    assert_eq!(code.len(), 3);
    assert!(!code[0].contains("env") && !code[1].contains("env") && code[2].contains("std::env::"));
    assert!(has_word("a fuser::x", "fuser") && !has_word("confuser::x", "fuser"));
}
