//! Each crate takes the workspace's lints; belljar-sys repeats them, but for the one on unsafe code.
//! It may be stricter, since some lints mean something only where there is unsafe code.

use toml::{Table, Value};

use super::Finding;

const WITH_UNSAFE: &str = "belljar-sys";

/// Check manifests, given as (crate, path, text), against the workspace's own manifest.
pub(crate) fn check(workspace: &str, manifests: &[(String, String, String)]) -> Vec<Finding> {
    let wanted = match parse(workspace) {
        Ok(table) => table
            .get("workspace")
            .and_then(|table| table.get("lints"))
            .cloned(),
        Err(error) => return vec![Finding::new("Cargo.toml", error)],
    };
    let Some(wanted) = wanted else {
        return vec![Finding::new("Cargo.toml", "there is no [workspace.lints]")];
    };
    let mut findings = Vec::new();
    if lint(&wanted, "rust", "unsafe_code").and_then(Value::as_str) != Some("forbid") {
        findings.push(Finding::new(
            "Cargo.toml",
            "[workspace.lints.rust] must forbid unsafe_code",
        ));
    }
    for (name, path, text) in manifests {
        match parse(text) {
            Ok(table) => {
                let own = table
                    .get("lints")
                    .cloned()
                    .unwrap_or(Value::Table(Table::new()));
                findings.extend(check_one(name, path, &own, &wanted));
            }
            Err(error) => findings.push(Finding::new(path, error)),
        }
    }
    findings
}

fn check_one(name: &str, path: &str, own: &Value, wanted: &Value) -> Vec<Finding> {
    if own.get("workspace").and_then(Value::as_bool) == Some(true) {
        return Vec::new();
    }
    if name != WITH_UNSAFE {
        return vec![Finding::new(path, "[lints] must say workspace = true")];
    }
    let (own, wanted) = (flat(own), flat(wanted));
    let mut findings = Vec::new();
    for (key, value) in wanted.iter().filter(|(key, _)| key != "rust.unsafe_code") {
        match own.iter().find(|(known, _)| known == key) {
            None => findings.push(Finding::new(path, format!("[lints] lacks {key} = {value}"))),
            Some((_, said)) if said != value => {
                findings.push(Finding::new(
                    path,
                    format!("[lints] says {key} = {said}, the workspace says {value}"),
                ));
            }
            Some(_) => {}
        }
    }
    for (key, level) in own.iter().filter(|(key, _)| key != "rust.unsafe_code") {
        if level.contains("allow") && !wanted.iter().any(|(known, _)| known == key) {
            findings.push(Finding::new(
                path,
                format!("[lints] allows {key}, the workspace does not"),
            ));
        }
    }
    findings
}

fn parse(text: &str) -> Result<Table, String> {
    text.parse::<Table>()
        .map_err(|error| format!("cannot be read: {}", error.message()))
}

fn lint<'a>(lints: &'a Value, tool: &str, name: &str) -> Option<&'a Value> {
    lints.get(tool)?.get(name)
}

/// `tool.lint` and its level, as text that can be compared and shown.
fn flat(lints: &Value) -> Vec<(String, String)> {
    let tools = lints.as_table().into_iter().flatten();
    tools
        .flat_map(|(tool, table)| {
            let lints = table.as_table().into_iter().flatten();
            lints.map(move |(lint, level)| (format!("{tool}.{lint}"), level.to_string()))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const WORKSPACE: &str = "\
[workspace.lints.rust]
unsafe_code = \"forbid\"
missing_docs = \"warn\"
[workspace.lints.clippy]
all = { level = \"warn\", priority = -1 }
";

    fn check_text(name: &str, text: &str) -> Vec<Finding> {
        check(
            WORKSPACE,
            &[(name.to_owned(), "Cargo.toml".to_owned(), text.to_owned())],
        )
    }

    const INHERITS: &str = "[lints]\nworkspace = true\n";
    const REPEATS: &str = "\
[lints.rust]
unsafe_code = \"allow\"
missing_docs = \"warn\"
[lints.clippy]
all = { priority = -1, level = \"warn\" }
";

    #[test]
    fn inheriting_is_fine_and_sys_may_repeat() {
        assert_eq!(check_text("belljar-core", INHERITS), []);
        assert_eq!(check_text("belljar-sys", INHERITS), []);
        assert_eq!(check_text("belljar-sys", REPEATS), []);
        let stricter = REPEATS.replace(
            "missing_docs",
            "unsafe_op_in_unsafe_fn = \"deny\"\nmissing_docs",
        );
        assert_eq!(check_text("belljar-sys", &stricter), []);
    }

    #[test]
    fn a_crate_without_the_lints_is_found() {
        assert_eq!(check_text("belljar-core", "").len(), 1);
        assert_eq!(check_text("belljar-core", REPEATS).len(), 1);
        assert_eq!(check_text("belljar-core", "[lints").len(), 1);
    }

    #[test]
    fn sys_may_differ_in_one_lint_only() {
        let cases = [
            ("missing_docs = \"warn\"\n", "", "lacks rust.missing_docs"),
            (
                "missing_docs = \"warn\"",
                "missing_docs = \"allow\"",
                "says rust.missing_docs",
            ),
            (
                "missing_docs",
                "dead_code = \"allow\"\nmissing_docs",
                "allows rust.dead_code",
            ),
        ];
        for (from, to, expected) in cases {
            let found = check_text("belljar-sys", &REPEATS.replace(from, to));
            assert_eq!(found.len(), 1, "{expected}: {found:?}");
            assert!(found[0].what.contains(expected), "{found:?}");
        }
    }

    #[test]
    fn the_workspace_must_forbid_unsafe_code() {
        assert_eq!(check(&WORKSPACE.replace("forbid", "deny"), &[]).len(), 1);
        assert_eq!(check("[workspace]", &[]).len(), 1);
    }
}
