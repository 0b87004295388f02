use belljar_core::bounds;

#[allow(dead_code, reason = "belljard uses more of it")]
#[path = "../../crates/belljard/src/fetch/trouble.rs"]
mod trouble;

mod git;
mod pull;

pub use git::{git_lines, git_lines_are_read};
pub use pull::{challenge, challenge_is_read, image, image_is_read};

use trouble::Trouble;

/// What went wrong is said, and shortly, whatever the other end has to say.
fn is_told(trouble: &Trouble) {
    let most = bounds::FETCH_REASON_BYTES + '…'.len_utf8();
    assert!(!trouble.why.is_empty() && trouble.why.len() <= most);
}
