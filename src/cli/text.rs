//! How the small commands speak: results on standard output, trouble as one line on standard error.
//!
//! It refuses to let names from a store steer the terminal: control characters are shown as escapes.

use std::fmt::Write as _;
use std::io::{self, Write as _};
use std::path::Path;
use std::process::ExitCode;

/// Prints a line of trouble: what went wrong, then what to do.
pub fn complain(line: &str) {
    // When standard error is closed there is nobody left to tell.
    let _ = writeln!(io::stderr(), "dreamfs: {}", printable(line));
}

/// Prints a result as it is; whether anybody can still read results (`dreamfs status | head` closes the pipe).
pub fn print(text: &str) -> bool {
    let mut output = io::stdout().lock();
    output.write_all(text.as_bytes()).and_then(|()| output.flush()).is_ok()
}

/// Success, or 1 if anything failed.
pub fn exit(failed: bool) -> ExitCode {
    if failed { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

/// The text with control characters as escapes.
pub fn printable(text: &str) -> String {
    let mut shown = String::with_capacity(text.len());
    for letter in text.chars() {
        if letter.is_control() {
            shown.extend(letter.escape_default());
        } else {
            shown.push(letter);
        }
    }
    shown
}

/// Lines of `name  value` with the values under each other. Further lines of a value are indented alike.
pub fn aligned(rows: &[(String, String)]) -> String {
    let width = rows.iter().map(|(name, _)| name.chars().count()).max().unwrap_or(0);
    let mut text = String::new();
    for (name, value) in rows {
        let mut name = name.as_str();
        for line in value.split('\n') {
            let _ = writeln!(text, "{}", format!("{name:width$}  {}", printable(line)).trim_end());
            name = "";
        }
    }
    text
}

/// Why a call failed, in the system's words, without the number.
pub fn reason(error: &io::Error) -> String {
    let text = error.to_string();
    match text.split_once(" (os error") {
        Some((reason, _)) => reason.to_owned(),
        None => text,
    }
}

/// A line of trouble about a path.
pub fn complain_of(path: &Path, error: &io::Error, advice: &str) {
    complain(&format!("{}: {}. {advice}", path.display(), reason(error)));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_stand_under_each_other() {
        let rows = [("a".into(), "1".into()), ("größe".into(), "2\n3".into()), ("b".into(), String::new())];
        assert_eq!(aligned(&rows), "a      1\ngröße  2\n       3\nb\n");
    }

    #[test]
    fn names_cannot_steer_the_terminal() {
        assert_eq!(printable("a\u{1b}[2Jb\nü"), "a\\u{1b}[2Jb\\nü");
    }

    #[test]
    fn reasons_come_without_numbers() {
        let error = io::Error::from_raw_os_error(crate::error::Meaning::NotFound.errno());
        assert_eq!(reason(&error), "No such file or directory");
        assert_eq!(reason(&io::Error::other("torn")), "torn");
    }
}
