//! Where and with what a run took place.

use std::fs;
use std::process::Command;

use crate::postfix;
use crate::process::find_program;
use crate::tools::repository;

/// What the figures depend on, a line each.
pub(super) fn facts() -> Vec<String> {
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let processor = field("/proc/cpuinfo", "model name").unwrap_or_default();
    let memory = field("/proc/meminfo", "MemTotal").unwrap_or_default();
    vec![
        format!("commit    {}", commit()),
        format!("machine   {cores} x {processor}, {memory}, Linux {kernel}"),
        format!("load      {} before the start", read("/proc/loadavg")),
        format!("haproxy   {}", haproxy()),
        format!("nginx     {}", nginx()),
        format!("postfix   {}", postfix::version().unwrap_or_default()),
        format!("dovecot   {}", dovecot()),
    ]
}

fn commit() -> String {
    let git = |arguments: &[&str]| output("git", arguments).unwrap_or_default();
    let commit = git(&["log", "-1", "--format=%h of %cs"]);
    let changed = !git(&["status", "--porcelain", "--untracked-files=no"]).is_empty();
    format!("{commit}{}", if changed { ", changed since" } else { "" })
}

fn haproxy() -> String {
    let said = output("haproxy", &["-v"]).unwrap_or_default();
    let version = said.lines().next().and_then(|line| line.split(' ').nth(2));
    version.unwrap_or("unknown").to_owned()
}

fn nginx() -> String {
    let said = output("nginx", &["-v"]).unwrap_or_default();
    let version = said.rsplit('/').next().unwrap_or_default();
    version.to_owned()
}

fn dovecot() -> String {
    let said = output("dovecot", &["--version"]).unwrap_or_default();
    said.split(' ').next().unwrap_or_default().to_owned()
}

fn output(program: &str, arguments: &[&str]) -> Option<String> {
    let program = find_program(program.as_ref()).ok()?;
    let mut command = Command::new(program);
    command.args(arguments).current_dir(repository());
    let said = command.output().ok()?;
    // nginx tells its version by the other way.
    let said = [said.stdout, said.stderr].concat();
    Some(String::from_utf8_lossy(&said).trim().to_owned())
}

fn read(path: &str) -> String {
    fs::read_to_string(path)
        .unwrap_or_default()
        .trim()
        .to_owned()
}

/// The first value of a `name : value` line.
fn field(path: &str, name: &str) -> Option<String> {
    let text = fs::read_to_string(path).ok()?;
    let line = text.lines().find(|line| line.starts_with(name))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}
