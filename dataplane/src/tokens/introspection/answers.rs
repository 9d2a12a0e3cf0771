//! What an issuer has said, kept for a while and within bounds.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Mutex, PoisonError},
    time::Duration,
};

use tokio::time::Instant;

use super::{Answer, Fingerprint};
use crate::limits::TokenLimits;

/// Owners, and apart from them what is nobody's: whoever tries tokens at random takes no place of a good one.
pub(super) struct Answers {
    owners: Mutex<Kept>,
    others: Mutex<Kept>,
}

/// Answers in the order in which they came; the oldest makes room.
struct Kept {
    most: usize,
    answers: HashMap<Fingerprint, (Answer, Instant)>,
    order: VecDeque<(Fingerprint, Instant)>,
}

impl Answers {
    pub(super) fn new(limits: TokenLimits) -> Self {
        let kept = |most| {
            Mutex::new(Kept {
                most,
                answers: HashMap::new(),
                order: VecDeque::new(),
            })
        };
        Self {
            owners: kept(limits.owners),
            others: kept(limits.others),
        }
    }

    /// What was said of a token, if that still holds.
    pub(super) fn get(&self, fingerprint: &Fingerprint) -> Option<Answer> {
        let of = |kept: &Mutex<Kept>| {
            let kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
            let (answer, until) = kept.answers.get(fingerprint)?;
            (Instant::now() < *until).then(|| answer.clone())
        };
        of(&self.owners).or_else(|| of(&self.others))
    }

    /// Keeps what was said for this long.
    pub(super) fn keep(&self, fingerprint: Fingerprint, answer: Answer, life: Duration) {
        if life.is_zero() {
            return;
        }
        let kept = match answer {
            Answer::Owner(_) => &self.owners,
            Answer::Nameless | Answer::Inactive => &self.others,
        };
        let mut kept = kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.keep(fingerprint, answer, Instant::now() + life);
    }
}

impl Kept {
    fn keep(&mut self, fingerprint: Fingerprint, answer: Answer, until: Instant) {
        while self.order.len() >= self.most {
            let Some((oldest, its_end)) = self.order.pop_front() else {
                break;
            };
            // It may have come again since; then this is not its place.
            if self
                .answers
                .get(&oldest)
                .is_some_and(|(_, end)| *end == its_end)
            {
                self.answers.remove(&oldest);
            }
        }
        self.order.push_back((fingerprint, until));
        self.answers.insert(fingerprint, (answer, until));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answers(most: usize) -> Answers {
        Answers::new(TokenLimits {
            owners: most,
            others: most,
            ..TokenLimits::default()
        })
    }

    fn owner(name: &str) -> Answer {
        Answer::Owner(name.to_owned())
    }

    const LONG: Duration = Duration::from_mins(5);

    #[tokio::test(start_paused = true)]
    async fn an_answer_is_kept_as_long_as_it_holds() {
        let answers = answers(10);
        answers.keep([1; 32], owner("alice"), Duration::from_secs(10));
        answers.keep([2; 32], owner("bob"), Duration::ZERO);
        tokio::time::advance(Duration::from_millis(9_999)).await;
        assert_eq!(answers.get(&[1; 32]), Some(owner("alice")));
        assert_eq!(answers.get(&[2; 32]), None);
        tokio::time::advance(Duration::from_millis(1)).await;
        assert_eq!(answers.get(&[1; 32]), None);
    }

    #[tokio::test(start_paused = true)]
    async fn no_more_are_kept_than_may_be_and_bad_ones_take_no_place_of_good_ones() {
        let answers = answers(2);
        for number in 0..100 {
            answers.keep([number; 32], Answer::Inactive, LONG);
        }
        answers.keep([100; 32], owner("a"), LONG);
        answers.keep([101; 32], owner("b"), LONG);
        assert_eq!(answers.get(&[97; 32]), None);
        assert_eq!(answers.get(&[98; 32]), Some(Answer::Inactive));
        assert_eq!(answers.get(&[100; 32]), Some(owner("a")));
        answers.keep([102; 32], owner("c"), LONG);
        assert_eq!(answers.get(&[100; 32]), None, "the oldest made room");
        assert_eq!(answers.get(&[101; 32]), Some(owner("b")));
        for kept in [&answers.owners, &answers.others] {
            let kept = kept.lock().unwrap();
            assert!(kept.answers.len() <= 2 && kept.order.len() <= 2);
        }
    }

    #[tokio::test(start_paused = true)]
    async fn an_answer_that_comes_again_takes_its_new_place() {
        let answers = answers(3);
        answers.keep([1; 32], owner("a"), Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(2)).await;
        answers.keep([1; 32], owner("a"), LONG);
        answers.keep([2; 32], owner("b"), LONG);
        answers.keep([3; 32], owner("c"), LONG);
        assert_eq!(answers.get(&[1; 32]), Some(owner("a")));
    }
}
