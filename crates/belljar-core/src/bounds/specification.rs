//! What one build may ask for: its specification, steps, inputs and declared outputs.

/// Longest relative path, in bytes, that may name an input or output (Linux `PATH_MAX` less the NUL).
pub const PATH_BYTES: usize = 4095;
/// Longest single path component, in bytes (Linux `NAME_MAX`).
pub const NAME_BYTES: usize = 255;
/// Most components in a relative path: bounds recursion wherever a tree is walked.
pub const PATH_DEPTH: usize = 128;
/// Most environment variables that one specification may set.
pub const ENV_VARIABLES: usize = 256;
/// Longest environment variable name, in bytes.
pub const ENV_NAME_BYTES: usize = 256;
/// Longest environment variable value, in bytes.
pub const ENV_VALUE_BYTES: usize = 32 * 1024;
/// Most steps (`run` entries) in one build.
pub const STEPS: usize = 32;
/// Longest script of one step, in bytes (below Linux `MAX_ARG_STRLEN`, 128 KiB).
pub const SCRIPT_BYTES: usize = 64 * 1024;
/// Most trees that one build sees beside its sources and its root file system.
pub const INPUTS: usize = 16;
/// Most trees of one attempt: sources, root file system, further inputs.
pub const ATTEMPT_TREES: usize = 2 + INPUTS;
/// Largest lock file of a package manager, in bytes.
pub const LOCK_BYTES: usize = 16 * 1024 * 1024;
/// Most packages in one lock file.
pub const LOCK_PACKAGES: usize = 10_000;
/// Most declared outputs of one build.
pub const DECLARED_OUTPUTS: usize = 256;
/// Most declared outputs of one build that are patterns.
pub const OUTPUT_PATTERNS: usize = 16;
/// Most components of a pattern that have wildcards.
pub const PATTERN_WILDCARDS: usize = 4;
/// Most components of a pattern.
pub const PATTERN_COMPONENTS: usize = 32;
/// Longest component with wildcards, in bytes.
pub const PATTERN_NAME_BYTES: usize = 64;
/// Most entries that are looked at while the outputs of one build are matched with patterns.
pub const OUTPUT_WALK: usize = 1_000_000;
/// Most bytes of names that are compared with patterns meanwhile (1 GiB), each name counted once for each pattern.
pub const OUTPUT_WALK_BYTES: usize = 1 << 30;
/// Most bytes of names, each with 64 more, that a collector has in memory: of a directory, and of those above it.
pub const LISTED_BYTES: usize = 32 << 20;
/// Longest canonical specification, in bytes. Steps and environment share this budget.
pub const SPEC_BYTES: usize = 128 * 1024;
/// Longest all paths and link targets of one build's outputs may be together, in bytes: with the most
/// entries they fit the message about the build ([`GRPC_MESSAGE_BYTES`](super::GRPC_MESSAGE_BYTES)), and with every byte escaped a receipt.
pub const OUTPUT_NAMES_BYTES: usize = 2 * 1024 * 1024;
/// Longest the REAPI `Tree` messages of all directories that one build left may be together, in bytes: the most entries, with some
/// eighty bytes each, and all their names fit, and each message fits a batch of clients.
pub const OUTPUT_TREES_BYTES: usize = super::BATCH_BYTES;
/// Most of these messages that are on their way to the store at once.
pub const OUTPUT_TREES_AT_ONCE: usize = 4;
