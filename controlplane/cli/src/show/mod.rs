//! Answers as text: as a table, as JSON, and as what names each thing.

pub(crate) mod fleet;
pub(crate) mod moves;
pub(crate) mod places;
pub(crate) mod rewound;

use ferrypost_proto::v1;
use prost::Message;
use serde_json::Value;

use crate::{args::Output, json};

/// An answer in all three forms.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct View {
    text: String,
    short: Vec<String>,
    json: Value,
}

impl View {
    /// Of a message of the contract with this name.
    pub(crate) fn new(
        name: &str,
        message: &impl Message,
        text: &impl ToString,
        short: impl IntoIterator<Item = String>,
    ) -> Self {
        Self {
            text: text.to_string(),
            short: short.into_iter().collect(),
            json: json::of(name, message),
        }
    }

    pub(crate) fn render(&self, output: Output) -> String {
        match output {
            Output::Table => self.text.clone(),
            Output::Json => format!("{:#}", self.json),
            Output::Short => self.short.join("\n"),
        }
    }

    /// JSON on one line, for one answer of many.
    pub(crate) fn render_one_of_many(&self, output: Output) -> String {
        match output {
            Output::Json => self.json.to_string(),
            other => self.render(other),
        }
    }
}

/// An enumerator without its enum's name.
pub(crate) fn word<'a>(name: &'a str, prefix: &str) -> &'a str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// What is missing from the figures, for a note beside them.
pub(crate) fn missing(header: Option<&v1::ResponseHeader>) -> Option<String> {
    let header = header?;
    let mut notes = Vec::new();
    if !header.unreachable.is_empty() {
        notes.push(format!(
            "these data planes did not answer, and are missing: {}",
            header.unreachable.join(", ")
        ));
    }
    if header.rewound {
        notes.push(
            "the store was restored to an older state, and nothing moves: ferrypost rewound"
                .to_owned(),
        );
    }
    (!notes.is_empty()).then(|| format!("note: {}", notes.join("\nnote: ")))
}

/// A time as people read it: the two largest units.
fn age(age: Option<&prost_types::Duration>) -> String {
    let seconds = age.map_or(0, |age| age.seconds).max(0);
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m{}s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{}h{}m", seconds / 3600, seconds % 3600 / 60),
        _ => format!("{}d{}h", seconds / 86_400, seconds % 86_400 / 3600),
    }
}

/// A revision as it is written elsewhere: the base only where there is one.
fn revision(revision: Option<&v1::Revision>) -> String {
    match revision {
        None => String::new(),
        Some(v1::Revision { base: 0, store }) => store.to_string(),
        Some(v1::Revision { base, store }) => format!("{base}.{store}"),
    }
}

fn time(time: Option<&prost_types::Timestamp>) -> String {
    let whole = time.map(|time| prost_types::Timestamp { nanos: 0, ..*time });
    whole.map_or_else(String::new, |time| time.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ages_have_two_units() {
        let said = |seconds| age(Some(&prost_types::Duration { seconds, nanos: 0 }));
        let said: Vec<_> = [5, 65, 3700, 90_000].map(said).into();
        assert_eq!(said, ["5s", "1m5s", "1h1m", "1d1h"]);
    }

    #[test]
    fn an_answer_has_three_forms() {
        let message = v1::Revision { base: 1, store: 2 };
        let view = View::new(
            "Revision",
            &message,
            &"A\n",
            ["a".to_owned(), "b".to_owned()],
        );
        assert_eq!(view.render(Output::Table), "A\n");
        assert_eq!(view.render(Output::Short), "a\nb");
        assert_eq!(
            view.render_one_of_many(Output::Json),
            r#"{"base":"1","store":"2"}"#
        );
    }

    #[test]
    fn who_did_not_answer_is_never_left_out() {
        assert_eq!(missing(Some(&v1::ResponseHeader::default())), None);
        let header = v1::ResponseHeader {
            unreachable: vec!["gateway-2".into()],
            rewound: true,
            ..v1::ResponseHeader::default()
        };
        let note = missing(Some(&header)).unwrap();
        assert!(
            note.contains("gateway-2") && note.contains("restored"),
            "{note}"
        );
    }
}
