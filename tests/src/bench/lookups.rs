//! How many look-ups by socketmap a data plane answers.

use std::time::{Duration, Instant};

use anyhow::{Context as _, ensure};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, BufStream};
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use super::backend::Sink;
use super::relay::{Amounts, per};
use super::rig::{Kind, Proxy, Rig};
use super::table::{median, progress};

/// Connections at once, each with one question under way, as mail systems have it.
const AT_ONCE: usize = 8;

/// Look-ups.
#[derive(Debug, Clone, Copy)]
pub(super) struct Lookups {
    /// By the clock, with all clients on the same machine.
    pub(super) a_second: f64,
    /// By the data plane's CPU.
    pub(super) a_cpu_second: f64,
}

/// Measures them.
pub(super) async fn measure(amounts: Amounts) -> anyhow::Result<Lookups> {
    let rig = Rig::in_front_of(&Sink::start().await?).await?;
    let proxy = rig.proxy(Kind::InClear).await?;
    let mut rounds = Vec::new();
    for round in 1..=amounts.rounds {
        progress(&format!("look-ups, round {round} of {}", amounts.rounds));
        rounds.push(used(&proxy, amounts.lookups).await?);
    }
    proxy.stop().await?;
    let rate = |of: fn(&(Duration, Duration)) -> Duration| {
        let seconds = median(rounds.iter().map(|round| of(round).as_secs_f64()));
        per(amounts.lookups) / seconds
    };
    Ok(Lookups {
        a_second: rate(|round| round.0),
        a_cpu_second: rate(|round| round.1),
    })
}

/// The time for so many look-ups, by the clock and of the data plane's CPU.
async fn used(proxy: &Proxy, count: usize) -> anyhow::Result<(Duration, Duration)> {
    let before = proxy.meter.cpu()?;
    let began = Instant::now();
    let mut tasks = JoinSet::new();
    let address = proxy.lookups();
    for n in 0..AT_ONCE {
        let share = count / AT_ONCE + usize::from(n < count % AT_ONCE);
        tasks.spawn(async move { ask(TcpStream::connect(address).await?, share).await });
    }
    while let Some(ended) = tasks.join_next().await {
        ended??;
    }
    let took = began.elapsed();
    proxy.meter.quiet().await?;
    Ok((took, proxy.meter.cpu()?.saturating_sub(before)))
}

/// Asks for the way of so many recipients, each time when the last answer is there.
async fn ask(stream: TcpStream, count: usize) -> anyhow::Result<()> {
    stream.set_nodelay(true)?;
    let mut stream = BufStream::new(stream);
    for n in 0..count {
        let question = format!("transport reader{n}@clear.example");
        let question = format!("{}:{question},", question.len());
        stream.write_all(question.as_bytes()).await?;
        stream.flush().await?;
        let answer = netstring(&mut stream).await?;
        ensure!(
            answer.starts_with("OK "),
            "{question:?} was answered by {answer:?}"
        );
    }
    Ok(())
}

/// `<length>:<octets>,`
async fn netstring(stream: &mut BufStream<TcpStream>) -> anyhow::Result<String> {
    let mut length = 0;
    loop {
        match stream.read_u8().await? {
            b':' => break,
            digit => {
                let digit = char::from(digit).to_digit(10).context("no netstring")?;
                length = length * 10 + usize::try_from(digit)?;
            }
        }
    }
    let mut octets = vec![0; length + 1];
    stream.read_exact(&mut octets).await?;
    ensure!(octets.pop() == Some(b','), "no netstring");
    Ok(String::from_utf8(octets)?)
}
