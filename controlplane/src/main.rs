//! `ferrypost-controlplane`: see the library's documentation.

use std::{path::Path, process::ExitCode};

use ferrypost_controlplane::{
    app,
    config::{Config, KEYS},
    hook::guard,
};
use ferrypost_runtime::{
    cli::Call,
    config::{ConfigFile, Follower},
    core_dump,
    program::{Program, failed},
    shutdown::{Signals, ToldAgain, outlive_hangups},
    telemetry::Service,
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

fn run(path: &Path) -> anyhow::Result<ExitCode> {
    outlive_hangups()?;
    core_dump::forbid()?;
    let file = ConfigFile::read(path)?;
    let config = Config::of(&file)?;
    let mut program = Program::begin(&service(&config), config.log())?;
    let outcome = Runtime::new()?.block_on(serve(config, file, &mut program));
    Ok(program.end(outcome))
}

fn service(config: &Config) -> Service {
    Service {
        name: "ferrypost-controlplane",
        instance: config.replica().to_string(),
    }
}

async fn serve(config: Config, file: ConfigFile, program: &mut Program) -> anyhow::Result<()> {
    let mut signals = Signals::listen()?;
    let level = |file: &ConfigFile| Config::of(file).map(|it| it.log().level);
    let log = (program.level.clone(), config.log().level);
    let follower = Follower::new(file, KEYS, level, log)?;
    let random = program.random.clone();
    let mut bound = tokio::select! {
        built = app::build(config, random, &mut program.telemetry) => built?,
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
