use std::net::Ipv4Addr;

use futures_util::future::join_all;
use tokio::time::{advance, timeout};

use super::*;

/// A resolver that says what it was told to say.
#[derive(Clone, Default)]
pub(crate) struct Book(Arc<Mutex<Page>>);

#[derive(Default)]
struct Page {
    answer: Answer,
    asked: usize,
    running: usize,
    most_running: usize,
}

/// What it says of every host.
#[derive(Clone, Default)]
pub(crate) enum Answer {
    Addresses(Vec<IpAddr>),
    Failure,
    /// It never says anything.
    #[default]
    Silence,
}

impl Answer {
    pub(crate) fn addresses(texts: &[&str]) -> Self {
        Self::Addresses(texts.iter().map(|text| text.parse().unwrap()).collect())
    }
}

impl Book {
    pub(crate) fn saying(answer: Answer) -> Self {
        let book = Self::default();
        book.say(answer);
        book
    }

    /// From the next look-up on.
    pub(crate) fn say(&self, answer: Answer) {
        self.page().answer = answer;
    }

    pub(crate) fn asked(&self) -> usize {
        self.page().asked
    }

    fn page(&self) -> MutexGuard<'_, Page> {
        self.0.lock().unwrap()
    }
}

impl LookUp for Book {
    fn look_up(&self, _: String) -> BoxFuture<'static, io::Result<Vec<SocketAddr>>> {
        let book = self.clone();
        Box::pin(async move {
            let answer = {
                let mut page = book.page();
                page.asked += 1;
                page.running += 1;
                page.most_running = page.most_running.max(page.running);
                page.answer.clone()
            };
            tokio::task::yield_now().await;
            if matches!(answer, Answer::Silence) {
                std::future::pending::<()>().await;
            }
            book.page().running -= 1;
            match answer {
                Answer::Addresses(addresses) => {
                    let with_port = |address| SocketAddr::new(address, 0);
                    Ok(addresses.into_iter().map(with_port).collect())
                }
                _ => Err(io::Error::other("Name or service not known")),
            }
        })
    }
}

const HOST: &str = "mail.example.org";
const OLD: &str = "192.0.2.1";
const NEW: &str = "192.0.2.2";

fn resolver(book: &Book) -> Resolver {
    Resolver::new(book.clone(), Shutdown::new())
}

fn at(address: &str) -> Vec<SocketAddr> {
    vec![SocketAddr::new(address.parse().unwrap(), 143)]
}

async fn resolved(resolver: &Resolver) -> Vec<SocketAddr> {
    resolver.resolve(HOST, 143).await.unwrap()
}

/// Lets the look-ups behind come to their end.
async fn settle() {
    for _ in 0..8 {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_thousand_callers_are_one_question() {
    let book = Book::saying(Answer::addresses(&[OLD]));
    let resolver = resolver(&book);
    let all = join_all((0..1000).map(|_| resolved(&resolver))).await;
    assert!(all.iter().all(|addresses| *addresses == at(OLD)));
    assert_eq!(book.asked(), 1);
    // The ports of a host are one host.
    resolver.resolve(HOST, 993).await.unwrap();
    assert_eq!(book.asked(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_resolver_that_fails_or_is_silent_for_a_minute_costs_nobody_anything() {
    for away in [Answer::Failure, Answer::Silence] {
        let book = Book::saying(Answer::addresses(&[OLD]));
        let resolver = resolver(&book);
        assert_eq!(resolved(&resolver).await, at(OLD));
        book.say(away);
        for _ in 0..60 {
            advance(Duration::from_secs(1)).await;
            let begun = Instant::now();
            assert_eq!(resolved(&resolver).await, at(OLD));
            assert!(begun.elapsed() <= PATIENCE);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn a_host_that_changes_its_address_is_followed() {
    let book = Book::saying(Answer::addresses(&[OLD]));
    let resolver = resolver(&book);
    resolved(&resolver).await;
    book.say(Answer::addresses(&[NEW]));
    advance(FRESH).await;
    assert_eq!(
        resolved(&resolver).await,
        at(OLD),
        "the new one comes behind"
    );
    settle().await;
    assert_eq!(resolved(&resolver).await, at(NEW));
}

#[tokio::test(start_paused = true)]
async fn after_a_failure_a_host_is_asked_for_again_and_followed() {
    let book = Book::saying(Answer::addresses(&[OLD]));
    let resolver = resolver(&book);
    resolved(&resolver).await;
    book.say(Answer::Failure);
    advance(FRESH).await;
    resolved(&resolver).await;
    settle().await;
    book.say(Answer::addresses(&[NEW]));
    resolved(&resolver).await;
    settle().await;
    assert_eq!(book.asked(), 2, "not before its pause is over");
    advance(RETRY).await;
    resolved(&resolver).await;
    settle().await;
    assert_eq!(resolved(&resolver).await, at(NEW));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_is_old_is_not_taken_when_there_is_a_newer_one() {
    let book = Book::saying(Answer::addresses(&[OLD]));
    let resolver = resolver(&book);
    resolved(&resolver).await;
    book.say(Answer::addresses(&[NEW]));
    advance(TRUSTED).await;
    assert_eq!(resolved(&resolver).await, at(NEW));
}

#[tokio::test(start_paused = true)]
async fn a_name_that_never_resolved_fails_with_the_resolvers_words() {
    let book = Book::saying(Answer::Failure);
    let resolver = resolver(&book);
    for _ in 0..10 {
        let error = resolver.resolve(HOST, 143).await.unwrap_err();
        assert_eq!(error.to_string(), "Name or service not known");
    }
    assert_eq!(book.asked(), 1);
    book.say(Answer::Addresses(Vec::new()));
    advance(RETRY).await;
    let error = resolver.resolve(HOST, 143).await.unwrap_err();
    assert!(matches!(error, ResolveError::NoAddress));
    book.say(Answer::addresses(&[NEW]));
    advance(RETRY).await;
    assert_eq!(resolved(&resolver).await, at(NEW));
}

#[tokio::test(start_paused = true)]
async fn look_ups_that_hang_are_few() {
    let book = Book::default();
    let resolver = resolver(&book);
    let callers = (0..100).map(|n| {
        let resolver = resolver.clone();
        async move {
            let host = format!("{n}.example.org");
            let asking = resolver.resolve(&host, 143);
            timeout(Duration::from_secs(5), asking).await.is_err()
        }
    });
    let all = join_all(callers).await;
    assert!(all.into_iter().all(|timed_out| timed_out));
    let page = book.page();
    assert_eq!((page.asked, page.most_running), (AT_ONCE, AT_ONCE));
}

#[tokio::test(start_paused = true)]
async fn what_nobody_could_confirm_for_a_day_is_forgotten() {
    let book = Book::saying(Answer::addresses(&[OLD]));
    let resolver = resolver(&book);
    resolved(&resolver).await;
    book.say(Answer::Failure);
    for hour in 0..24 {
        assert_eq!(resolved(&resolver).await, at(OLD), "after {hour} h");
        settle().await;
        advance(Duration::from_hours(1)).await;
    }
    resolver.resolve(HOST, 143).await.unwrap_err();
    resolver
        .resolve("elsewhere.example.org", 143)
        .await
        .unwrap_err();
    advance(KEPT).await;
    resolver.resolve(HOST, 143).await.unwrap_err();
    assert_eq!(
        resolver.0.hosts().len(),
        1,
        "and so is a host that nobody wants"
    );
}

#[tokio::test(start_paused = true)]
async fn an_address_is_its_own_and_nobody_is_asked() {
    let book = Book::default();
    let resolver = resolver(&book);
    assert_eq!(resolver.resolve(OLD, 143).await.unwrap(), at(OLD));
    let six = resolver.resolve("2001:db8::1", 143).await.unwrap();
    assert_eq!(six[0].to_string(), "[2001:db8::1]:143");
    assert_eq!(book.asked(), 0);
}

#[tokio::test]
async fn the_systems_resolver_is_asked_in_earnest() {
    let resolver = Resolver::new(System, Shutdown::new());
    let addresses = resolver.resolve("localhost", 143).await.unwrap();
    assert!(addresses.iter().all(|address| address.ip().is_loopback()));
    assert!(addresses.iter().all(|address| address.port() == 143));
}

#[tokio::test(start_paused = true)]
async fn an_answer_of_thousands_of_addresses_costs_no_more_than_its_first_few() {
    let thousands = (0..4000).map(|n| Ipv4Addr::from_bits(0xc612_0000 + n).into());
    let book = Book::saying(Answer::Addresses(thousands.collect()));
    let found = resolved(&resolver(&book)).await;
    assert_eq!(found.len(), MOST_ADDRESSES);
    assert_eq!(found[0], SocketAddr::from(([198, 18, 0, 0], 143)));
}
