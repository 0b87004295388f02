//! What is kept of documents that may say anything: texts and lists up to a length, and of some things that they are there.

use std::fmt;
use std::marker::PhantomData;

use belljar_core::bounds;
use serde::Deserialize;
use serde::de::{Deserializer, Error, IgnoredAny, SeqAccess, Visitor};

/// A text, cut off behind the longest that is understood: what is longer equals none of these before and after.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Word(String);

/// Whether a list has anything in it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Any(pub(super) bool);

/// The beginning of a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct List<T, const MOST: usize> {
    pub(super) first: Vec<T>,
    /// How many there are in the document.
    pub(super) all: usize,
}

impl Word {
    pub(super) fn as_str(&self) -> &str {
        &self.0
    }
}

impl<'de> Deserialize<'de> for Word {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Text;
        impl Visitor<'_> for Text {
            type Value = Word;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a text")
            }

            fn visit_str<E: Error>(self, text: &str) -> Result<Word, E> {
                let end = text.floor_char_boundary(bounds::OCI_WORD_BYTES);
                Ok(Word(text[..end].to_owned()))
            }
        }
        deserializer.deserialize_str(Text)
    }
}

impl<'de> Deserialize<'de> for Any {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let list = List::<IgnoredAny, 0>::deserialize(deserializer)?;
        Ok(Self(list.all > 0))
    }
}

impl<'de, T: Deserialize<'de>, const MOST: usize> Deserialize<'de> for List<T, MOST> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Entries<T, const MOST: usize>(PhantomData<T>);
        impl<'de, T: Deserialize<'de>, const MOST: usize> Visitor<'de> for Entries<T, MOST> {
            type Value = List<T, MOST>;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a list")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<Self::Value, A::Error> {
                let mut first = Vec::new();
                while first.len() < MOST {
                    match entries.next_element()? {
                        Some(entry) => first.push(entry),
                        None => break,
                    }
                }
                let mut all = first.len();
                while entries.next_element::<IgnoredAny>()?.is_some() {
                    all += 1;
                }
                Ok(List { first, all })
            }
        }
        deserializer.deserialize_seq(Entries(PhantomData))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_more_is_kept_than_is_understood() {
        let read = |text: &str| serde_json::from_str::<Word>(text);
        assert_eq!(read(r#""a\u0062""#).unwrap().as_str(), "ab");
        let long = read(&format!("\"{}\"", "é".repeat(200))).unwrap();
        assert_eq!(long.as_str(), "é".repeat(127));
        assert!(read("1").is_err());
        let read = |text: &str| serde_json::from_str::<List<u8, 2>>(text);
        for (text, first, all) in [
            ("[]", &[][..], 0),
            ("[1]", &[1], 1),
            ("[1, 2]", &[1, 2], 2),
            ("[1, 2, {}, [3]]", &[1, 2], 4),
        ] {
            let first = first.to_vec();
            assert_eq!(read(text).unwrap(), List { first, all }, "{text}");
        }
        for text in ["[1, {}]", "[1, 2, 3", "[1, 2, x]", "{}", "\"\""] {
            assert!(read(text).is_err(), "{text}");
        }
        let read = |text: &str| serde_json::from_str::<Option<Any>>(text).ok();
        assert_eq!(read("null"), Some(None));
        assert_eq!(read("[]"), Some(Some(Any(false))));
        assert_eq!(read("[\"\", \"\"]"), Some(Some(Any(true))));
        assert_eq!(read("\"\""), None);
    }
}
