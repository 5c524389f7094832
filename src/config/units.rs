//! Sizes, durations and modes as people write them. Refuses negative numbers, fractions and unknown units.

use std::time::Duration;

/// `512`, `64KiB`, `10G`, `5MB`: a number with an optional unit, in bytes. `K` is 1024, `KB` is 1000, as in dd(1).
pub fn parse_size(text: &str) -> Result<u64, String> {
    let (number, unit) = split(text);
    let factor: u64 = match unit.to_ascii_lowercase().as_str() {
        "" | "b" => 1,
        "k" | "kib" => 1 << 10,
        "m" | "mib" => 1 << 20,
        "g" | "gib" => 1 << 30,
        "t" | "tib" => 1 << 40,
        "kb" => 1_000,
        "mb" => 1_000_000,
        "gb" => 1_000_000_000,
        "tb" => 1_000_000_000_000,
        _ => return Err("write a size such as 256MiB or 10GiB".to_owned()),
    };
    let number: u64 = number.parse().map_err(|_| "write a size such as 256MiB or 10GiB".to_owned())?;
    number.checked_mul(factor).ok_or_else(|| "that is too large".to_owned())
}

/// `5`, `30s`, `1h30m`, `7d`, `250ms`: numbers with units; one without a unit is in seconds.
pub fn parse_duration(text: &str) -> Result<Duration, String> {
    let bad = || "write a time such as 30s, 10m or 1h".to_owned();
    let mut total = Duration::ZERO;
    let mut rest = text.trim();
    loop {
        let (number, tail) = split(rest);
        let unit_end = tail.find(|letter: char| letter.is_ascii_digit()).unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_end);
        let milliseconds: u64 = match unit.trim() {
            "ms" => 1,
            "" | "s" | "sec" => 1000,
            "m" | "min" => 60 * 1000,
            "h" => 3600 * 1000,
            "d" => 86_400 * 1000,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        let part = number.checked_mul(milliseconds).map(Duration::from_millis).ok_or_else(bad)?;
        total = total.checked_add(part).ok_or_else(bad)?;
        rest = tail;
        if rest.is_empty() {
            return Ok(total);
        }
    }
}

/// `0644`, `644`: permissions in octal.
pub fn parse_mode(text: &str) -> Result<u32, String> {
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| *mode <= 0o7777);
    mode.ok_or_else(|| "write octal digits such as 0644".to_owned())
}

/// The digits at the start, and what follows them without blanks around it.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    (number, unit.trim())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_bytes() {
        for (text, bytes) in [("256MiB", 256 << 20), ("10g", 10 << 30), ("5MB", 5_000_000), ("7", 7), (" 4 KiB ", 4096)]
        {
            assert_eq!(parse_size(text), Ok(bytes), "{text:?}");
        }
        for bad in ["", "MiB", "1 fortnight", "-1", "1.5G", "99999999999999999999", "99999999TiB"] {
            assert!(parse_size(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn durations_add_up() {
        let cases =
            [("1h", 3_600_000), ("250ms", 250), ("90", 90_000), ("1h30m", 5_400_000), ("0", 0), ("7d", 604_800_000)];
        for (text, milliseconds) in cases {
            assert_eq!(parse_duration(text), Ok(Duration::from_millis(milliseconds)), "{text:?}");
        }
        for bad in ["", "soon", "1y", "h", "-1s", "1h 30x", "99999999999999999999s", "999999999999999999d"] {
            assert!(parse_duration(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn modes_are_octal() {
        assert_eq!(parse_mode("0640"), Ok(0o640));
        assert!(parse_mode("rw").is_err() && parse_mode("17777").is_err() && parse_mode("98").is_err());
    }
}
