//! The numbers of inodes: each object has the same one after every mount, and those of one directory are in the order
//! of its names, nearly. Pure.
//!
//! Programs that go through a large directory (`find`, `du`, `rm -r`, `cp -r`, `grep -r`) sort its names by number,
//! because that is how a disk is read fast. A store is read fast in the order of its keys: numbers by chance would have
//! such a program come to each page of a listing again and again.

use crate::store::{BucketName, Key};

use super::inode::{Ino, ROOT};

/// Numbers from here on are handed out in turn, to newcomers whose own number a living inode still holds.
pub(super) const RESERVED_FROM: u64 = 1 << 63;

/// Bits of a number that tell names apart which take the same place.
const APART_BITS: u32 = 27;

/// Places in a directory.
const PLACES: u64 = 1 << (u64::BITS - 1 - APART_BITS);

/// The number that an object has after every mount, by where it lies: a directory's names begin anywhere and go around.
/// Never the root's, never a reserved one.
pub(super) fn number(bucket: &BucketName, key: Option<&Key>) -> Ino {
    let key = key.map_or("", Key::as_str).trim_end_matches('/');
    let (directory, name) = key.rsplit_once('/').unwrap_or(("", key));
    let begin = hash(bucket.as_str().bytes().chain([0]).chain(directory.bytes()));
    let apart = hash(name.bytes()) % (1 << APART_BITS);
    let number = begin.wrapping_add(place(name) << APART_BITS).wrapping_add(apart);
    Ino((number & (RESERVED_FROM - 1)).max(ROOT.0 + 1))
}

/// FNV-1a, 64 bits, and a last mix: its high bits hardly depend on the last bytes.
fn hash(bytes: impl Iterator<Item = u8>) -> u64 {
    let hash =
        bytes.fold(0xcbf2_9ce4_8422_2325, |hash: u64, byte| (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3));
    (hash ^ hash >> 32).wrapping_mul(0x9e37_79b9_7f4a_7c15)
}

/// Where a name stands among all that a directory may have: in the order in which names sort, but where only one of two
/// has a word before its number, or where they differ in their punctuation, which does not count. Each character narrows
/// the places to its share.
fn place(name: &str) -> u64 {
    let name = numbered(name);
    let (mut from, mut room) = (0, PLACES);
    let mut only_digits = true;
    for byte in name.bytes().filter(|byte| !byte.is_ascii_punctuation()) {
        let (before, share, all) = share(byte, only_digits);
        (from, room) = (from + room * before / all, room * share / all);
        only_digits &= !byte.is_ascii_alphabetic();
        if room == 0 {
            break;
        }
    }
    from
}

/// A name without the word that it shares with its neighbours: `img_` of `img_0001.jpg`. What may be the digits of a
/// checksum is no word.
fn numbered(name: &str) -> &str {
    let digit = name.find(|letter: char| letter.is_ascii_digit()).unwrap_or(0);
    let is_word = name[..digit].bytes().any(|byte| !byte.is_ascii_hexdigit());
    if is_word { &name[digit..] } else { name }
}

/// The share of a character: those before it, its own, and all. Where there were only digits, there will be more.
fn share(byte: u8, only_digits: bool) -> (u64, u64, u64) {
    let digit = if only_digits { 32 } else { 4 };
    // A letter has a share of 2, a capital of 1, and what is neither ASCII letter nor digit of 1 behind all others.
    let all = 10 * digit + 26 + 26 * 2 + 1;
    match byte {
        0..=b'9' => (u64::from(byte.saturating_sub(b'0')) * digit, digit, all),
        b':'..=b'Z' => (10 * digit + u64::from(byte.saturating_sub(b'A')), 1, all),
        b'['..=b'z' => (10 * digit + 26 + u64::from(byte.saturating_sub(b'a')) * 2, 2, all),
        b'{'.. => (all - 1, 1, all),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn numbered_as(directory: &str, name: &str) -> Ino {
        number(
            &BucketName::new("photos").expect("plain"),
            Some(&Key::new(&format!("{directory}/{name}")).expect("plain")),
        )
    }

    #[test]
    fn numbers_are_stable_and_never_reserved() {
        let bucket = BucketName::new("photos").expect("plain");
        let key = Key::new("a/b").expect("plain");
        assert_eq!(number(&bucket, Some(&key)), Ino(5206569607691231279));
        assert_eq!(number(&bucket, Some(&key)), number(&bucket, Some(&Key::new("a/b/").expect("plain"))));
        assert_ne!(number(&bucket, Some(&key)), number(&bucket, None));
        assert!(number(&bucket, None).0 < RESERVED_FROM && number(&bucket, None) > ROOT);
    }

    /// How many neighbours by number are no neighbours by name, of a thousand.
    fn jumps(names: impl IntoIterator<Item = String>) -> usize {
        let mut names: Vec<String> = names.into_iter().collect();
        names.sort();
        let mut by_number: Vec<usize> = (0..names.len()).collect();
        by_number.sort_by_key(|at| numbered_as("d", &names[*at]));
        let jumps = by_number.windows(2).filter(|pair| pair[0].abs_diff(pair[1]) > 50).count();
        jumps * 1000 / names.len()
    }

    #[test]
    fn names_follow_each_other_in_the_order_of_numbers() {
        let mut rng = fastrand::Rng::with_seed(1);
        let mut word = |length: usize, letters: &str| -> String {
            let letters: Vec<char> = letters.chars().collect();
            (0..length).map(|_| letters[rng.usize(..letters.len())]).collect()
        };
        let hex = "0123456789abcdef";
        let families: [(&str, Vec<String>); 8] = [
            ("numbers", (0..20_000).map(|n| format!("d{n:05}")).collect()),
            ("of photos", (0..20_000).map(|n| format!("IMG_{n:06}.jpg")).collect()),
            ("long ones", (0..20_000).map(|n| format!("directory-{n:09}")).collect()),
            ("without zeros", (0..20_000).map(|n| format!("part{n}")).collect()),
            (
                "times",
                (0..20_000)
                    .map(|n| format!("20{:02}-{:02}-{:02}T{:02}", n / 8760, n / 730 % 12 + 1, n / 24 % 30 + 1, n % 24))
                    .collect(),
            ),
            ("checksums", (0..20_000).map(|_| word(32, hex)).collect()),
            ("short ones", (0..20_000).map(|_| word(8, hex)).collect()),
            ("words", (0..20_000).map(|_| word(9, "abcdefghijklmnopqrstuvwxyz")).collect()),
        ];
        for (what, names) in families {
            let jumps = jumps(names);
            println!("{what}: {jumps} of a thousand");
            assert!(jumps <= 2, "{what}: {jumps} of a thousand");
        }
    }

    proptest! {
        #[test]
        fn a_name_never_stands_behind_a_later_one(mut names in prop::collection::vec("[0-9a-fA-C\u{e9}]{1,9}", 2..40)) {
            names.retain(|name| numbered(name) == name);
            names.sort();
            let places: Vec<u64> = names.iter().map(|name| place(name)).collect();
            prop_assert!(places.is_sorted(), "{names:?}: {places:?}");
        }
    }
}
