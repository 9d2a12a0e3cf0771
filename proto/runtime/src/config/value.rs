//! Values with a form of their own: times and the numbers of a limit.

use std::{fmt, ops::RangeInclusive, time::Duration};

use super::Section;

/// A limit: a number or a time above zero.
pub trait Limit: Sized {
    /// Reads one; `None` if the key is not there or a mistake has been noted.
    fn read(section: &Section<'_>, key: &'static str) -> Option<Self>;

    /// As a configuration writes it.
    fn shown(&self) -> String;
}

impl Limit for usize {
    fn read(section: &Section<'_>, key: &'static str) -> Option<Self> {
        section.number(key, 1..=Self::MAX)
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Limit for u32 {
    fn read(section: &Section<'_>, key: &'static str) -> Option<Self> {
        section.number(key, 1..=Self::MAX)
    }

    fn shown(&self) -> String {
        self.to_string()
    }
}

impl Limit for Duration {
    fn read(section: &Section<'_>, key: &'static str) -> Option<Self> {
        section.duration(key, Self::from_millis(1)..=Self::MAX)
    }

    fn shown(&self) -> String {
        format!("\"{}\"", Time(*self))
    }
}

/// What a text must be to be one.
pub(super) const A_TIME: &str = "a time, as \"500ms\", \"10s\", \"5m\" or \"1h\"";

/// Reads `500ms`, `20s`, `2m`, `1h`; `None` if it is nothing of the kind.
pub fn time(text: &str) -> Option<Duration> {
    let digits = text.bytes().take_while(u8::is_ascii_digit).count();
    let (number, unit) = text.split_at(digits);
    let number: u64 = number.parse().ok()?;
    let milliseconds = UNITS
        .iter()
        .find(|(word, _)| *word == unit)
        .and_then(|(_, factor)| number.checked_mul(*factor));
    milliseconds.map(Duration::from_millis)
}

const UNITS: [(&str, u64); 4] = [("h", 3_600_000), ("m", 60_000), ("s", 1000), ("ms", 1)];

/// What a number between bounds is, in words.
pub(super) fn number_within<N: fmt::Display + PartialEq>(
    bounds: &RangeInclusive<N>,
    greatest: &N,
) -> String {
    if bounds.end() == greatest {
        return format!("a whole number from {} on", bounds.start());
    }
    format!("a whole number, {} to {}", bounds.start(), bounds.end())
}

/// What a time between bounds must be, in words.
pub(super) fn time_within(bounds: &RangeInclusive<Duration>) -> String {
    if *bounds.end() == Duration::MAX {
        return format!("must be at least \"{}\"", Time(*bounds.start()));
    }
    format!(
        "must be \"{}\" to \"{}\"",
        Time(*bounds.start()),
        Time(*bounds.end())
    )
}

/// What a time between bounds is, in words.
pub(super) fn a_time_within(bounds: &RangeInclusive<Duration>) -> String {
    let (least, most) = (bounds.start(), bounds.end());
    match (least.is_zero(), *most == Duration::MAX) {
        (true, true) => "a time".to_owned(),
        (_, true) => format!("a time from {} on", least.shown()),
        _ => format!("a time, {} to {}", least.shown(), most.shown()),
    }
}

/// A time as a configuration writes it.
struct Time(Duration);

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let milliseconds = self.0.as_millis();
        let fits = |(_, factor): &&(&str, u64)| milliseconds.is_multiple_of(u128::from(*factor));
        match UNITS.iter().find(fits) {
            Some((unit, factor)) => write!(f, "{}{unit}", milliseconds / u128::from(*factor)),
            None => write!(f, "{milliseconds}ms"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_need_a_unit() {
        assert_eq!(time("500ms"), Some(Duration::from_millis(500)));
        assert_eq!(time("10s"), Some(Duration::from_secs(10)));
        assert_eq!(time("2m"), Some(Duration::from_mins(2)));
        assert_eq!(time("1h"), Some(Duration::from_hours(1)));
        for bad in [
            "",
            "5",
            "s",
            "-1s",
            "+1s",
            "1.5s",
            "1d",
            "10 s",
            "99999999999999999999s",
        ] {
            assert_eq!(time(bad), None, "{bad}");
        }
    }

    #[test]
    fn times_are_shown_as_they_are_written() {
        for text in ["500ms", "10s", "5m", "1h", "90s"] {
            assert_eq!(Time(time(text).unwrap()).to_string(), text);
        }
    }
}
