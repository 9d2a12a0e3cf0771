//! `ferrypost`: see the library's documentation.

use std::process::ExitCode;

use ferrypost_cli::{Arguments, Console, Exit, run};

#[tokio::main(flavor = "current_thread")]
async fn main() -> ExitCode {
    let mut console = Console::of_process();
    let exit = match Arguments::of_process() {
        Ok(arguments) => run(&arguments, &|name| std::env::var_os(name), &mut console).await,
        // Help and the version are an answer, not a mistake.
        Err(error) => {
            _ = error.print();
            if error.use_stderr() {
                Exit::Usage
            } else {
                Exit::Ok
            }
        }
    };
    exit.into()
}
