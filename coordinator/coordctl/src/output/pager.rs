//! `$PAGER`, for long text on a terminal: tables and what scripts read never go through it.

use std::io::{self, Write};
use std::process::{Child, Command, Stdio};

/// Lines that every terminal shows at once: shorter text is not paged.
const SCREEN_LINES: usize = 24;
/// What `less` does unless told otherwise: end where the text fits the screen, show colours, leave the text on the screen.
const LESS: &str = "FRX";

/// A pager that begins with the first text that is too long for a screen.
#[derive(Debug)]
pub struct Pager {
    program: String,
    waiting: String,
    lines: usize,
    child: Option<Child>,
    /// What is said on standard error, which the pager would write over.
    talk: Vec<String>,
}

impl Pager {
    /// The pager that the environment names; `None`: it names none.
    #[must_use]
    pub fn of_environment() -> Option<Pager> {
        let program = std::env::var_os("PAGER")?.to_string_lossy().into_owned();
        (!program.trim().is_empty()).then(|| Pager::new(program))
    }

    fn new(program: String) -> Pager {
        Pager { program, waiting: String::new(), lines: 0, child: None, talk: Vec::new() }
    }

    /// Text for the terminal.
    pub fn write(&mut self, text: &str) -> io::Result<()> {
        self.waiting.push_str(text);
        self.lines += text.matches('\n').count();
        if self.child.is_none() && self.lines > SCREEN_LINES {
            self.child = Some(self.begin()?);
        }
        match self.child.as_mut().and_then(|child| child.stdin.as_mut()) {
            None => Ok(()),
            // Somebody who has left the pager has read enough: a broken pipe ends the command well.
            Some(stdin) => stdin.write_all(std::mem::take(&mut self.waiting).as_bytes()),
        }
    }

    /// The shell splits the program's words, as others who read this variable do.
    fn begin(&self) -> io::Result<Child> {
        let mut command = Command::new("sh");
        command.args(["-c", &self.program]).stdin(Stdio::piped());
        if std::env::var_os("LESS").is_none() {
            command.env("LESS", LESS);
        }
        command.spawn()
    }

    /// Something for standard error, said when the pager has ended.
    pub fn say(&mut self, text: &str) {
        self.talk.push(text.to_owned());
    }

    /// Waits until the pager has ended; what was too short for it, and what there is to say.
    pub fn end(mut self) -> io::Result<(String, Vec<String>)> {
        if let Some(mut child) = self.child.take() {
            drop(child.stdin.take());
            child.wait()?;
        }
        Ok((self.waiting, self.talk))
    }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "tests")]
mod tests {
    use super::Pager;

    #[test]
    fn a_short_text_needs_no_pager_and_a_long_one_gets_it_whole() {
        let seen = tempfile::NamedTempFile::new().unwrap();
        let pager = || Pager::new(format!("cat > {}", seen.path().display()));
        let mut short = pager();
        short.write("one\ntwo\n").unwrap();
        short.say("next: three");
        assert_eq!(short.end().unwrap(), ("one\ntwo\n".to_owned(), vec!["next: three".to_owned()]));
        assert_eq!(std::fs::read_to_string(seen.path()).unwrap(), "");
        let mut long = pager();
        let lines: Vec<String> = (0..100).map(|number| format!("line {number}\n")).collect();
        for line in &lines {
            long.write(line).unwrap();
        }
        assert_eq!(long.end().unwrap(), (String::new(), vec![]));
        assert_eq!(std::fs::read_to_string(seen.path()).unwrap(), lines.concat());
    }
}
