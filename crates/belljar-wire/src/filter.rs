//! `ListBuildsRequest.filter`: the part of AIP-160 that the API has.

use belljar_core::{Digest, Invalid, Outcome, ProjectId, Timestamp, bounds};

use crate::BuildState;
use crate::record::state_named;

/// Which builds: those for which every condition holds.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Filter(Vec<Condition>);

/// What must hold of a build. `is` false: must not.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Condition {
    /// `state`.
    State {
        /// `=` rather than `!=`.
        is: bool,
        /// Where it stands.
        state: BuildState,
    },
    /// `outcome`: it has ended, and so, or not so.
    Outcome {
        /// `=` rather than `!=`.
        is: bool,
        /// One of [`Outcome::KINDS`].
        kind: &'static str,
    },
    /// `submitter`.
    Submitter {
        /// `=` rather than `!=`.
        is: bool,
        /// The principal.
        principal: String,
    },
    /// `request_id`.
    RequestId {
        /// `=` rather than `!=`.
        is: bool,
        /// The client's own name for the submission.
        request_id: String,
    },
    /// `project`.
    Project {
        /// `=` rather than `!=`.
        is: bool,
        /// The project.
        project: ProjectId,
    },
    /// `artifact`: one of the regular files that it left has this content.
    Artifact(Digest),
    /// `create_time`.
    Created {
        /// How it compares.
        order: Order,
        /// With what.
        time: Timestamp,
    },
}

/// How two times compare.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// `<`
    Before,
    /// `<=`
    NotAfter,
    /// `>`
    After,
    /// `>=`
    NotBefore,
}

impl Filter {
    /// Reads a filter.
    ///
    /// # Errors
    /// What is wrong with it, with the number of the character where; the field is `filter`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        if text.len() > bounds::FILTER_BYTES {
            let why = format!("{} bytes; {} are allowed", text.len(), bounds::FILTER_BYTES);
            return Err(Invalid::field("filter", why));
        }
        let mut tokens = Tokens::new(text);
        let mut conditions = Vec::new();
        while let Some(field) = tokens.next()? {
            if conditions.len() == bounds::FILTER_CONDITIONS {
                let why = format!("more than {} conditions", bounds::FILTER_CONDITIONS);
                return Err(at(field.place, &why));
            }
            conditions.push(condition(&field, &mut tokens)?);
            match tokens.next()? {
                None => break,
                Some(and) if and.is_word("AND") => tokens.must_go_on("a condition")?,
                Some(other) => return Err(at(other.place, &no_and(&other))),
            }
        }
        Ok(Self(conditions))
    }

    /// What must hold.
    pub fn conditions(&self) -> &[Condition] {
        &self.0
    }
}

fn no_and(found: &Token) -> String {
    let hint = if found.is_word("OR") || found.is_word("NOT") {
        "; there is no OR and no NOT"
    } else {
        ""
    };
    format!("`AND` is due, not {}{hint}", found.shown())
}

fn condition(field: &Token, tokens: &mut Tokens<'_>) -> Result<Condition, Invalid> {
    const FIELDS: [&str; 7] = [
        "state",
        "outcome",
        "submitter",
        "request_id",
        "project",
        "artifact",
        "create_time",
    ];
    let name = FIELDS.into_iter().find(|name| field.is_word(name));
    let Some(name) = name else {
        let why = format!(
            "a field is due, not {}: one of {}",
            field.shown(),
            FIELDS.join(", ")
        );
        return Err(at(field.place, &why));
    };
    let operator = tokens.due("an operator")?;
    let value = tokens.due("a value")?;
    let Kind::Operator(sign) = &operator.kind else {
        let why = format!("an operator is due, not {}", operator.shown());
        return Err(at(operator.place, &why));
    };
    let (Kind::Word(text) | Kind::Quoted(text)) = value.kind.clone() else {
        return Err(at(
            value.place,
            &format!("a value is due, not {}", value.shown()),
        ));
    };
    match name {
        "create_time" => return created(&operator, sign, &value, text),
        "artifact" if *sign == "=" => {
            let hex = text.strip_prefix("sha256:").unwrap_or(&text);
            let digest = Digest::from_hex(hex).map_err(|e| at(value.place, &e.reason))?;
            return Ok(Condition::Artifact(digest));
        }
        "artifact" => {
            let why = format!("`artifact` takes `=`, not `{sign}`");
            return Err(at(operator.place, &why));
        }
        _ => {}
    }
    let is = match *sign {
        "=" => true,
        "!=" => false,
        other => {
            let why = format!("`{name}` takes `=` and `!=`, not `{other}`");
            return Err(at(operator.place, &why));
        }
    };
    equal(name, is, &value, text)
}

/// A condition on a field that is equal to something or not.
fn equal(name: &str, is: bool, value: &Token, text: String) -> Result<Condition, Invalid> {
    match name {
        "state" => match state_named(&text) {
            Some(state) => Ok(Condition::State { is, state }),
            None => Err(at(value.place, &format!("{} is no state", value.shown()))),
        },
        "outcome" => {
            let kind = Outcome::KINDS.into_iter().find(|kind| *kind == text);
            let unknown = || {
                let kinds = Outcome::KINDS.join(", ");
                let why = format!("{} is no outcome; one of {kinds} is due", value.shown());
                at(value.place, &why)
            };
            Ok(Condition::Outcome {
                is,
                kind: kind.ok_or_else(unknown)?,
            })
        }
        "submitter" => Ok(Condition::Submitter {
            is,
            principal: text,
        }),
        "project" => {
            let id = text.strip_prefix("projects/").unwrap_or(&text);
            let project = ProjectId::new(id).map_err(|e| at(value.place, &e.reason))?;
            Ok(Condition::Project { is, project })
        }
        _ => Ok(Condition::RequestId {
            is,
            request_id: text,
        }),
    }
}

fn created(
    operator: &Token,
    sign: &str,
    value: &Token,
    text: String,
) -> Result<Condition, Invalid> {
    let order = match sign {
        "<" => Order::Before,
        "<=" => Order::NotAfter,
        ">" => Order::After,
        ">=" => Order::NotBefore,
        other => {
            let why = format!("`create_time` takes `<`, `<=`, `>` and `>=`, not `{other}`");
            return Err(at(operator.place, &why));
        }
    };
    let time = Timestamp::try_from(text).map_err(|e| at(value.place, &e.reason))?;
    Ok(Condition::Created { order, time })
}

/// What is wrong, and where: characters are counted from 1.
fn at(place: usize, why: &str) -> Invalid {
    Invalid::field("filter", format!("at character {place}: {why}"))
}

struct Token {
    place: usize,
    kind: Kind,
}

#[derive(Clone)]
enum Kind {
    Word(String),
    Quoted(String),
    Operator(&'static str),
}

impl Token {
    fn is_word(&self, word: &str) -> bool {
        matches!(&self.kind, Kind::Word(text) if text == word)
    }

    fn shown(&self) -> String {
        match &self.kind {
            Kind::Word(text) => format!("`{text}`"),
            Kind::Quoted(text) => format!("{text:?}"),
            Kind::Operator(sign) => format!("`{sign}`"),
        }
    }
}

/// Longer ones before their beginnings.
const OPERATORS: [&str; 6] = ["!=", "<=", ">=", "=", "<", ">"];

struct Tokens<'a> {
    rest: &'a str,
    place: usize,
}

impl<'a> Tokens<'a> {
    fn new(text: &'a str) -> Self {
        Self {
            rest: text,
            place: 1,
        }
    }

    fn skip(&mut self, bytes: usize) {
        let (skipped, rest) = self.rest.split_at(bytes);
        self.place += skipped.chars().count();
        self.rest = rest;
    }

    fn due(&mut self, what: &str) -> Result<Token, Invalid> {
        self.must_go_on(what)?;
        match self.next()? {
            Some(token) => Ok(token),
            None => Err(at(self.place, &format!("{what} is due"))),
        }
    }

    fn must_go_on(&mut self, what: &str) -> Result<(), Invalid> {
        self.skip(self.rest.len() - self.rest.trim_start().len());
        match self.rest.is_empty() {
            true => Err(at(
                self.place,
                &format!("{what} is due, and nothing follows"),
            )),
            false => Ok(()),
        }
    }

    fn next(&mut self) -> Result<Option<Token>, Invalid> {
        self.skip(self.rest.len() - self.rest.trim_start().len());
        let place = self.place;
        let Some(first) = self.rest.chars().next() else {
            return Ok(None);
        };
        let sign = OPERATORS
            .into_iter()
            .find(|sign| self.rest.starts_with(sign));
        let kind = if let Some(sign) = sign {
            self.skip(sign.len());
            Kind::Operator(sign)
        } else if first == '"' {
            Kind::Quoted(self.quoted()?)
        } else {
            let plain = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '.' | '-' | ':');
            let end = self.rest.find(|c| !plain(c)).unwrap_or(self.rest.len());
            if end == 0 {
                let why = format!("`{}` is not understood here", first.escape_debug());
                return Err(at(place, &why));
            }
            let word = self.rest[..end].to_owned();
            self.skip(end);
            Kind::Word(word)
        };
        Ok(Some(Token { place, kind }))
    }

    /// A text in double quotes, in which a backslash stands before a quote or a backslash.
    fn quoted(&mut self) -> Result<String, Invalid> {
        let start = self.place;
        let mut text = String::new();
        let mut characters = self.rest.char_indices().skip(1);
        while let Some((offset, character)) = characters.next() {
            match character {
                '"' => {
                    self.skip(offset + 1);
                    return Ok(text);
                }
                '\\' => match characters.next() {
                    Some((_, escaped @ ('"' | '\\'))) => text.push(escaped),
                    _ => {
                        let place = start + self.rest[..offset].chars().count();
                        return Err(at(place, "only `\\\"` and `\\\\` may be escaped"));
                    }
                },
                other => text.push(other),
            }
        }
        Err(at(start, "this quote is not closed"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_read() {
        let parse = |text| Filter::parse(text).unwrap().0;
        assert_eq!(parse("  "), []);
        let submitter = |is, principal: &str| Condition::Submitter {
            is,
            principal: principal.to_owned(),
        };
        let running = Condition::State {
            is: true,
            state: BuildState::Running,
        };
        assert_eq!(
            parse(r#"state = RUNNING AND submitter = "unix:uid=0""#),
            [running.clone(), submitter(true, "unix:uid=0")]
        );
        // Blanks between tokens mean nothing.
        assert_eq!(
            parse(r#"state=RUNNING AND submitter!="a \"b\" \\ AND c""#),
            [running, submitter(false, r#"a "b" \ AND c"#)]
        );
        let day = Timestamp::try_from("2026-11-01T00:00:00Z".to_owned()).unwrap();
        assert_eq!(
            parse("outcome != timed_out AND create_time >= 2026-11-01T00:00:00Z"),
            [
                Condition::Outcome {
                    is: false,
                    kind: "timed_out"
                },
                Condition::Created {
                    order: Order::NotBefore,
                    time: day
                }
            ]
        );
    }

    #[test]
    fn artifacts_are_named_by_their_digest() {
        let digest = Digest::of(b"x");
        for text in [
            digest.to_string(),
            digest.to_hex(),
            format!("{:?}", digest.to_hex()),
        ] {
            let filter = Filter::parse(&format!("artifact = {text}")).unwrap();
            assert_eq!(filter.0, [Condition::Artifact(digest)], "{text}");
        }
    }

    #[test]
    fn what_is_wrong_is_told_with_its_place() {
        let long = vec!["request_id = r"; bounds::FILTER_CONDITIONS + 1].join(" AND ");
        for (bad, why) in [
            ("state", "at character 6: an operator is due"),
            ("state = ", "at character 9: a value is due"),
            (
                "state = RUNNING AND ",
                "at character 21: a condition is due",
            ),
            ("state = WALKING", "at character 9: `WALKING` is no state"),
            ("state < RUNNING", "at character 7: `state` takes"),
            ("outcome = bad", "at character 11: `bad` is no outcome"),
            ("size = 3", "at character 1: a field is due, not `size`"),
            ("= RUNNING", "at character 1: a field is due, not `=`"),
            (
                "state = RUNNING OR state = QUEUED",
                "at character 17: `AND` is due, not `OR`; there is no OR",
            ),
            (
                "state = RUNNING state = QUEUED",
                "at character 17: `AND` is due, not `state`",
            ),
            (
                "create_time = 2026-11-01T00:00:00Z",
                "at character 13: `create_time` takes",
            ),
            ("create_time < yesterday", "at character 15: not a time"),
            ("artifact = 00", "at character 12: "),
            ("artifact != 00", "at character 10: `artifact` takes `=`"),
            (
                "submitter = \"ü",
                "at character 13: this quote is not closed",
            ),
            ("submitter = \"ü\\n\"", "at character 15: only"),
            ("(state = RUNNING)", "at character 1: `(` is not understood"),
            (&long, "more than 16 conditions"),
            (&"x".repeat(bounds::FILTER_BYTES + 1), "are allowed"),
        ] {
            let invalid = Filter::parse(bad).unwrap_err();
            assert_eq!(invalid.field, "filter");
            assert!(invalid.reason.contains(why), "{bad}: {invalid}");
        }
    }

    proptest! {
        #[test]
        fn anything_is_read_or_refused(text in "[ -~ü]{0,60}") {
            let _ = Filter::parse(&text);
        }

        #[test]
        fn any_principal_can_be_quoted(principal in "\\PC{0,30}") {
            let quoted = principal.replace('\\', "\\\\").replace('"', "\\\"");
            let filter = Filter::parse(&format!("submitter = \"{quoted}\"")).unwrap();
            prop_assert_eq!(filter.0, [Condition::Submitter { is: true, principal }]);
        }
    }
}
