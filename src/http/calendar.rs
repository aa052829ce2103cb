//! Instants and durations as text, the way Go prints them. Pure.

use bytes::{BufMut, BytesMut};
use std::fmt::Write as _;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_SECONDS: u64 = 86_400;
/// 9999-12-31T23:59:59Z, the last second that RFC 3339 can say.
const LAST_SECOND: u64 = 253_402_300_799;

/// Writes an instant as RFC 3339 in UTC, with as many decimals of a second as it has. Instants outside 1970 to 9999 are
/// moved to the nearer end.
pub(crate) fn rfc3339(out: &mut BytesMut, instant: SystemTime) {
    let since = instant.duration_since(UNIX_EPOCH).unwrap_or_default();
    let since = since.min(Duration::new(LAST_SECOND, 999_999_999));
    let (days, second) = (since.as_secs() / DAY_SECONDS, since.as_secs() % DAY_SECONDS);
    let (year, month, day) = civil_date(days);
    decimal(out, year, 4);
    out.put_u8(b'-');
    decimal(out, month, 2);
    out.put_u8(b'-');
    decimal(out, day, 2);
    out.put_u8(b'T');
    decimal(out, second / 3600, 2);
    out.put_u8(b':');
    decimal(out, second / 60 % 60, 2);
    out.put_u8(b':');
    decimal(out, second % 60, 2);
    fraction(out, since.subsec_nanos(), 9);
    out.put_u8(b'Z');
}

/// Year, month and day of a day since 1970-01-01, by the Gregorian calendar (Hinnant's `civil_from_days`: the year is
/// taken to begin in March, so that the leap day is its last).
fn civil_date(days: u64) -> (u64, u64, u64) {
    const ERA_DAYS: u64 = 146_097; // 400 years
    let shifted = days + 719_468; // from 0000-03-01
    let (era, day_of_era) = (shifted / ERA_DAYS, shifted % ERA_DAYS);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * from_march + 2) / 5 + 1;
    let month = if from_march < 10 { from_march + 3 } else { from_march - 9 };
    (era * 400 + year_of_era + u64::from(month <= 2), month, day)
}

/// Writes a number with leading zeros.
fn decimal(out: &mut BytesMut, number: u64, width: u32) {
    for place in (0..width).rev() {
        out.put_u8(b'0' + (number / 10u64.pow(place) % 10) as u8);
    }
}

/// Writes a fraction given in units of `10^-places`, without trailing zeros, and nothing if it is zero.
fn fraction(out: &mut BytesMut, mut units: u32, mut places: u32) {
    if units == 0 {
        return;
    }
    while units.is_multiple_of(10) {
        units /= 10;
        places -= 1;
    }
    out.put_u8(b'.');
    decimal(out, u64::from(units), places);
}

/// Writes a duration as Go does: `1h2m3.5s`, `12.3ms`, `0s`.
pub(crate) fn duration(out: &mut BytesMut, duration: Duration) {
    let nanos = duration.subsec_nanos();
    let seconds = duration.as_secs();
    if seconds == 0 {
        let (unit, scale, places) = match nanos {
            0 => return out.put_slice(b"0s"),
            1..1_000 => ("ns", 1, 0),
            1_000..1_000_000 => ("µs", 1_000, 3),
            _ => ("ms", 1_000_000, 6),
        };
        _ = write!(out, "{}", nanos / scale);
        fraction(out, nanos % scale, places);
        return out.put_slice(unit.as_bytes());
    }
    let (hours, minutes) = (seconds / 3600, seconds / 60 % 60);
    if hours > 0 {
        _ = write!(out, "{hours}h");
    }
    if seconds >= 60 {
        _ = write!(out, "{minutes}m");
    }
    _ = write!(out, "{}", seconds % 60);
    fraction(out, nanos, 9);
    out.put_u8(b's');
}

#[cfg(test)]
mod tests {
    use super::*;

    fn written(write: impl FnOnce(&mut BytesMut)) -> String {
        let mut out = BytesMut::new();
        write(&mut out);
        String::from_utf8(out.to_vec()).unwrap()
    }

    #[test]
    fn instants() {
        for (seconds, nanos, expected) in [
            (0, 0, "1970-01-01T00:00:00Z"),
            (951_782_400, 0, "2000-02-29T00:00:00Z"),
            (951_868_799, 500_000_000, "2000-02-29T23:59:59.5Z"),
            (4_107_542_400, 0, "2100-03-01T00:00:00Z"),
            (1_795_327_166, 750_729_693, "2026-11-22T05:59:26.750729693Z"),
            (1_795_327_166, 40_000, "2026-11-22T05:59:26.00004Z"),
            (LAST_SECOND, 1, "9999-12-31T23:59:59.000000001Z"),
            (LAST_SECOND + 1, 5, "9999-12-31T23:59:59.999999999Z"),
        ] {
            let instant = UNIX_EPOCH + Duration::new(seconds, nanos);
            assert_eq!(written(|out| rfc3339(out, instant)), expected);
        }
        assert_eq!(written(|out| rfc3339(out, UNIX_EPOCH - Duration::from_secs(1))), "1970-01-01T00:00:00Z");
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let mut last = civil_date(0);
        for days in 1..200_000 {
            let (year, month, day) = civil_date(days);
            let next_day = (year, month, day - 1) == last;
            let next_month = day == 1 && last.2 >= 28 && (year * 12 + month) == (last.0 * 12 + last.1) + 1;
            assert!(next_day || next_month, "{last:?} {:?}", (year, month, day));
            last = (year, month, day);
        }
    }

    #[test]
    fn durations() {
        for (nanos, expected) in [
            (0, "0s"),
            (999, "999ns"),
            (1_500, "1.5µs"),
            (2_000_000, "2ms"),
            (2_530_025_906, "2.530025906s"),
            (60_000_000_000, "1m0s"),
            (398_732_765_568, "6m38.732765568s"),
            (3_600_000_000_000, "1h0m0s"),
            (90_061_000_000_000, "25h1m1s"),
        ] {
            assert_eq!(written(|out| duration(out, Duration::from_nanos(nanos))), expected);
        }
    }
}
