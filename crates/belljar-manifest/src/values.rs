//! From TOML's tree, in which every value knows where it stands, to plain values.

use belljar_core::Invalid;
use toml::Spanned;
use toml::de::{DeTable, DeValue};

/// A byte offset into the text, and what is wrong there.
pub(crate) type Refusal = (usize, Invalid);
/// A value that knows where it stands.
pub(crate) type Value<'i> = Spanned<DeValue<'i>>;

/// Parses a whole document.
pub(crate) fn table(text: &str) -> Result<Spanned<DeTable<'_>>, Refusal> {
    DeTable::parse(text).map_err(|e| {
        (
            e.span().map_or(0, |span| span.start),
            Invalid::new(e.message().to_owned()),
        )
    })
}

/// Refuses whatever is not in `fields` of the table at `outer`.
pub(crate) fn known(table: &DeTable<'_>, outer: &str, fields: &[&str]) -> Result<(), Refusal> {
    for key in table.keys() {
        let name = key.get_ref().as_ref();
        if !fields.contains(&name) {
            let reason = format!("unknown field; the fields are {}", fields.join(", "));
            let mut invalid = Invalid::field(name.escape_debug().to_string(), reason);
            if !outer.is_empty() {
                invalid = invalid.within(outer);
            }
            return Err((key.span().start, invalid));
        }
    }
    Ok(())
}

/// A field at the top that must be there.
pub(crate) fn required<'a, 'i>(
    table: &'a DeTable<'i>,
    name: &'static str,
) -> Result<&'a Value<'i>, Refusal> {
    table
        .get(name)
        .ok_or_else(|| (0, Invalid::field(name, "missing; it is required")))
}

pub(crate) fn string<'a>(field: &str, value: &'a Value<'_>) -> Result<&'a str, Refusal> {
    value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(field, value, "a string"))
}

pub(crate) fn elements<'a, 'i>(
    field: &str,
    value: &'a Value<'i>,
) -> Result<&'a [Value<'i>], Refusal> {
    value
        .get_ref()
        .as_array()
        .map(|array| &**array)
        .ok_or_else(|| wrong_type(field, value, "an array of strings"))
}

pub(crate) fn subtable<'a, 'i>(
    field: &str,
    value: &'a Value<'i>,
) -> Result<&'a DeTable<'i>, Refusal> {
    value
        .get_ref()
        .as_table()
        .ok_or_else(|| wrong_type(field, value, "a table"))
}

pub(crate) fn number(field: &str, value: &Value<'_>) -> Result<u64, Refusal> {
    let integer = value
        .get_ref()
        .as_integer()
        .ok_or_else(|| wrong_type(field, value, "a whole number"))?;
    u64::from_str_radix(integer.as_str(), integer.radix()).map_err(|_| {
        refuse(
            value,
            Invalid::field(field, format!("{} is out of range", integer.as_str())),
        )
    })
}

fn wrong_type(field: &str, value: &Value<'_>, due: &str) -> Refusal {
    refuse(
        value,
        Invalid::field(
            field,
            format!(
                "{due} is due, not a value of type {}",
                value.get_ref().type_str()
            ),
        ),
    )
}

/// A refusal of a value, where it stands.
pub(crate) fn refuse(value: &Value<'_>, invalid: Invalid) -> Refusal {
    (value.span().start, invalid)
}
