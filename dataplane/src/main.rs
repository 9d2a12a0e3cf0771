//! `ferrypost-dataplane`: see [`ferrypost_dataplane`].

use std::process::ExitCode;

use ferrypost_dataplane::{app, cli::Call, config::Config, descriptors};
use ferrypost_runtime::{Random, logging, shutdown::Signals};

fn main() -> ExitCode {
    match start(Call::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("ferrypost-dataplane: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn start(call: Call) -> anyhow::Result<()> {
    #[cfg(feature = "sabotage")]
    ferrypost_dataplane::sabotage::begin();
    match call {
        Call::Check(path) => {
            Config::load(&path)?;
            println!("{} is valid", path.display());
            Ok(())
        }
        Call::Run(path) => {
            let config = Config::load(&path)?;
            logging::install(config.log().lines)?;
            descriptors::allow_for(config.limits().connections.total);
            let runtime = tokio::runtime::Runtime::new()?;
            let outcome = runtime.block_on(serve(config));
            // Not even for a thread that waits for a resolver.
            runtime.shutdown_background();
            outcome
        }
    }
}

async fn serve(config: Config) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let bound = app::build(&config, Random::from_os())?;
    tracing::info!(instance = %config.instance(), addresses = ?bound.addresses, "started");
    signals.received().await;
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        stopped = bound.shut_down() => tracing::info!(?stopped, "stopped"),
        () = signals.received() => anyhow::bail!("ended by a second signal"),
    }
    Ok(())
}
