//! `ferrypost-dataplane`: see [`ferrypost_dataplane`].

use std::{
    future::Future,
    path::{Path, PathBuf},
    pin::pin,
    process::ExitCode,
    time::Duration,
};

use clap::Subcommand;
use ferrypost_dataplane::{
    admin::order,
    app::{self, Bound},
    config::{Config, KEYS},
    descriptors, lookup,
};
use ferrypost_runtime::{
    cli::Call,
    config::{self, ConfigFile, Follower},
    core_dump,
    program::{Program, failed},
    shutdown::{Signals, ToldAgain, outlive_hangups},
    telemetry::Service,
    tls,
};
use tokio::runtime::{Handle, Runtime};

const ABOUT: &str = "Relays each mail session to the server that holds its account.";

/// What a data plane can be asked to do beside what both planes can.
#[derive(Subcommand)]
enum Order {
    /// Makes the data plane that runs with this configuration let go of everybody, and returns when it has.
    ///
    /// The process stays, not ready, until a signal ends it: for whoever has to wait before something else is stopped, as
    /// a preStop hook of Kubernetes does.
    Drain {
        /// The configuration file (TOML) of the running data plane.
        #[arg(long, value_name = "FILE")]
        config: PathBuf,
        /// Go on serving for so long first: whoever sends clients here is told that it ends.
        #[arg(long, value_name = "TIME", default_value = "0s", value_parser = a_time)]
        after: Duration,
    },
}

fn a_time(text: &str) -> Result<Duration, &'static str> {
    config::time(text).ok_or("must be a time, as \"500ms\", \"10s\" or \"5m\"")
}

fn main() -> ExitCode {
    let ended = start(Call::parse("ferrypost-dataplane", ABOUT));
    ended.unwrap_or_else(|error| failed(&error))
}

fn start(call: Call<Order>) -> anyhow::Result<ExitCode> {
    core_dump::forbid()?;
    #[cfg(feature = "sabotage")]
    ferrypost_dataplane::sabotage::begin();
    match call {
        Call::Check(path) => {
            Config::load(&path)?;
            println!("{} is valid", path.display());
            println!("on every leg: {}", tls::spoken());
            Ok(ExitCode::SUCCESS)
        }
        Call::Own(Order::Drain { config, after }) => {
            order_to_drain(&config, after)?;
            Ok(ExitCode::SUCCESS)
        }
        Call::Run(path) => run(&path),
    }
}

fn run(path: &Path) -> anyhow::Result<ExitCode> {
    outlive_hangups()?;
    let file = ConfigFile::read(path)?;
    let config = Config::of(&file)?;
    let mut program = Program::begin(&service(&config), config.log().lines)?;
    let total = config.limits().connections.total;
    let lookups = config.lookups().len() * lookup::CONNECTIONS;
    descriptors::allow_for(total, lookups);
    let (relaying, beside) = (Runtime::new()?, app::beside()?);
    let serving = serve(config, file, beside.handle(), &mut program);
    let outcome = relaying.block_on(serving);
    // Not even for a thread that waits for a resolver.
    relaying.shutdown_background();
    beside.shutdown_background();
    Ok(program.end(outcome))
}

#[tokio::main(flavor = "current_thread")]
async fn order_to_drain(config: &Path, after: Duration) -> anyhow::Result<()> {
    tokio::time::sleep(after).await;
    let (admin, limits) = Config::for_order(&ConfigFile::read(config)?)?;
    let drained = order::drain(&admin, limits).await?;
    println!("{drained:#}");
    let goodbye = drained["goodbye"].as_str().unwrap_or("not said");
    anyhow::ensure!(
        goodbye == "accepted",
        "nobody is served any more, but the control plane took no note ({goodbye}): moves wait until this data plane \
         is succeeded or expelled"
    );
    Ok(())
}

fn service(config: &Config) -> Service {
    Service {
        name: "ferrypost-dataplane",
        instance: config.instance().to_string(),
    }
}

async fn serve(
    config: Config,
    file: ConfigFile,
    beside: &Handle,
    program: &mut Program,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let level = |file: &ConfigFile| Config::of(file).map(|it| it.log().lines.level);
    let log = (program.level.clone(), config.log().lines.level);
    let follower = Follower::new(file, KEYS, level, log)?;
    let random = program.random.clone();
    let mut bound = app::build(&config, random, beside, &mut program.telemetry)?;
    tracing::info!(instance = %config.instance(), addresses = ?bound.addresses, "started");
    let draining = bound.draining.clone();
    tokio::select! {
        () = signals.received() => {
            tracing::info!("stopping; a second signal ends the process at once");
            unless_told_again(&mut signals, drain(&mut bound)).await?;
        }
        () = draining.asked() => drain_until_told(&mut bound, &mut signals).await?,
        never = follower.follow() => match never {},
    }
    unless_told_again(&mut signals, bound.end()).await
}

/// As a caller of the admin endpoint wants it: nobody is served any more, and the process stays to say so.
async fn drain_until_told(bound: &mut Bound, signals: &mut Signals) -> anyhow::Result<()> {
    tracing::info!("draining, as the admin endpoint was asked to; the process ends at a signal");
    let mut drained = pin!(drain(bound));
    tokio::select! {
        () = &mut drained => {
            signals.received().await;
            Ok(())
        }
        () = signals.received() => unless_told_again(signals, drained).await,
    }
}

async fn drain(bound: &mut Bound) {
    let stopped = bound.drain().await;
    tracing::info!(?stopped, "everybody is let go of");
}

async fn unless_told_again(
    signals: &mut Signals,
    ending: impl Future<Output = ()>,
) -> anyhow::Result<()> {
    tokio::select! {
        () = ending => Ok(()),
        () = signals.received() => Err(ToldAgain.into()),
    }
}
