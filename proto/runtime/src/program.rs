//! A program around what it serves: its log, its telemetry and how it ends.

use std::process::ExitCode;

use tracing::subscriber::SetGlobalDefaultError;

use crate::{
    Random,
    logging::{self, Level},
    shutdown::ToldAgain,
    telemetry::{Service, Telemetry},
};

/// What a program has from before it serves until it ends.
#[derive(Debug)]
pub struct Program {
    /// Of the operating system.
    pub random: Random,
    /// What it exports.
    pub telemetry: Telemetry,
    /// That of its log.
    pub level: Level,
}

impl Program {
    /// Installs the log, with what exports it as the environment says.
    ///
    /// # Errors
    /// A log was installed before.
    pub fn begin(service: &Service, log: logging::Settings) -> Result<Self, SetGlobalDefaultError> {
        let random = Random::from_os();
        let telemetry = Telemetry::from_environment(service, random.clone());
        let level = logging::install(log, telemetry.tap())?;
        telemetry.log_start();
        Ok(Self {
            random,
            telemetry,
            level,
        })
    }

    /// Ends it with what came of it. Whoever waits for the reason, or has told the process a second time to end, waits for
    /// no collector. Not from within an asynchronous task.
    pub fn end(self, outcome: anyhow::Result<()>) -> ExitCode {
        let error = outcome.err();
        let code = error.as_ref().map_or(ExitCode::SUCCESS, failed);
        if error.is_some_and(|error| error.is::<ToldAgain>()) {
            self.telemetry.abandon();
        } else {
            self.telemetry.finish();
        }
        code
    }
}

/// Says on standard error why a program has failed.
pub fn failed(error: &anyhow::Error) -> ExitCode {
    eprintln!("{error:#}");
    ExitCode::FAILURE
}
