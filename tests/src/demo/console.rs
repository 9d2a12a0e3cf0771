//! What the tour says: numbered headings with a few lines under each.

use std::fmt::Display;
use std::time::Duration;

/// Prints steps.
pub(super) struct Console {
    step: u32,
}

impl Console {
    pub(super) fn new() -> Self {
        Self { step: 0 }
    }

    /// The heading of the next step.
    pub(super) fn step(&mut self, heading: &str) {
        self.step += 1;
        println!("\n{}. {heading}", self.step);
    }
}

/// A line under the heading.
pub(super) fn say(line: impl Display) {
    println!("   {line}");
}

/// Lines under the heading.
pub(super) fn lines(lines: &[String]) {
    for line in lines {
        say(line);
    }
}

/// A command as it would be typed.
pub(super) fn command(line: impl Display) {
    println!("   $ {line}");
}

/// A time as people read it.
pub(super) fn time(duration: Duration) -> String {
    if duration < Duration::from_secs(1) {
        format!("{} ms", duration.as_millis())
    } else {
        format!("{:.2} s", duration.as_secs_f64())
    }
}
