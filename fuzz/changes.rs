//! Text that was good, changed somewhere: for the tests of whatever reads it. Included by its path, since crates of the
//! product depend on none that is no part of it.

use proptest::prelude::*;

/// `good`, which `reads` has to accept as it is, with up to seven bytes of it gone, put in or replaced: by what has a
/// meaning in TOML, or has none.
pub(crate) fn changed(
    good: String,
    reads: impl FnOnce(&str) -> bool,
) -> impl Strategy<Value = String> {
    assert!(reads(&good), "what is changed is good: {good}");
    let change = (any::<prop::sample::Index>(), 0_usize..8, NEW);
    change.prop_map(move |(at, gone, new)| {
        let start = good.floor_char_boundary(at.index(good.len() + 1));
        let end = good.ceil_char_boundary((start + gone).min(good.len()));
        format!("{}{new}{}", &good[..start], &good[end..])
    })
}

/// What is put in.
const NEW: &str = "[\"\\[\\]{}=.,#'\n\\\\a-z0-9é-]{0,8}";
