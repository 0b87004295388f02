use belljar_core::{InputName, Outcome, bounds};

/// What this is called in outcomes.
pub(super) const STAGE: &str = "fetch";

/// Why there is nothing. Servers have a say in it, so it is short.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Trouble {
    pub(crate) sort: Sort,
    pub(crate) why: String,
}

/// What another try may bring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Sort {
    /// It must not be, or is not what it should be.
    Refused,
    /// It is not there.
    Lasting,
    /// It may be there later.
    Passing,
}

impl Trouble {
    fn new(sort: Sort, why: impl Into<String>) -> Self {
        let why = cut(why.into(), bounds::FETCH_REASON_BYTES);
        Self { sort, why }
    }

    pub(crate) fn refused(why: impl Into<String>) -> Self {
        Self::new(Sort::Refused, why)
    }

    pub(super) fn lasting(why: impl Into<String>) -> Self {
        Self::new(Sort::Lasting, why)
    }

    pub(super) fn passing(why: impl Into<String>) -> Self {
        Self::new(Sort::Passing, why)
    }

    /// All in one, each with its URL; the one that may pass says whether another try makes sense.
    pub(super) fn all(troubles: Vec<(String, Self)>) -> Option<Self> {
        let sort = troubles.iter().map(|(_, trouble)| trouble.sort).max()?;
        let why = troubles.into_iter().map(|(url, trouble)| {
            let url = cut(url, bounds::FETCH_URL_SHOWN_BYTES);
            format!("{url}: {}", trouble.why)
        });
        let why = why.collect::<Vec<_>>().join("; ");
        Some(Self { sort, why })
    }

    /// How an attempt ends by it.
    pub(super) fn outcome(&self, name: &InputName) -> Outcome {
        let why = format!("{name}: {}", self.why);
        match self.sort {
            Sort::Refused => Outcome::Refused {
                reasons: vec![format!("fetches.{why}")],
            },
            Sort::Lasting => Outcome::permanent(STAGE, why),
            Sort::Passing => Outcome::retryable(STAGE, why),
        }
    }
}

/// So many bytes of a text at the most, and a mark where there were more.
fn cut(mut text: String, most: usize) -> String {
    if text.len() > most {
        text.truncate(text.floor_char_boundary(most));
        text.push('…');
    }
    text
}
