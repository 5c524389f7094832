//! How fast the store is, and what follows from it: how large and how many the GETs of a window are, and when a file
//! that is read here and there is better brought in whole. Pure.

use std::time::Duration;

/// GETs of one window at once, at least and at most.
const CONNECTIONS: std::ops::RangeInclusive<u64> = 4..=16;

/// One more GET at once for each so much delay before a GET's first byte: what one does not bring while it waits,
/// another has to.
const DELAY_PER_CONNECTION: Duration = Duration::from_millis(1);

/// Bytes of one GET of a window. A store needs a millisecond and more for each, whatever its length, and most of that
/// is its processor's: the longest is what makes their number cost little.
const PART_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=8 << 20;

/// GETs after which the shortest delay is looked for anew: the way to the store may have become longer.
const DELAY_MEMORY: u32 = 256;

/// Weight of the newest measurement.
const WEIGHT: f64 = 0.2;

/// GETs shorter than this tell nothing about bandwidth: all of it may have come with the first byte.
const TELLING_BYTES_MIN: u64 = 1 << 20;

/// A GET that brings so much less than others did is slow.
const SLOW_FACTOR: f64 = 16.0;

/// A player or an archive reader jumps less often before it goes on forward.
const HOT_JUMPS_MIN: u32 = 16;

/// What was measured of the store.
#[derive(Clone, Copy, Debug)]
pub struct Pace {
    measured: bool,
    delay: Duration,
    delay_age: u32,
    bytes_per_second: f64,
}

impl Default for Pace {
    /// Before anything is measured: a store in the same country.
    fn default() -> Self {
        Pace { measured: false, delay: Duration::from_millis(10), delay_age: DELAY_MEMORY, bytes_per_second: 100e6 }
    }
}

impl Pace {
    /// Takes in one GET: the time to its first byte, its bytes, and the time that these took.
    pub fn note(&mut self, delay: Duration, bytes: u64, took: Duration) {
        self.delay_age += 1;
        if delay < self.delay || self.delay_age > DELAY_MEMORY {
            (self.delay, self.delay_age) = (delay, 0);
        }
        let seconds = took.as_secs_f64();
        if bytes >= TELLING_BYTES_MIN && seconds > 0.0 {
            self.measured = true;
            self.bytes_per_second += WEIGHT * (bytes as f64 / seconds - self.bytes_per_second);
        }
    }

    /// Time from a request to its first byte.
    pub fn delay(&self) -> Duration {
        self.delay
    }

    /// Bytes that one GET brings in a second, once they come.
    pub fn bytes_per_second(&self) -> f64 {
        self.bytes_per_second
    }

    /// Whether a GET that brought so many bytes in that time stands still, or nearly so beside others.
    pub fn is_slow(&self, bytes: u64, took: Duration) -> bool {
        let usual = if self.measured { self.bytes_per_second * took.as_secs_f64() } else { 0.0 };
        bytes == 0 || (bytes as f64) < usual / SLOW_FACTOR
    }

    /// GETs of one window at once, where so many readers share the way to the store.
    pub fn connections(&self, readers: u64) -> u64 {
        let hidden = self.delay.as_secs_f64() / DELAY_PER_CONNECTION.as_secs_f64();
        let together = (CONNECTIONS.start() + hidden as u64).min(*CONNECTIONS.end());
        (together / readers.max(1)).max(*CONNECTIONS.start())
    }

    /// Bytes of one GET of a window of this size, in whole blocks.
    pub fn part_bytes(&self, window_bytes: u64, readers: u64) -> u64 {
        let part_bytes = (window_bytes / self.connections(readers)).clamp(*PART_BYTES.start(), *PART_BYTES.end());
        part_bytes / PART_BYTES.start() * PART_BYTES.start()
    }

    /// The window beyond which more would bring nothing: every GET at once, and each as large as any.
    pub fn window_bytes_max(&self) -> u64 {
        PART_BYTES.end() * self.connections(1)
    }

    /// Whether a file is better brought in whole: its readers have waited longer for single pieces than all of it
    /// would take. Whoever decides so never loses more than twice the time of the best decision (the ski rental
    /// problem). A few jumps are a look at its directory, however long they took, and a file that does not fit is never
    /// worth it.
    pub fn is_hot(&self, waited: Duration, jumps: u32, size_bytes: u64, room_bytes: u64) -> bool {
        let together = self.bytes_per_second * *CONNECTIONS.start() as f64;
        let whole = self.delay.as_secs_f64() + size_bytes as f64 / together;
        size_bytes <= room_bytes && jumps >= HOT_JUMPS_MIN && waited.as_secs_f64() >= whole
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn measured(delay_ms: u64, bytes_per_second: u64) -> Pace {
        let mut pace = Pace::default();
        for _ in 0..100 {
            pace.note(Duration::from_millis(delay_ms), bytes_per_second, Duration::from_secs(1));
        }
        pace
    }

    #[test]
    fn a_distant_store_gets_more_and_larger_requests() {
        let (near, far) = (measured(0, 500_000_000), measured(20, 90_000_000));
        assert_eq!((near.connections(1), far.connections(1), far.connections(3)), (4, 16, 5));
        assert_eq!((near.part_bytes(64 * MIB, 1), far.part_bytes(64 * MIB, 1)), (8 * MIB, 4 * MIB));
        assert_eq!(far.part_bytes(48 * MIB, 4), 8 * MIB, "readers at once need fewer and longer ones each");
        assert_eq!((near.window_bytes_max(), far.window_bytes_max()), (32 * MIB, 128 * MIB));
        assert_eq!(far.part_bytes(0, 1), MIB);
    }

    #[test]
    fn what_stands_still_is_slow_and_what_trickles_beside_others_too() {
        let five = Duration::from_secs(5);
        assert!(Pace::default().is_slow(0, five) && !Pace::default().is_slow(1, five));
        let near = measured(0, 500_000_000);
        assert!(near.is_slow(MIB, five) && !near.is_slow(1000 * MIB, five));
    }

    #[test]
    fn a_longer_way_is_noticed_after_a_while() {
        let mut pace = measured(1, 90_000_000);
        (0..300).for_each(|_| pace.note(Duration::from_millis(30), MIB, Duration::from_millis(11)));
        assert_eq!(pace.delay(), Duration::from_millis(30));
    }

    #[test]
    fn a_file_is_hot_once_waiting_for_pieces_cost_as_much_as_the_whole() {
        let far = measured(20, 90_000_000);
        let table = [
            // waited in ms, jumps, MiB of the file, MiB of room, hot
            (100, 100, 256, 1024, false),
            (700, 100, 256, 1024, false),
            (800, 100, 256, 1024, true),
            (60_000, 15, 256, 1024, false),
            (60_000, 100, 256, 255, false),
            (30, 16, 1, 1024, true),
            (10, 16, 1, 1024, false),
        ];
        for (waited, jumps, size, room, hot) in table {
            let told = far.is_hot(Duration::from_millis(waited), jumps, size * MIB, room * MIB);
            assert_eq!(told, hot, "{waited} ms, {jumps} jumps, {size} MiB in {room} MiB");
        }
    }
}
