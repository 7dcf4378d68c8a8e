//! Numbers for people.

/// A size in bytes with three significant digits: `1.24 MiB`, `873 KiB`,
/// `12 B`. Units are powers of 1024.
pub fn bytes(value: u64) -> String {
    const UNITS: [&str; 6] = ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];
    if value < 1024 {
        return format!("{value} B");
    }
    let mut scaled = value as f64;
    let mut unit = UNITS[0];
    for next in UNITS {
        scaled /= 1024.0;
        unit = next;
        // 1023.5 would be shown as 1024 of this unit: that is 1.00 of the next.
        if scaled < 1023.5 {
            break;
        }
    }
    format!("{} {unit}", three_digits(scaled))
}

/// A count with thousands separated: `12,345`.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut result = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            result.push(',');
        }
        result.push(digit);
    }
    result
}

/// A duration given in nanoseconds, in its two largest units: `340 ms`,
/// `12.3 s`, `1m 20s`, `2h 05m`, `3d 04h`.
pub fn duration(nanoseconds: u64) -> String {
    const SECOND: u64 = 1_000_000_000;
    let seconds = nanoseconds / SECOND + u64::from(nanoseconds % SECOND >= SECOND / 2);
    match nanoseconds {
        0 => "0 s".to_owned(),
        1..1_000 => format!("{nanoseconds} ns"),
        1_000..999_500 => format!("{} us", three_digits(nanoseconds as f64 / 1e3)),
        999_500..999_500_000 => format!("{} ms", three_digits(nanoseconds as f64 / 1e6)),
        _ if nanoseconds < 59_950_000_000 => {
            let text = format!("{:.1}", nanoseconds as f64 / 1e9);
            format!("{} s", text.strip_suffix(".0").unwrap_or(&text))
        }
        _ if seconds < 3_600 => format!("{}m {:02}s", seconds / 60, seconds % 60),
        _ if seconds < 86_400 => format!("{}h {:02}m", seconds / 3_600, seconds / 60 % 60),
        _ => format!("{}d {:02}h", seconds / 86_400, seconds / 3_600 % 24),
    }
}

/// Events a second: `120/s`, `3.4/s`, `12,345/s`; slower than one in ten
/// seconds, by the minute, hour or day: `2.1/min`, `1.5/h`, `0.3/day`.
pub fn rate(per_second: f64) -> String {
    let (value, unit) = slow_unit(per_second, 0.1);
    if value >= 999.5 {
        format!("{}/{unit}", count(value.round() as u64))
    } else {
        format!("{}/{unit}", two_digits(value))
    }
}

/// Bytes a second: `3.1 MiB/s`; below one byte a second, by the minute, hour
/// or day.
pub fn rate_bytes(per_second: f64) -> String {
    let (value, unit) = slow_unit(per_second, 1.0);
    if unit == "day" && value < 1.0 && value > 0.0 {
        return "< 1 B/day".to_owned();
    }
    format!("{}/{unit}", bytes(value.round() as u64))
}

/// A share between 0 and 1 as a percentage that never rounds to what it is
/// not: only all is `100 %`, and only nothing is `0 %`.
pub fn percent(share: f64) -> String {
    let percentage = share * 100.0;
    match percentage {
        _ if percentage.is_nan() || percentage <= 0.0 => "0 %".to_owned(),
        _ if percentage >= 100.0 => "100 %".to_owned(),
        _ if percentage < 0.01 => "< 0.01 %".to_owned(),
        _ if percentage >= 99.95 => "> 99.9 %".to_owned(),
        _ if percentage >= 10.0 => format!("{percentage:.1} %"),
        _ => format!("{percentage:.2} %"),
    }
}

fn slow_unit(per_second: f64, least: f64) -> (f64, &'static str) {
    let per_second = if per_second.is_finite() { per_second.max(0.0) } else { 0.0 };
    if per_second == 0.0 || per_second >= least {
        (per_second, "s")
    } else if per_second * 60.0 >= least.min(1.0) {
        (per_second * 60.0, "min")
    } else if per_second * 3_600.0 >= least.min(1.0) {
        (per_second * 3_600.0, "h")
    } else {
        (per_second * 86_400.0, "day")
    }
}

fn three_digits(value: f64) -> String {
    match value {
        _ if value >= 99.95 => format!("{value:.0}"),
        _ if value >= 9.995 => format!("{value:.1}"),
        _ => format!("{value:.2}"),
    }
}

fn two_digits(value: f64) -> String {
    match value {
        _ if value == 0.0 => "0".to_owned(),
        _ if value >= 9.95 => format!("{value:.0}"),
        _ => format!("{value:.1}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that sizes keep three digits and change unit in time.
    #[test]
    fn sizes() {
        let cases = [
            (0, "0 B"),
            (1023, "1023 B"),
            (1024, "1.00 KiB"),
            (1536, "1.50 KiB"),
            (10 * 1024, "10.0 KiB"),
            (1_048_575, "1.00 MiB"),
            (1_300_000, "1.24 MiB"),
            (894_000, "873 KiB"),
            (u64::MAX, "16.0 EiB"),
        ];
        for (value, text) in cases {
            assert_eq!(bytes(value), text);
        }
    }

    /// Check that thousands are separated.
    #[test]
    fn counts() {
        assert_eq!(count(0), "0");
        assert_eq!(count(999), "999");
        assert_eq!(count(12_345), "12,345");
        assert_eq!(count(u64::MAX), "18,446,744,073,709,551,615");
    }

    /// Check that durations carry over into the next unit.
    #[test]
    fn durations() {
        let cases = [
            (0, "0 s"),
            (12, "12 ns"),
            (1_500, "1.50 us"),
            (340_000_000, "340 ms"),
            (999_600_000, "1 s"),
            (12_340_000_000, "12.3 s"),
            (29_960_000_000, "30 s"),
            (59_960_000_000, "1m 00s"),
            (80_000_000_000, "1m 20s"),
            (3_599_600_000_000, "1h 00m"),
            (7_500_000_000_000, "2h 05m"),
            (273_600_000_000_000, "3d 04h"),
            (u64::MAX, "213503d 23h"),
        ];
        for (value, text) in cases {
            assert_eq!(duration(value), text, "{value}");
        }
    }

    /// Check that slow rates are told by the longer unit.
    #[test]
    fn rates() {
        let cases = [
            (0.0, "0/s"),
            (12_345.4, "12,345/s"),
            (120.2, "120/s"),
            (3.44, "3.4/s"),
            (0.05, "3.0/min"),
            (0.001, "3.6/h"),
            (0.000_01, "0.9/day"),
            (f64::NAN, "0/s"),
            (-1.0, "0/s"),
        ];
        for (value, text) in cases {
            assert_eq!(rate(value), text, "{value}");
        }
        assert_eq!(rate_bytes(3_250_000.0), "3.10 MiB/s");
        assert_eq!(rate_bytes(0.5), "30 B/min");
        assert_eq!(rate_bytes(0.000_001), "< 1 B/day");
    }

    /// Check that no share is rounded to all or nothing.
    #[test]
    fn percentages() {
        let cases = [
            (0.0, "0 %"),
            (0.000_001, "< 0.01 %"),
            (0.001_23, "0.12 %"),
            (0.123_4, "12.3 %"),
            (0.999_99, "> 99.9 %"),
            (1.0, "100 %"),
            (f64::NAN, "0 %"),
        ];
        for (value, text) in cases {
            assert_eq!(percent(value), text, "{value}");
        }
    }
}
