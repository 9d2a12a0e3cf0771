//! Which Dovecot is installed.

use std::path::Path;
use std::process::Command;

use crate::process::find_program;

use super::DovecotError;

/// Versions of Dovecot that read the same configuration.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Generation {
    /// Debian 12, Ubuntu 22.04 and 24.04.
    V2_3,
    /// Debian 13: most settings have other names, and a file begins with the version that it is
    /// written for.
    V2_4,
}

impl Generation {
    /// That of the installed server.
    ///
    /// # Errors
    /// When none is installed, and [`DovecotError::Unknown`] when it is of another generation.
    pub fn installed() -> Result<Self, DovecotError> {
        let dovecot = find_program(Path::new("dovecot"))?;
        let output = Command::new(dovecot).arg("--version").output()?;
        let version = String::from_utf8_lossy(&output.stdout);
        Self::of(&version).ok_or_else(|| DovecotError::Unknown(version.trim().to_owned()))
    }

    /// That of a version such as `2.4.1-4 (7d8c0e5759)`.
    fn of(version: &str) -> Option<Self> {
        let mut numbers = version.trim().split('.');
        match (numbers.next()?, numbers.next()?) {
            ("2", "3") => Some(Self::V2_3),
            ("2", "4") => Some(Self::V2_4),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_distributions_ship_is_known_and_nothing_else() {
        assert_eq!(
            Generation::of("2.3.19.1 (9b53102964)\n"),
            Some(Generation::V2_3)
        );
        assert_eq!(
            Generation::of("2.3.21 (47349e2482)\n"),
            Some(Generation::V2_3)
        );
        assert_eq!(
            Generation::of("2.4.1-4 (7d8c0e5759)\n"),
            Some(Generation::V2_4)
        );
        for other in ["2.2.36 (1f10bfa63)", "2.30.1", "3.0.0", "", "dovecot"] {
            assert_eq!(Generation::of(other), None, "{other}");
        }
    }
}
