use std::collections::BTreeSet;

use crate::Invalid;

/// A name with wildcards, as what its tokens do about each character: whatever the name, matching it takes time by its
/// length alone. Bit n of a number stands for the token n.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Name {
    tokens: usize,
    /// The tokens that are stars: two never stand beside each other.
    stars: u64,
    /// From which character on, up to the next, which other tokens take it. The first is 0.
    classes: Vec<(u32, u64)>,
}

#[derive(Clone, Debug)]
enum Token {
    One(char),
    AnyOne,
    AnyMany,
    Set {
        negated: bool,
        ranges: Vec<(char, char)>,
    },
}

impl Name {
    /// Takes the text of a component: at most 64 tokens, and no `**` among them.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub(super) fn parse(text: &str) -> Result<Self, Invalid> {
        let mut tokens = Vec::new();
        let mut rest = text.chars();
        while let Some(c) = rest.next() {
            tokens.push(match c {
                '*' => Token::AnyMany,
                '?' => Token::AnyOne,
                '[' => {
                    let (token, after) = set(rest.as_str())?;
                    rest = after.chars();
                    token
                }
                other => Token::One(other),
            });
        }
        Ok(Self::new(&tokens))
    }

    fn new(tokens: &[Token]) -> Self {
        let bits = |is: &dyn Fn(&Token) -> bool| {
            let set = tokens.iter().zip(0..).filter(|(token, _)| is(token));
            set.fold(0_u64, |bits, (_, index)| bits | 1 << index)
        };
        let ends = tokens.iter().flat_map(|token| match token {
            Token::One(one) => vec![(*one, *one)],
            Token::Set { ranges, .. } => ranges.clone(),
            Token::AnyOne | Token::AnyMany => Vec::new(),
        });
        let first = ends.flat_map(|(low, high)| [u32::from(low), u32::from(high) + 1]);
        let first: BTreeSet<u32> = first.chain([0]).collect();
        Self {
            tokens: tokens.len(),
            stars: bits(&|token| matches!(token, Token::AnyMany)),
            classes: first
                .into_iter()
                .map(|first| (first, bits(&|token| token.takes(first))))
                .collect(),
        }
    }

    /// All ways of matching are followed at once, as in paths: bit n tells whether what was seen of the name can be
    /// used up by the first n tokens.
    pub(super) fn matches(&self, name: &str) -> bool {
        let stars = u128::from(self.stars);
        let skip_star = |here: u128| here | (here & stars) << 1;
        let mut here = skip_star(1);
        for c in name.chars().map(u32::from) {
            let above = self.classes.partition_point(|(first, _)| *first <= c);
            let takes = above.checked_sub(1).map_or(0, |at| self.classes[at].1);
            here = skip_star((here & u128::from(takes)) << 1 | here & stars);
            if here == 0 {
                return false;
            }
        }
        here >> self.tokens & 1 == 1
    }
}

impl Token {
    /// Whether it takes the character of this number.
    fn takes(&self, c: u32) -> bool {
        match self {
            Self::One(one) => u32::from(*one) == c,
            Self::AnyOne => true,
            Self::AnyMany => false,
            Self::Set { negated, ranges } => {
                let within =
                    |(low, high): &(char, char)| (u32::from(*low)..=u32::from(*high)).contains(&c);
                ranges.iter().any(within) != *negated
            }
        }
    }
}

/// A set, behind its `[`; and what comes behind its `]`.
fn set(text: &str) -> Result<(Token, &str), Invalid> {
    let (negated, text) = match text.strip_prefix('!') {
        Some(text) => (true, text),
        None => (false, text),
    };
    // A `]` that stands first is one of the set.
    let first = usize::from(text.starts_with(']'));
    let Some(end) = text[first..].find(']').map(|end| end + first) else {
        return Err(Invalid::new(
            "has a `[` without `]`; write `[[]` for the character itself",
        ));
    };
    let (inside, after) = (&text[..end], &text[end + 1..]);
    let mut characters = inside.chars().peekable();
    let mut ranges = Vec::new();
    while let Some(low) = characters.next() {
        let mut ahead = characters.clone();
        let high = match (ahead.next(), ahead.next()) {
            (Some('-'), Some(high)) => {
                characters = ahead;
                high
            }
            _ => low,
        };
        if high < low {
            return Err(Invalid::new(format!(
                "has the range `{low}-{high}`, which is the wrong way round"
            )));
        }
        ranges.push((low, high));
    }
    if ranges.is_empty() {
        return Err(Invalid::new("has an empty set"));
    }
    Ok((Token::Set { negated, ranges }, after))
}
