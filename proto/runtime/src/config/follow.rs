//! A configuration file of a program that runs: what of a change can be taken over is, and what cannot is said.

use std::{
    collections::{BTreeMap, BTreeSet},
    convert::Infallible,
    fmt, io,
    sync::Arc,
};

use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{MissedTickBehavior, interval},
};
use tracing::level_filters::LevelFilter;

use super::{
    ConfigFile, Mistakes, Table,
    keys::{Key, find},
};
use crate::{logging::Level, reload::LOOK_EVERY};

/// Follows a file: looks at it every second, and reads it at once, changed or not, when SIGHUP says so.
///
/// A file with a mistake leaves everything as it was. What other files hold that it names (certificates, tokens) is no
/// matter of this: whoever uses them looks at them.
pub struct Follower {
    what: Arc<What>,
    /// As it was read last.
    file: ConfigFile,
    level: LevelFilter,
    reach: Reach,
    hangups: Signal,
}

/// What stays.
struct What {
    keys: &'static [Table],
    /// What was said at the start, which is in force but for what can be taken over.
    started: BTreeMap<String, String>,
    read: Read,
    log: Level,
}

type Read = fn(&ConfigFile) -> Result<LevelFilter, Mistakes>;

/// What there is when it is looked at.
enum Look {
    /// What was read last.
    Same,
    /// Nothing that can be read.
    Unreadable(Mistakes),
    /// Another one, or one that somebody wants to be read.
    Fresh(ConfigFile, Result<News, Mistakes>),
}

/// Whether there was something to read when it was looked at last.
#[derive(Debug, Default, PartialEq, Eq)]
enum Reach {
    #[default]
    There,
    /// There was not. It may be in the middle of being replaced.
    Missed,
    /// Nor was there the time before, or somebody asked: this has been said.
    Gone,
}

/// What a file that was read again is.
#[derive(Debug, PartialEq, Eq)]
struct News {
    level: LevelFilter,
    /// Where it says something else than what is in force.
    pending: BTreeSet<String>,
}

impl Follower {
    /// Begins with a file that the program has started with. `keys` says what each of its keys is, and `read` checks
    /// all of it and finds the log's level. From here on SIGHUP does not end the process; a program does not wait so long
    /// ([`outlive_hangups`](crate::shutdown::outlive_hangups)).
    ///
    /// # Errors
    /// When the system gives no signals.
    pub fn new(
        file: ConfigFile,
        keys: &'static [Table],
        read: Read,
        (log, level): (Level, LevelFilter),
    ) -> io::Result<Self> {
        Ok(Self {
            what: Arc::new(What {
                keys,
                started: file.values(),
                read,
                log,
            }),
            file,
            level,
            reach: Reach::default(),
            hangups: signal(SignalKind::hangup())?,
        })
    }

    /// Follows it for ever.
    pub async fn follow(mut self) -> Infallible {
        let mut ticks = interval(LOOK_EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            let asked = tokio::select! {
                _ = ticks.tick() => false,
                // `None`: there will be no more of them, so the next is waited for in vain, and ticks go on.
                Some(()) = self.hangups.recv() => true,
            };
            let (what, file) = (Arc::clone(&self.what), self.file.clone());
            // Reading it reads the files that it names, too.
            let look = move || what.look(&file, asked);
            // A panic is in the log by itself, and the next look may do better.
            if let Ok(look) = tokio::task::spawn_blocking(look).await {
                self.take(look, asked);
            }
        }
    }

    fn take(&mut self, look: Look, asked: bool) {
        match look {
            Look::Same => {
                if self.reach.found() {
                    tracing::info!("the configuration file can be read again, and is as it was");
                }
            }
            Look::Unreadable(mistakes) => {
                if self.reach.missed(asked) {
                    tracing::error!(error = %mistakes,
                        "the configuration file cannot be read; what was in force stays so");
                }
            }
            Look::Fresh(file, news) => {
                self.reach = Reach::There;
                self.file = file;
                self.take_over(news);
            }
        }
    }

    fn take_over(&mut self, news: Result<News, Mistakes>) {
        let news = match news {
            Ok(news) => news,
            Err(mistakes) => {
                tracing::error!(error = %mistakes,
                    "the changed configuration cannot be used; what was in force stays so");
                return;
            }
        };
        // By the level that lets more through, or one of the two would hide it.
        if news.level > self.level {
            self.what.log.set(news.level);
        }
        tracing::info!(level = %news.level, "the configuration was read again");
        self.what.log.set(news.level);
        self.level = news.level;
        if !news.pending.is_empty() {
            let keys: Vec<_> = news.pending.iter().map(String::as_str).collect();
            tracing::warn!(
                keys = keys.join(", "),
                "these keys have changed and need a restart; until then they are as they were at the start"
            );
        }
    }
}

impl What {
    /// Reads the file again if it has changed, or if somebody asks for it.
    fn look(&self, file: &ConfigFile, asked: bool) -> Look {
        if !asked && !file.has_changed() {
            return Look::Same;
        }
        match file.read_again() {
            Ok(fresh) => {
                let news = self.news(&fresh);
                Look::Fresh(fresh, news)
            }
            // Not remembered: whatever is there next is another one.
            Err(mistakes) => Look::Unreadable(mistakes),
        }
    }

    fn news(&self, file: &ConfigFile) -> Result<News, Mistakes> {
        Ok(News {
            level: (self.read)(file)?,
            pending: pending(self.keys, &self.started, &file.values()),
        })
    }
}

impl Reach {
    /// There is nothing to read. True if that is to be said: to whoever asks, and else once, at the second look.
    fn missed(&mut self, asked: bool) -> bool {
        let says = asked || *self == Self::Missed;
        *self = match self {
            Self::There if !asked => Self::Missed,
            _ => Self::Gone,
        };
        says
    }

    /// There is again. True if somebody has heard that there was not.
    fn found(&mut self) -> bool {
        std::mem::take(self) == Self::Gone
    }
}

/// The keys that a restart would change.
fn pending(
    keys: &'static [Table],
    started: &BTreeMap<String, String>,
    now: &BTreeMap<String, String>,
) -> BTreeSet<String> {
    let places: BTreeSet<_> = started.keys().chain(now.keys()).collect();
    let changed = places
        .into_iter()
        .filter(|place| started.get(*place) != now.get(*place));
    changed
        .filter(|place| find(keys, place).is_none_or(Key::wants_restart))
        .map(|place| list_of(place).to_owned())
        .collect()
}

/// The list that a place is an item of, or the place itself.
fn list_of(place: &str) -> &str {
    let item = place.strip_suffix(']').and_then(|it| it.rsplit_once('['));
    item.map_or(place, |(list, _)| list)
}

impl fmt::Debug for Follower {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("Follower").field(&self.file.path()).finish()
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    const KEYS: &[Table] = &[
        Table {
            place: "log",
            says: "The log.",
            keys: &[
                Key::default("level", "\"info\"", "What is written.").at_once(),
                Key::default("format", "\"text\"", "How."),
            ],
        },
        Table {
            place: "doors[]",
            says: "Where people come in.",
            keys: &[Key::otherwise("from", "everybody", "Who may.")],
        },
    ];

    #[test]
    fn a_file_that_stays_away_is_told_of_once_and_one_that_is_replaced_is_not() {
        let mut reach = Reach::default();
        assert!(
            !reach.missed(false),
            "it may be in the middle of being replaced"
        );
        assert!(!reach.found());
        let looks = [(); 4].map(|()| reach.missed(false));
        assert_eq!(looks, [false, true, false, false]);
        assert!(reach.missed(true), "whoever asks is told");
        assert!(!reach.missed(false));
        assert!(reach.found());
        assert!(!reach.found());
        assert!(reach.missed(true));
        assert!(!reach.missed(false), "that has been said");
    }

    fn pending_between(before: &str, after: &str) -> Vec<String> {
        let values = |text| ConfigFile::of_text(text, Path::new("/x")).values();
        let pending = pending(KEYS, &values(before), &values(after));
        pending.into_iter().collect()
    }

    #[test]
    fn what_a_restart_would_change_is_named_and_nothing_else() {
        let before =
            "[log]\nlevel = \"info\"\nformat = \"text\"\n[[doors]]\nfrom = [\"a\", \"b\"]\n";
        let nothing: [&str; 0] = [];
        assert_eq!(pending_between(before, before), nothing);
        let moved = "[[doors]]\nfrom = [ 'a', \"b\" ]\n[log]\nformat='text'\nlevel='debug'\n";
        assert_eq!(pending_between(before, moved), nothing);
        let other = before.replace("text\"", "json\"").replace(", \"b\"", "");
        assert_eq!(
            pending_between(before, &other),
            ["doors[0].from", "log.format"]
        );
        let more = format!("{before}[[doors]]\nfrom = []\n");
        assert_eq!(pending_between(before, &more), ["doors", "doors[1].from"]);
        // What no table tells of is no key that could be taken over.
        let unknown = format!("{before}colour = \"red\"\n");
        assert_eq!(pending_between(before, &unknown), ["doors[0].colour"]);
    }
}
