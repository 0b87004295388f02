use std::io::{self, Read};
use std::process::{Command, Stdio};

/// Most bytes of a program's complaints that are repeated: their end, which says what went wrong.
const SAID_BYTES: usize = 2048;
/// Most bytes of a program's answer.
const ANSWER_BYTES: u64 = 64 * 1024 * 1024;

/// Why a package manager could not be asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// It could not be run.
    #[error("`{program}` cannot be run")]
    Run {
        /// Its name.
        program: String,
        /// Why.
        source: io::Error,
    },
    /// It failed.
    #[error("`{what}` failed: {said}")]
    Failed {
        /// The program and what it was to do.
        what: String,
        /// The end of what it said.
        said: String,
    },
    /// It said something that cannot be used.
    #[error("`{what}` gave an answer that cannot be used")]
    Answer {
        /// The program and what it was to do.
        what: String,
    },
}

impl Error {
    /// What to do about it.
    pub(super) fn hint(&self) -> Option<&'static str> {
        match self {
            Self::Run { .. } => {
                Some("a lock file's packages are taken by its own package manager: install it")
            }
            Self::Failed { .. } => Some(
                "only your own configuration was used, not the project's; if it needs that, fetch the packages by your package manager in the project, and run again",
            ),
            Self::Answer { .. } => None,
        }
    }
}

/// Runs `command`, which is called `what` in errors, and gives what it prints.
///
/// It runs in the root directory: a package manager looks for configuration around where it is started, and
/// that of the project is not to be trusted with running programs, or with secrets.
pub(super) fn ask(mut command: Command, what: &str) -> Result<Vec<u8>, Error> {
    let program = command.get_program().to_string_lossy().into_owned();
    let unable = |source| Error::Run {
        program: program.clone(),
        source,
    };
    let mut child = command
        .current_dir("/")
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .map_err(unable)?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let (answer, said) = std::thread::scope(|scope| {
        let listener = scope.spawn(move || stderr.map(end_of).unwrap_or_default());
        let answer = stdout.map_or(Ok(Vec::new()), whole);
        (answer, listener.join().unwrap_or_default())
    });
    let status = child.wait().map_err(unable)?;
    if !status.success() {
        return Err(Error::Failed {
            what: what.to_owned(),
            said: if said.is_empty() {
                status.to_string()
            } else {
                said
            },
        });
    }
    match answer.map_err(unable)? {
        answer if answer.len() as u64 > ANSWER_BYTES => Err(Error::Answer {
            what: what.to_owned(),
        }),
        answer => Ok(answer),
    }
}

/// Everything up to the bound and one byte more; the rest is read and forgotten, so that nobody waits.
fn whole(mut from: impl Read) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    (&mut from).take(ANSWER_BYTES + 1).read_to_end(&mut bytes)?;
    io::copy(&mut from, &mut io::sink())?;
    Ok(bytes)
}

/// The end of what a program says.
fn end_of(mut from: impl Read) -> String {
    let mut end: Vec<u8> = Vec::new();
    let mut piece = [0; 4096];
    while let Ok(read @ 1..) = from.read(&mut piece) {
        end.extend_from_slice(&piece[..read]);
        let beyond = end.len().saturating_sub(SAID_BYTES);
        end.drain(..beyond);
    }
    String::from_utf8_lossy(&end).trim().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shell(script: &str) -> Result<Vec<u8>, Error> {
        let mut command = Command::new("sh");
        command.args(["-c", script]);
        ask(command, "sh something")
    }

    #[test]
    fn what_a_program_says_is_heard_and_bounded() {
        assert_eq!(shell("pwd; echo no >&2").unwrap(), b"/\n");
        let failed = shell("yes | head -c 100000 >&2; echo the end >&2; exit 3").unwrap_err();
        let said = failed.to_string();
        assert!(said.starts_with("`sh something` failed: y"), "{said}");
        assert!(
            said.ends_with("the end") && said.len() < SAID_BYTES + 50,
            "{said}"
        );
        let silent = shell("exit 3").unwrap_err().to_string();
        assert!(silent.contains("exit status: 3"), "{silent}");
        let absent = ask(Command::new("/nowhere/tool"), "tool x").unwrap_err();
        assert_eq!(absent.to_string(), "`/nowhere/tool` cannot be run");
    }
}
