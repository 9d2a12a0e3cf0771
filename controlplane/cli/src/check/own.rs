//! Certificates between this program and the control plane.

use super::{DAY, Facts, Finding, end_in_words};
use crate::certificates::Shown;

/// Longer than the last third of a certificate of 90 days, when it should have been renewed.
const SOON: i64 = 30 * DAY;

/// The next weekend may be too late.
const NOW: i64 = 7 * DAY;

pub(super) fn certificates(facts: &Facts) -> Vec<Finding> {
    let shown = facts.shown.iter();
    shown
        .filter_map(|shown| finding(shown, facts.now))
        .collect()
}

fn finding(shown: &Shown, now: i64) -> Option<Finding> {
    const RENEW: &str = "renew it: a new file is taken over without a restart";
    let left = match &shown.ends {
        Ok(end) => end - now,
        Err(why) => {
            let what = format!("it could not be looked at: {why}");
            let hint = "a replica that is away is replaced by another; its certificate is not seen meanwhile";
            return Some(Finding::new(&*shown.by, what, hint).that_can_wait());
        }
    };
    let what = format!("the certificate {}", end_in_words(left));
    let finding = Finding::new(&*shown.by, what, RENEW);
    match left {
        SOON.. => None,
        NOW.. => Some(finding.that_can_wait()),
        _ => Some(finding),
    }
}

#[cfg(test)]
mod tests {
    use super::{
        super::{Report, tests::sound},
        *,
    };
    use crate::args::Output;

    fn with(ends: Result<i64, String>) -> Report {
        let mut facts = sound();
        let by = "https://cp-1.example.org:9080".to_owned();
        let ends = ends.map(|days| facts.now + days * DAY);
        facts.shown.push(Shown { by, ends });
        Report::of(&facts)
    }

    #[test]
    fn a_certificate_is_said_a_month_before_it_ends_and_is_a_finding_in_its_last_week() {
        for (days, said, findings) in [
            (90, "", 0),
            (30, "", 0),
            (29, "the certificate ends in 29 days", 0),
            (7, "the certificate ends in 7 days", 0),
            (6, "the certificate ends in 6 days", 1),
            (-1, "the certificate has ended", 1),
        ] {
            let report = with(Ok(days));
            let short = report.render(Output::Short);
            assert!(short.ends_with(said), "{short}");
            assert_eq!(short.is_empty(), said.is_empty(), "{short}");
            assert_eq!(report.findings(), findings, "{short}");
        }
    }

    #[test]
    fn what_can_wait_is_marked_and_leaves_the_whole_fit() {
        let report = with(Ok(20));
        let text = report.render(Output::Table);
        assert!(text.contains("\n!   those between here"), "{text}");
        assert!(text.ends_with("\nNothing that cannot wait.\n"), "{text}");
        let away = with(Err("it does not answer".to_owned()));
        assert_eq!(away.findings(), 0);
        assert!(away.render(Output::Short).contains("it does not answer"));
    }
}
