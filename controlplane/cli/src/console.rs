//! Where answers and what is said beside them go.

use std::io::{self, IsTerminal as _, Write};

/// Standard output for results, standard error for everything else.
pub struct Console {
    out: Box<dyn Write>,
    err: Box<dyn Write>,
    /// Whether a line of progress may be written over.
    terminal: bool,
    /// Whether such a line stands there.
    unfinished: bool,
    /// Why a result could not be written.
    unwritten: Option<io::Error>,
}

impl Console {
    /// The process's own.
    pub fn of_process() -> Self {
        Self {
            out: Box::new(io::stdout()),
            err: Box::new(io::stderr()),
            terminal: io::stderr().is_terminal(),
            unfinished: false,
            unwritten: None,
        }
    }

    /// A result. A reader that is gone has seen enough; of any other mistake [`Console::unwritten`] tells.
    pub(crate) fn result(&mut self, text: &str) {
        self.finish();
        if let Err(error) = self.write(text)
            && error.kind() != io::ErrorKind::BrokenPipe
        {
            self.unwritten.get_or_insert(error);
        }
    }

    fn write(&mut self, text: &str) -> io::Result<()> {
        self.out.write_all(text.as_bytes())?;
        if !text.is_empty() && !text.ends_with('\n') {
            self.out.write_all(b"\n")?;
        }
        self.out.flush()
    }

    /// Why not all results could be written: a file of them is not whole.
    pub(crate) fn unwritten(&mut self) -> Option<io::Error> {
        self.unwritten.take()
    }

    /// Something to know beside the result.
    pub(crate) fn note(&mut self, text: &str) {
        self.finish();
        _ = writeln!(self.err, "{}", text.trim_end());
    }

    /// Where something stands: on a terminal in place of what was said before, else a line of its own.
    pub(crate) fn progress(&mut self, text: &str) {
        if !self.terminal {
            self.note(text);
            return;
        }
        // Cut to the terminal by itself: a line that goes on in the next one is not written over.
        _ = write!(self.err, "\r\x1b[2K\x1b[?7l{text}\x1b[?7h");
        _ = self.err.flush();
        self.unfinished = true;
    }

    fn finish(&mut self) {
        if std::mem::take(&mut self.unfinished) {
            _ = writeln!(self.err);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Paper(Arc<Mutex<Vec<u8>>>);

    impl Write for Paper {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn said(terminal: bool) -> String {
        let paper = Paper::default();
        let mut console = Console {
            out: Box::new(io::sink()),
            err: Box::new(paper.clone()),
            terminal,
            unfinished: false,
            unwritten: None,
        };
        console.progress("FENCING");
        console.progress("FLIPPED");
        console.result("done");
        let bytes = paper.0.lock().unwrap().clone();
        String::from_utf8(bytes).unwrap()
    }

    #[test]
    fn progress_is_one_line_on_a_terminal_and_plain_lines_in_a_pipe() {
        assert_eq!(said(false), "FENCING\nFLIPPED\n");
        let line = |text| format!("\r\x1b[2K\x1b[?7l{text}\x1b[?7h");
        assert_eq!(said(true), line("FENCING") + &line("FLIPPED") + "\n");
    }
}
