//! What hostile builds write to their log.

use std::process::Command;

use belljar_tests::{Instance, Project, program};

/// Clears the screen, sets the title, asks the terminal to answer, hides text, overwrites a line; then what is
/// no UTF-8: a lone continuation, an overlong slash, a surrogate, a cut character at the end.
const NASTY: &[u8] = b"\x1b[2J\x1b]0;title\x07\x1b[6n\x1b[8mhidden\x1b[0m\rover\n\xc2\x9b31m\x80\xc0\xaf\xed\xa0\x80\0\x08\x7f\n\
    \xe2\x80\xaedesrever\xe2\x80\xac\nend \xf0\x9f\x92";

fn nasty() -> Project {
    let project = Project::script("cat nasty; echo done > out");
    project.write("nasty", NASTY);
    project
}

#[test]
fn every_byte_is_kept_as_it_is() {
    let run = Instance::new().run(&nasty());
    run.assert_succeeded();
    assert_eq!(run.file("build.log"), NASTY);
}

#[test]
fn a_terminal_gets_nothing_that_it_would_obey() {
    let instance = Instance::new();
    let project = nasty();
    let output = tempfile::tempdir().unwrap();
    let quote = |path: &std::path::Path| format!("'{}'", path.display());
    let command = format!(
        "{} run {} --state {} --output {}",
        quote(&program("belljar")),
        quote(project.path()),
        quote(instance.state()),
        quote(output.path())
    );
    // script(1) gives the command a terminal and tells what came there.
    let shown = Command::new("script")
        .args(["--quiet", "--return", "--command", &command, "/dev/null"])
        .env("NO_COLOR", "1")
        .stdin(std::process::Stdio::null())
        .output()
        .unwrap();
    assert!(
        shown.status.success(),
        "{}",
        String::from_utf8_lossy(&shown.stdout)
    );
    let text = String::from_utf8(shown.stdout).expect("only UTF-8 may get to a terminal");
    assert!(
        text.contains("[2J") && text.contains("hidden"),
        "the log is shown: {text}"
    );
    let bad: Vec<_> = text
        .chars()
        .filter(|c| {
            (c.is_control() && !matches!(c, '\r' | '\n' | '\t'))
                || matches!(c, '\u{202a}'..='\u{202e}')
        })
        .collect();
    assert!(bad.is_empty(), "{bad:?} in {text:?}");
    assert!(
        !text.replace("\r\n", "\n").contains('\r'),
        "a line overwrites another: {text:?}"
    );
    assert_eq!(
        std::fs::read(output.path().join("build.log")).unwrap(),
        NASTY
    );
}

#[test]
fn closing_the_log_does_not_end_the_build_and_flooding_it_does() {
    let mut instance = Instance::started();
    let run = instance.run(&Project::script(
        "echo heard; exec >&- 2>&-; sleep 0.2; echo done > out",
    ));
    run.assert_succeeded();
    assert_eq!(run.log, "heard\n");

    let run = instance.run(&Project::of(
        &["yes flood; echo done > out"],
        &["out"],
        "[limits]\nlog_bytes = 100000",
    ));
    run.assert_limit_exceeded("log", 100_000);
    assert_eq!(run.file("build.log").len(), 100_000);
}

#[test]
fn nothing_can_be_taken_back_out_of_the_log() {
    // A pipe can be opened again by way of /proc, at its other end too. A process that a step has left running
    // could so hide what later steps say.
    let steal = "import os, sys
try:
    end = os.open('/proc/self/fd/1', os.O_RDONLY | os.O_NONBLOCK)
    print('stolen', file=sys.stderr) if os.read(end, 100) else None
except PermissionError:
    print('refused', file=sys.stderr)
try:
    os.fchmod(1, 0o666)
    print('changed', file=sys.stderr)
except PermissionError:
    pass
";
    let outside = Command::new("sh")
        .args([
            "-c",
            "(printf secret; exec python3 -c \"$0\") | sleep 1",
            steal,
        ])
        .output()
        .unwrap();
    assert_eq!(
        String::from_utf8_lossy(&outside.stderr),
        "stolen\nchanged\n"
    );

    let project = Project::script(
        "printf secret; python3 steal.py; echo by name > /dev/stdout; echo done > out",
    );
    project.write("steal.py", steal);
    let run = Instance::new().run(&project);
    run.assert_succeeded();
    assert_eq!(run.log, "secretrefused\nby name\n", "{run}");
}
