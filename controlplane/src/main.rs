//! `ferrypost-controlplane`: see the library's documentation.

use std::{path::Path, process::ExitCode};

use ferrypost_controlplane::{
    app,
    config::{Config, KEYS},
    hook::guard,
};
use ferrypost_runtime::{
    Random,
    cli::Call,
    config::{ConfigFile, Follower},
    core_dump,
    logging::{self, Level},
    shutdown::{Signals, ToldAgain},
    telemetry::{Service, Telemetry},
};
use tokio::runtime::Runtime;

const ABOUT: &str = "Knows where every account lives, moves accounts, tells every data plane.";

fn main() -> ExitCode {
    let mut arguments = std::env::args_os().skip(1);
    if arguments
        .next()
        .is_some_and(|word| word == guard::SUBCOMMAND)
    {
        return guard::main(arguments);
    }
    let call: Call = Call::parse("ferrypost-controlplane", ABOUT);
    let outcome = match call {
        Call::Check(path) => app::check(&path).map(|report| {
            println!("{report}");
            ExitCode::SUCCESS
        }),
        Call::Run(path) => run(&path),
        Call::Own(none) => match none {},
    };
    outcome.unwrap_or_else(|error| failed(&error))
}

fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}

fn run(path: &Path) -> anyhow::Result<ExitCode> {
    core_dump::forbid()?;
    let file = ConfigFile::read(path)?;
    let config = Config::of(&file)?;
    let random = Random::from_os();
    let mut telemetry = telemetry_of(&config, random.clone());
    let log = logging::install(config.log(), telemetry.tap())?;
    telemetry.log_start();
    let serving = serve(config, (file, log), random, &mut telemetry);
    let outcome = Runtime::new()?.block_on(serving);
    Ok(end(outcome, telemetry))
}

/// Whoever waits for the reason, or has told the process a second time to end, waits for no collector.
fn end(outcome: anyhow::Result<()>, telemetry: Telemetry) -> ExitCode {
    let error = outcome.err();
    let code = error.as_ref().map_or(ExitCode::SUCCESS, failed);
    if error.is_some_and(|error| error.is::<ToldAgain>()) {
        telemetry.abandon();
    } else {
        telemetry.finish();
    }
    code
}

fn telemetry_of(config: &Config, random: Random) -> Telemetry {
    let service = Service {
        name: "ferrypost-controlplane",
        instance: config.replica().to_string(),
    };
    Telemetry::from_environment(&service, random)
}

async fn serve(
    config: Config,
    (file, log): (ConfigFile, Level),
    random: Random,
    telemetry: &mut Telemetry,
) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let level = |file: &ConfigFile| Config::of(file).map(|it| it.log().level);
    let follower = Follower::new(file, KEYS, level, (log, config.log().level))?;
    let mut bound = tokio::select! {
        built = app::build(config, random, telemetry) => built?,
        () = signals.received() => return Ok(()),
    };
    let outcome = tokio::select! {
        () = signals.received() => Ok(()),
        failure = bound.failure() => Err(failure),
        never = follower.follow() => match never {},
    };
    tracing::info!("stopping; a second signal ends the process at once");
    tokio::select! {
        stopped = bound.shut_down() => stopped?,
        () = signals.received() => return Err(ToldAgain.into()),
    }
    outcome
}
