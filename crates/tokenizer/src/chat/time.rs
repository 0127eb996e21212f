//! `strftime` for the date that some templates put into the system message. Universal time:
//! a server has no place of its own.

use std::fmt::Write;

const DAYS: [&str; 7] = [
    "Sunday",
    "Monday",
    "Tuesday",
    "Wednesday",
    "Thursday",
    "Friday",
    "Saturday",
];
const MONTHS: [&str; 12] = [
    "January",
    "February",
    "March",
    "April",
    "May",
    "June",
    "July",
    "August",
    "September",
    "October",
    "November",
    "December",
];

/// Formats `now`, seconds since 1970. Directives that are not known are left as they stand.
pub(super) fn strftime(format: &str, now: i64) -> String {
    let days = now.div_euclid(86_400);
    let second = now.rem_euclid(86_400);
    let (year, month, day) = civil(days);
    // Day 0 was a Thursday.
    let weekday = (days + 4).rem_euclid(7) as usize;
    let (hour, minute, second) = (second / 3600, second / 60 % 60, second % 60);
    let hour12 = if hour % 12 == 0 { 12 } else { hour % 12 };
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        // `%-d`: without leading zeros.
        let bare = directive == Some('-');
        if bare {
            directive = chars.next();
        }
        let mut two = |number: i64| {
            // Writing to a string does not fail.
            let _ = if bare {
                write!(out, "{number}")
            } else {
                write!(out, "{number:02}")
            };
        };
        match directive {
            Some('d') => two(day),
            Some('m') => two(month),
            Some('y') => two(year.rem_euclid(100)),
            Some('H') => two(hour),
            Some('I') => two(hour12),
            Some('M') => two(minute),
            Some('S') => two(second),
            Some('Y') => out.push_str(&year.to_string()),
            Some('j') => {
                let january = days_from_civil(year, 1, 1);
                let _ = write!(out, "{:03}", days - january + 1);
            }
            Some('B') => out.push_str(MONTHS[month as usize - 1]),
            Some('b' | 'h') => out.push_str(&MONTHS[month as usize - 1][..3]),
            Some('A') => out.push_str(DAYS[weekday]),
            Some('a') => out.push_str(&DAYS[weekday][..3]),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('F') => {
                let _ = write!(out, "{year}-{month:02}-{day:02}");
            }
            Some('T') => {
                let _ = write!(out, "{hour:02}:{minute:02}:{second:02}");
            }
            Some('Z') => out.push_str("UTC"),
            Some('z') => out.push_str("+0000"),
            Some('%') => out.push('%'),
            Some(other) => out.extend(["%", if bare { "-" } else { "" }, &other.to_string()]),
            None => out.push('%'),
        }
    }
    out
}

/// Year, month and day of a day counted from 1970-01-01.
///
/// Method: Howard Hinnant, "chrono-Compatible Low-Level Date Algorithms", `civil_from_days`.
fn civil(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let era = days.div_euclid(146_097);
    let day_of_era = days.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let shifted_month = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * shifted_month + 2) / 5 + 1;
    let month = if shifted_month < 10 {
        shifted_month + 3
    } else {
        shifted_month - 9
    };
    (year_of_era + era * 400 + i64::from(month <= 2), month, day)
}

/// The inverse of [`civil`], `days_from_civil` of the same source.
fn days_from_civil(year: i64, month: i64, day: i64) -> i64 {
    let year = year - i64::from(month <= 2);
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * (month + if month > 2 { -3 } else { 9 }) + 2) / 5 + day - 1;
    era * 146_097 + year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year - 719_468
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_come_out_as_pythons() {
        // 2024-02-29 23:05:09 UTC, a Thursday.
        let now = 1_709_247_909;
        let check = |format: &str, want: &str| assert_eq!(strftime(format, now), want, "{format}");
        check("%d %b %Y", "29 Feb 2024");
        check("%A, %B %d, %Y", "Thursday, February 29, 2024");
        check("%Y-%m-%d %H:%M:%S", "2024-02-29 23:05:09");
        check(
            "%-d/%-m/%y %I:%M %p day %j 100%%",
            "29/2/24 11:05 PM day 060 100%",
        );
        check("%Q %", "%Q %");
        assert_eq!(strftime("%F %T %a", -1), "1969-12-31 23:59:59 Wed");
    }

    #[test]
    fn days_and_dates_are_inverse() {
        for days in (-800_000..800_000).step_by(97) {
            let (year, month, day) = civil(days);
            assert_eq!(days_from_civil(year, month, day), days);
        }
    }
}
