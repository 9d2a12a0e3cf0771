//! Pauses between attempts.

use std::time::Duration;

use crate::Random;

/// Exponential pauses with full jitter: each is random between half of the current step and all of
/// it, so that a fleet that lost its control plane at one moment does not come back at one moment.
#[derive(Debug)]
pub struct Backoff {
    random: Random,
    first: Duration,
    most: Duration,
    step: Duration,
}

impl Backoff {
    /// Starts at `first`, doubles up to `most`.
    ///
    /// # Panics
    /// If `first` is zero or above `most`: both are constants or validated configuration.
    pub fn new(random: Random, first: Duration, most: Duration) -> Self {
        assert!(
            !first.is_zero() && first <= most,
            "a backoff grows from a positive first pause"
        );
        Self {
            random,
            first,
            most,
            step: first,
        }
    }

    /// The next pause.
    pub fn pause(&mut self) -> Duration {
        let pause = self.step.mul_f64(0.5 + self.random.fraction() / 2.0);
        self.step = (self.step * 2).min(self.most);
        pause
    }

    /// Begins again at the first step. Call it on proof of success (rule 3: the first *applied*
    /// message), not on a mere connect.
    pub fn reset(&mut self) {
        self.step = self.first;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_within_their_bounds_and_reset() {
        let (first, most) = (Duration::from_millis(100), Duration::from_secs(1));
        let mut backoff = Backoff::new(Random::seeded(1), first, most);
        for step in [100, 200, 400, 800, 1000, 1000] {
            let step = Duration::from_millis(step);
            let pause = backoff.pause();
            assert!(pause >= step / 2 && pause <= step, "{pause:?} for {step:?}");
        }
        backoff.reset();
        assert!(backoff.pause() <= first);
    }
}
