//! `ferrypost-dataplane`: see [`ferrypost_dataplane`].

use std::process::ExitCode;

use ferrypost_dataplane::{app, config::Config, descriptors};
use ferrypost_runtime::{Random, cli::Call, core_dump, logging, shutdown::Signals, tls};
use tokio::runtime::Handle;

const ABOUT: &str = "Relays each mail session to the server that holds its account.";

fn main() -> ExitCode {
    match start(Call::parse("ferrypost-dataplane", ABOUT)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(call: Call) -> anyhow::Result<()> {
    core_dump::forbid()?;
    #[cfg(feature = "sabotage")]
    ferrypost_dataplane::sabotage::begin();
    match call {
        Call::Check(path) => {
            Config::load(&path)?;
            println!("{} is valid", path.display());
            println!("on every leg: {}", tls::spoken());
            Ok(())
        }
        Call::Run(path) => {
            let config = Config::load(&path)?;
            logging::install(config.log().lines)?;
            descriptors::allow_for(config.limits().connections.total);
            let (relaying, beside) = (tokio::runtime::Runtime::new()?, app::beside()?);
            let outcome = relaying.block_on(serve(config, beside.handle()));
            // Not even for a thread that waits for a resolver.
            relaying.shutdown_background();
            beside.shutdown_background();
            outcome
        }
    }
}

async fn serve(config: Config, beside: &Handle) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let bound = app::build(&config, Random::from_os(), beside)?;
    tracing::info!(instance = %config.instance(), addresses = ?bound.addresses, "started");
    signals.received().await;
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        stopped = bound.shut_down() => tracing::info!(?stopped, "stopped"),
        () = signals.received() => anyhow::bail!("ended by a second signal"),
    }
    Ok(())
}
