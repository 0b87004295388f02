use super::trouble::Trouble;

#[path = "../../../crates/belljard/src/fetch/git/reply.rs"]
mod reply;

use reply::{Advertisement, Line, Packed, Part, parse};

/// What a git server answers, in pkt-lines: behind `a` what it says that it can, behind anything else an answer with a pack.
pub fn git_lines(bytes: &[u8]) {
    git_lines_are_read(bytes);
}

/// The same; says whether it is an answer that belljard goes on with.
pub fn git_lines_are_read(bytes: &[u8]) -> bool {
    let Some((kind, rest)) = bytes.split_first() else {
        return false;
    };
    let read = match kind {
        b'a' => advertisement(rest),
        _ => pack(rest),
    };
    if let Err(trouble) = &read {
        super::is_told(trouble);
    }
    read.is_ok()
}

fn advertisement(mut bytes: &[u8]) -> Result<(), Trouble> {
    let mut can = Advertisement::default();
    while !can.take(&next(&mut bytes)?)? {}
    can.says_format().map(drop)
}

fn pack(bytes: &[u8]) -> Result<(), Trouble> {
    let (mut rest, mut packed, mut pieces, mut begun) = (bytes, Packed::default(), 0, 0);
    loop {
        match packed.take(&next(&mut rest)?)? {
            Part::Nothing => {}
            Part::Begin => begun += 1,
            Part::Piece(piece) => {
                assert_eq!(begun, 1, "nothing of the pack comes before it");
                pieces += piece.len();
            }
            Part::End => break,
        }
    }
    assert!(rest.is_empty() && begun == 1 && pieces < bytes.len());
    Ok(())
}

/// The next line, as belljard takes them out of what has come.
fn next(rest: &mut &[u8]) -> Result<Line, Trouble> {
    match parse(rest)? {
        Some((line, length)) => {
            assert!((4..=rest.len()).contains(&length));
            let less = parse(&rest[..length - 1]);
            assert!(
                matches!(less, Ok(None)),
                "a line is not there before all of it is"
            );
            *rest = &rest[length..];
            Ok(line)
        }
        None if rest.is_empty() => Ok(Line::End),
        None => Err(Trouble::passing("the answer broke off within a line")),
    }
}
