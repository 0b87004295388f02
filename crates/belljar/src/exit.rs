//! What the exit status of `belljar` means.

use belljar_core::Outcome;

/// Everything went well.
pub(crate) const SUCCESS: u8 = 0;
/// A step of the build failed.
pub(crate) const BUILD_FAILED: u8 = 1;
/// The command line, `belljar.toml` or the sources are at fault. clap uses the same number.
pub(crate) const USAGE: u8 = 2;
/// The build ran out of time.
pub(crate) const TIMED_OUT: u8 = 3;
/// The build reached another limit.
pub(crate) const LIMIT_EXCEEDED: u8 = 4;
/// The build's outputs cannot be taken.
pub(crate) const OUTPUT_REJECTED: u8 = 5;
/// Somebody asked for the end.
pub(crate) const CANCELLED: u8 = 6;
/// Policy refused.
pub(crate) const REFUSED: u8 = 7;
/// Belljar or its host failed.
pub(crate) const INFRASTRUCTURE: u8 = 8;
/// Evidence does not vouch for an artifact.
pub(crate) const NOT_VERIFIED: u8 = 9;
/// There is nobody to ask.
pub(crate) const NO_DAEMON: u8 = 10;
/// The host is not good enough.
pub(crate) const HOST_LACKS_LAYER: u8 = 11;
/// A local file is in the way.
pub(crate) const LOCAL_FILE: u8 = 12;

/// It is too early to know.
pub(crate) const NOT_ENDED: u8 = 13;

/// Every exit status with its meaning, in order.
pub(crate) const EXIT_CODES: &[(u8, &str)] = &[
    (SUCCESS, "success"),
    (
        BUILD_FAILED,
        "the build failed: a step ended with another exit status, or by a signal",
    ),
    (
        USAGE,
        "the command line, belljar.toml or the sources are at fault, or what was named does not exist",
    ),
    (TIMED_OUT, "the build reached its wall-clock limit"),
    (LIMIT_EXCEEDED, "the build reached another limit"),
    (
        OUTPUT_REJECTED,
        "the steps succeeded, but their outputs cannot be taken",
    ),
    (CANCELLED, "the build was cancelled"),
    (
        REFUSED,
        "the build was refused by policy or cannot be run as it is, or the caller is not allowed",
    ),
    (
        INFRASTRUCTURE,
        "Belljar or its host failed; the build may be blameless",
    ),
    (
        NOT_VERIFIED,
        "verification failed: the evidence does not vouch for the artifact, or contradicts itself",
    ),
    (NO_DAEMON, "no daemon answers, and none can be started"),
    (
        HOST_LACKS_LAYER,
        "the host lacks a layer that a sandbox needs",
    ),
    (
        LOCAL_FILE,
        "a local file cannot be read or written, or changed meanwhile",
    ),
    (
        NOT_ENDED,
        "the build has not ended, or nobody waited: following, fetching or asking was interrupted",
    ),
];

/// The exit status after a build that ended like this.
pub(crate) fn of_outcome(outcome: &Outcome) -> u8 {
    match outcome {
        Outcome::Succeeded => SUCCESS,
        Outcome::Failed { .. } | Outcome::Signalled { .. } => BUILD_FAILED,
        Outcome::TimedOut { .. } => TIMED_OUT,
        Outcome::LimitExceeded { .. } => LIMIT_EXCEEDED,
        Outcome::OutputRejected { .. } => OUTPUT_REJECTED,
        Outcome::Cancelled { .. } => CANCELLED,
        Outcome::Refused { .. } => REFUSED,
        Outcome::Infrastructure { .. } => INFRASTRUCTURE,
    }
}

/// The table as help text.
pub(crate) fn help() -> String {
    let rows = EXIT_CODES
        .iter()
        .map(|(code, meaning)| format!("  {code:>2}  {meaning}\n"));
    format!("Exit status:\n{}", rows.collect::<String>())
}

#[cfg(test)]
mod tests {
    use super::*;
    use belljar_core::LimitKind;

    #[test]
    fn codes_are_numbered_through_and_explained() {
        for (number, (code, meaning)) in (0_u8..).zip(EXIT_CODES) {
            assert_eq!(*code, number);
            assert!(!meaning.is_empty());
        }
        assert!(help().contains("  12  a local file"));
    }

    #[test]
    fn outcomes_are_told_apart_by_whose_doing_it_was() {
        let outcomes = [
            (Outcome::Succeeded, 0),
            (
                Outcome::Failed {
                    step: 0,
                    exit_code: 77,
                },
                1,
            ),
            (
                Outcome::Signalled {
                    step: 0,
                    signal: 11,
                },
                1,
            ),
            (Outcome::TimedOut { wall_seconds: 1 }, 3),
            (
                Outcome::LimitExceeded {
                    limit: LimitKind::Memory,
                    figure: 1,
                    used: 1,
                    output: None,
                },
                4,
            ),
            (Outcome::OutputRejected { why: String::new() }, 5),
            (
                Outcome::Cancelled {
                    by: String::new(),
                    reason: None,
                },
                6,
            ),
            (
                Outcome::Refused {
                    reasons: Vec::new(),
                },
                7,
            ),
            (Outcome::permanent("run", "x"), 8),
        ];
        for (outcome, code) in outcomes {
            assert_eq!(of_outcome(&outcome), code, "{outcome}");
        }
    }
}
