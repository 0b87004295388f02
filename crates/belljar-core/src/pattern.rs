mod name;

use std::fmt;

use serde::{Deserialize, Serialize};

use name::Name;

use crate::{Invalid, RelPath, bounds};

/// What a specification declares to keep: a path, or a pattern of paths, below the root of the source
/// tree.
///
/// | in a component | matches |
/// |---|---|
/// | `*` | any characters, also none, but no `/` |
/// | `?` | one character |
/// | `[abc]`, `[a-z]`, `[!a-z]` | one character of the set, or none of it; `]` stands first, `-` first or last to mean itself |
/// | `**` as a whole component | any number of whole components; at the end of a pattern at least one |
/// | anything else | itself |
///
/// There are no escapes (`[*]` is a star), no braces and no regular expressions. Characters are compared
/// as they are: no case is folded, nothing is normalised, and a leading dot is nothing special. The shape
/// and the bounds are those of [`RelPath`].
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct OutputPattern {
    text: String,
    components: Vec<Component>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum Component {
    /// Matches itself only.
    Literal(String),
    /// A name with wildcards.
    Name(Name),
    /// `**`.
    Any,
}

impl OutputPattern {
    /// Takes `text` if it is a path whose components are as described.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn new(text: impl Into<String>) -> Result<Self, Invalid> {
        RelPath::new(text).and_then(|path| Self::from_path(&path))
    }

    /// Takes a path whose components are as described.
    ///
    /// # Errors
    /// Says which rule was broken.
    pub fn from_path(path: &RelPath) -> Result<Self, Invalid> {
        let components: Result<Vec<_>, Invalid> = path.components().map(component).collect();
        let components = components
            .and_then(bounded)
            .map_err(|e| Invalid::new(format!("the pattern `{path}` {}", e.reason)))?;
        Ok(Self {
            components,
            text: path.as_str().to_owned(),
        })
    }

    /// The pattern as text.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// The path that it is, if it has no wildcard.
    pub fn literal(&self) -> Option<RelPath> {
        // The text is a path, by construction.
        self.is_literal()
            .then(|| RelPath::new(self.text.as_str()).ok())?
    }

    /// Whether it has no wildcard.
    pub fn is_literal(&self) -> bool {
        let literal = |component: &Component| matches!(component, Component::Literal(_));
        self.components.iter().all(literal)
    }

    /// The components before the first wildcard: a directory that everything lies below that the pattern
    /// can match. None if the first component has one already, or the pattern is a plain path.
    pub fn fixed_directory(&self) -> Option<RelPath> {
        let fixed: Vec<&str> = self
            .components
            .iter()
            .map_while(|component| match component {
                Component::Literal(name) => Some(name.as_str()),
                _ => None,
            })
            .collect();
        if fixed.is_empty() || fixed.len() == self.components.len() {
            return None;
        }
        RelPath::new(fixed.join("/")).ok()
    }

    /// Whether it matches `path`.
    pub fn matches(&self, path: &RelPath) -> bool {
        match self.way() {
            Some(way) => path.components().fold(way, Way::to).matches(),
            None => self.text == path.as_str(),
        }
    }

    /// Whether it could match something below `directory`.
    pub fn may_match_below(&self, directory: &RelPath) -> bool {
        match self.way() {
            Some(way) => directory.components().fold(way, Way::to).leads_on(),
            None => {
                let rest = self.text.strip_prefix(directory.as_str());
                rest.is_some_and(|rest| rest.starts_with('/'))
            }
        }
    }

    /// The way from the root of the source tree to whatever it matches, at its beginning. None if it has no wildcard.
    pub fn way(&self) -> Option<Way<'_>> {
        (!self.is_literal()).then(|| Way {
            pattern: self,
            here: self.start(),
        })
    }

    /// How many bytes of `path` the outermost directory or file on its way has that this matches: the whole
    /// for `path` itself. None if it matches none.
    pub fn first_match(&self, path: &RelPath) -> Option<usize> {
        let Some(mut way) = self.way() else {
            let rest = path.as_str().strip_prefix(self.text.as_str())?;
            return (rest.is_empty() || rest.starts_with('/')).then_some(self.text.len());
        };
        let mut length = 0;
        for name in path.components() {
            way = way.to(name);
            length += name.len() + usize::from(length > 0);
            if way.matches() {
                return Some(length);
            }
        }
        None
    }

    /// All ways of matching are followed at once. Bit n of a state tells whether what was seen of a path can
    /// be used up by the first n components.
    fn start(&self) -> u64 {
        self.skip_any(1)
    }

    fn end(&self) -> u64 {
        1 << self.components.len()
    }

    fn step(&self, here: u64, name: &str) -> u64 {
        let mut next = 0;
        for (index, component) in self.components.iter().enumerate() {
            if here >> index & 1 == 0 {
                continue;
            }
            next |= match component {
                Component::Literal(literal) => u64::from(literal == name) << (index + 1),
                Component::Name(wild) => u64::from(wild.matches(name)) << (index + 1),
                Component::Any => 0b11 << index,
            };
        }
        self.skip_any(next)
    }

    /// A `**` may stand for nothing, but for the last one.
    fn skip_any(&self, mut here: u64) -> u64 {
        let inner = self.components.iter().enumerate();
        for (index, component) in inner.take(self.components.len() - 1) {
            if *component == Component::Any {
                here |= (here >> index & 1) << (index + 1);
            }
        }
        here
    }
}

/// Matching takes time by these: a caller chooses both patterns and names.
fn bounded(components: Vec<Component>) -> Result<Vec<Component>, Invalid> {
    let wild = components
        .iter()
        .filter(|component| !matches!(component, Component::Literal(_)))
        .count();
    if wild > bounds::PATTERN_WILDCARDS {
        return Err(Invalid::new(format!(
            "has wildcards in {wild} components; {} are allowed",
            bounds::PATTERN_WILDCARDS
        )));
    }
    if wild > 0 && components.len() > bounds::PATTERN_COMPONENTS {
        return Err(Invalid::new(format!(
            "has {} components; {} are allowed where some have wildcards",
            components.len(),
            bounds::PATTERN_COMPONENTS
        )));
    }
    Ok(components)
}

fn component(text: &str) -> Result<Component, Invalid> {
    if text == "**" {
        return Ok(Component::Any);
    }
    if text.contains("**") {
        return Err(Invalid::new(format!(
            "has `**` inside `{text}`; it stands for whole components only"
        )));
    }
    if !text.contains(['*', '?', '[']) {
        return Ok(Component::Literal(text.to_owned()));
    }
    if text.len() > bounds::PATTERN_NAME_BYTES {
        return Err(Invalid::new(format!(
            "has a component with wildcards of {} bytes; {} are allowed",
            text.len(),
            bounds::PATTERN_NAME_BYTES
        )));
    }
    Name::parse(text).map(Component::Name)
}

/// How far the names of directories, from the root of the source tree on, have come in a pattern: whoever goes through
/// a tree asks about each name once, and not about all above it again.
#[derive(Clone, Copy, Debug)]
pub struct Way<'a> {
    pattern: &'a OutputPattern,
    here: u64,
}

impl Way<'_> {
    /// One name further down.
    #[must_use]
    pub fn to(self, name: &str) -> Self {
        let here = self.pattern.step(self.here, name);
        Self { here, ..self }
    }

    /// Whether the pattern matches what is here.
    pub fn matches(self) -> bool {
        self.here & self.pattern.end() != 0
    }

    /// Whether it could match something below.
    pub fn leads_on(self) -> bool {
        self.here & !self.pattern.end() != 0
    }
}

impl fmt::Display for OutputPattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl TryFrom<String> for OutputPattern {
    type Error = Invalid;

    fn try_from(text: String) -> Result<Self, Invalid> {
        Self::new(text)
    }
}

impl From<OutputPattern> for String {
    fn from(pattern: OutputPattern) -> Self {
        pattern.text
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn path(text: &str) -> RelPath {
        RelPath::new(text).unwrap()
    }

    fn pattern(text: &str) -> OutputPattern {
        OutputPattern::new(text).unwrap()
    }

    #[test]
    fn what_matches_and_what_does_not() {
        let cases: [(&str, &[&str], &[&str]); 12] = [
            ("app", &["app"], &["apps", "a/app", "app/x"]),
            (
                "dist/*.whl",
                &["dist/a.whl", "dist/.whl"],
                &["dist/a.whl/x", "a.whl", "dist/x/a.whl", "dist/a.WHL"],
            ),
            ("*", &["a", ".hidden"], &["a/b"]),
            ("a?c", &["abc", "a*c", "aüc"], &["ac", "abbc"]),
            ("[a-cx]", &["a", "b", "x"], &["d", "-", "ab"]),
            ("[!a-c]", &["d", "ü"], &["a", "de"]),
            ("[]-]", &["]", "-"], &["a"]),
            ("[*][?]", &["*?"], &["ab"]),
            (
                "reports/**",
                &["reports/a", "reports/a/b/c"],
                &["reports", "report"],
            ),
            ("**/app", &["app", "a/app", "a/b/app"], &["a/b", "xapp"]),
            ("a/**/z", &["a/z", "a/b/z", "a/b/c/z"], &["a", "z", "a/b"]),
            ("a*b*c", &["abc", "aXbYc", "abbcc"], &["ab", "acb", "abcd"]),
        ];
        for (text, good, bad) in cases {
            for name in good {
                assert!(pattern(text).matches(&path(name)), "{text} {name}");
            }
            for name in bad {
                assert!(!pattern(text).matches(&path(name)), "{text} {name}");
            }
        }
    }

    #[test]
    fn bad_patterns_are_refused() {
        for bad in [
            "a**", "**a", "***", "[a", "a[", "[]", "[!]", "[z-a]", "/a*", "../*", "a//*", "",
        ] {
            assert!(OutputPattern::new(bad).is_err(), "{bad}");
        }
        let long = [
            "*/".repeat(bounds::PATTERN_WILDCARDS) + "*",
            "d/".repeat(bounds::PATTERN_COMPONENTS) + "*",
            "n".repeat(bounds::PATTERN_NAME_BYTES) + "*",
        ];
        for (bad, good) in long.iter().map(|text| (text, &text[2..])) {
            assert!(OutputPattern::new(bad.as_str()).is_err(), "{bad}");
            assert!(OutputPattern::new(good).is_ok(), "{good}");
        }
        let said = OutputPattern::new("dist/[a").unwrap_err().reason;
        assert!(
            said.contains("`dist/[a`") && said.contains("`[[]`"),
            "{said}"
        );
    }

    #[test]
    fn plain_paths_and_fixed_directories() {
        assert_eq!(pattern("a/b").literal(), Some(path("a/b")));
        assert_eq!(pattern("a/*").literal(), None);
        let fixed = |text: &str| pattern(text).fixed_directory();
        assert_eq!(fixed("a/b/*.o"), Some(path("a/b")));
        assert_eq!(fixed("a/**/b"), Some(path("a")));
        assert_eq!((fixed("*.o"), fixed("a/b")), (None, None));
    }

    /// What the documentation says, as plainly as possible.
    fn naive(pattern: &[&str], path: &[&str]) -> bool {
        match pattern.split_first() {
            None => path.is_empty(),
            Some((&"**", rest)) => {
                let least = usize::from(rest.is_empty());
                (least..=path.len()).any(|n| naive(rest, &path[n..]))
            }
            Some((first, rest)) => path.split_first().is_some_and(|(name, below)| {
                let (first, name): (Vec<_>, Vec<_>) =
                    (first.chars().collect(), name.chars().collect());
                naive_name(&first, &name) && naive(rest, below)
            }),
        }
    }

    fn naive_name(pattern: &[char], name: &[char]) -> bool {
        match pattern {
            [] => name.is_empty(),
            ['*', rest @ ..] => (0..=name.len()).any(|n| naive_name(rest, &name[n..])),
            ['?', rest @ ..] => !name.is_empty() && naive_name(rest, &name[1..]),
            // The only sets that the strategy below makes.
            ['[', '!', c, ']', rest @ ..] => {
                name.first().is_some_and(|n| n != c) && naive_name(rest, &name[1..])
            }
            ['[', low, '-', high, ']', rest @ ..] => {
                name.first().is_some_and(|n| (low..=high).contains(&n))
                    && naive_name(rest, &name[1..])
            }
            [c, rest @ ..] => name.first() == Some(c) && naive_name(rest, &name[1..]),
        }
    }

    fn patterns() -> impl Strategy<Value = String> {
        let name = "([ab.ü]|\\*|\\?|\\[!a\\]|\\[a-b\\]){1,5}";
        let component = prop_oneof![2 => Just("**".to_owned()), 5 => name];
        proptest::collection::vec(component, 1..5).prop_map(|parts| parts.join("/"))
    }

    fn paths() -> impl Strategy<Value = String> {
        proptest::collection::vec("[ab.ü]{1,5}", 1..5).prop_map(|parts| parts.join("/"))
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(2000))]

        #[test]
        fn the_matcher_agrees_with_a_naive_one(text in patterns(), name in paths()) {
            let (Ok(pattern), Ok(path)) = (OutputPattern::new(text.as_str()), RelPath::new(name.as_str())) else {
                return Ok(());
            };
            let (parts, names): (Vec<_>, Vec<_>) = (text.split('/').collect(), name.split('/').collect());
            prop_assert_eq!(pattern.matches(&path), naive(&parts, &names));
            let ends = name.match_indices('/').map(|(at, _)| at).chain([name.len()]);
            let first = ends.clone().find(|end| {
                let prefix: Vec<_> = name[..*end].split('/').collect();
                naive(&parts, &prefix)
            });
            prop_assert_eq!(pattern.first_match(&path), first);
            // Whoever walks by `may_match_below` misses nothing.
            if pattern.matches(&path) {
                for (at, _) in name.match_indices('/') {
                    prop_assert!(pattern.may_match_below(&RelPath::new(&name[..at]).unwrap()));
                }
                if let Some(fixed) = pattern.fixed_directory() {
                    prop_assert!(path.starts_with(&fixed));
                }
            }
        }

        #[test]
        fn hostile_texts_never_panic(text in "\\PC{0,40}|[*?\\[\\]!/a-]{0,30}", name in paths()) {
            if let Ok(pattern) = OutputPattern::new(text) {
                let path = RelPath::new(name).unwrap_or_else(|_| path("a"));
                let _ = (pattern.matches(&path), pattern.may_match_below(&path));
                prop_assert_eq!(OutputPattern::new(pattern.as_str()), Ok(pattern.clone()));
            }
        }
    }
}
