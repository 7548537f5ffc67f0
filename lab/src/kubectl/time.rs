//! Times as kubectl writes them: ages in short, moments in UTC.

use std::time::{SystemTime, UNIX_EPOCH};

const MONTHS: [&str; 12] =
    ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"];
const DAYS: [&str; 7] = ["Thu", "Fri", "Sat", "Sun", "Mon", "Tue", "Wed"];

/// Seconds since 1970.
pub(super) fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// How long ago, as the columns AGE have it: `5s`, `2m3s`, `10m`, `3h4m`, `2d`.
pub(super) fn age(seconds: u64) -> String {
    let (minutes, hours, days) = (seconds / 60, seconds / 3600, seconds / 86400);
    let and = |big: String, rest: u64, unit: &str| match rest {
        0 => big,
        rest => format!("{big}{rest}{unit}"),
    };
    match () {
        () if seconds < 120 => format!("{seconds}s"),
        () if minutes < 10 => and(format!("{minutes}m"), seconds % 60, "s"),
        () if minutes < 180 => format!("{minutes}m"),
        () if hours < 8 => and(format!("{hours}h"), minutes % 60, "m"),
        () if hours < 48 => format!("{hours}h"),
        () if days < 8 => and(format!("{days}d"), hours % 24, "h"),
        () => format!("{days}d"),
    }
}

/// Year, month and day (from 1) of a day since 1970, in the Gregorian calendar: years begin in March, so that the leap
/// day is their last.
fn date(days: u64) -> (u64, u64, u64) {
    let shifted = days + 719_468;
    let era = shifted / 146_097;
    let of_era = shifted % 146_097;
    let year_of_era = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month = (5 * of_year + 2) / 153;
    let day = of_year - (153 * month + 2) / 5 + 1;
    let month = if month < 10 { month + 3 } else { month - 9 };
    (year_of_era + era * 400 + u64::from(month <= 2), month, day)
}

/// `2019-04-28T09:43:16Z` (RFC 3339).
pub(super) fn rfc3339(time: SystemTime) -> String {
    let all = seconds(time);
    let (year, month, day) = date(all / 86400);
    let (hour, minute, second) = (all / 3600 % 24, all / 60 % 60, all % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}Z")
}

/// `Sun, 28 Apr 2019 09:43:16 +0000` (RFC 1123), of seconds since 1970.
pub(super) fn rfc1123(all: u64) -> String {
    let (year, month, day) = date(all / 86400);
    let (weekday, month) = (DAYS[(all / 86400 % 7) as usize], MONTHS[month as usize - 1]);
    let (hour, minute, second) = (all / 3600 % 24, all / 60 % 60, all % 60);
    format!("{weekday}, {day:02} {month} {year} {hour:02}:{minute:02}:{second:02} +0000")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn ages_are_short() {
        for (seconds, text) in [
            (0, "0s"),
            (119, "119s"),
            (120, "2m"),
            (123, "2m3s"),
            (599, "9m59s"),
            (660, "11m"),
            (11_100, "3h5m"),
            (100_000, "27h"),
            (180_000, "2d2h"),
            (900_000, "10d"),
        ] {
            assert_eq!(age(seconds), text);
        }
    }

    #[test]
    fn moments_are_dates() {
        let at = |seconds| UNIX_EPOCH + Duration::from_secs(seconds);
        assert_eq!(rfc3339(at(0)), "1970-01-01T00:00:00Z");
        assert_eq!(rfc3339(at(1_556_444_596)), "2019-04-28T09:43:16Z");
        assert_eq!(rfc1123(1_556_444_596), "Sun, 28 Apr 2019 09:43:16 +0000");
        assert_eq!(rfc3339(at(951_782_400)), "2000-02-29T00:00:00Z");
        assert_eq!(rfc3339(at(4_107_542_400)), "2100-03-01T00:00:00Z");
    }
}
