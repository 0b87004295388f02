//! The project of the demonstration: SQLite's amalgamation, as a well-known package carries it.

use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use cargo_metadata::Metadata;

/// The package that ships the amalgamation; the workspace depends on it through rusqlite.
const PACKAGE: &str = "libsqlite3-sys";

/// What is taken from it. (Public domain, as SQLite's authors say at the top of each file.)
const FILES: &[&str] = &["sqlite3.c", "sqlite3.h", "sqlite3ext.h"];

/// Our own few lines: ask the library for its version, and a question in SQL.
const MAIN: &str = r#"#include <stdio.h>
#include "sqlite3.h"

static int print_sum(void *unused, int columns, char **values, char **names) {
    (void)unused; (void)columns; (void)names;
    printf("sum of 1 to 100: %s\n", values[0]);
    return 0;
}

int main(void) {
    sqlite3 *db;
    printf("SQLite %s\n", sqlite3_libversion());
    if (sqlite3_open(":memory:", &db) != SQLITE_OK) return 1;
    const char *sql =
        "CREATE TABLE numbers (n INTEGER);"
        "WITH RECURSIVE c(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM c WHERE n < 100)"
        " INSERT INTO numbers SELECT n FROM c;"
        "SELECT sum(n) FROM numbers;";
    int result = sqlite3_exec(db, sql, print_sum, NULL, NULL);
    sqlite3_close(db);
    return result == SQLITE_OK ? 0 : 1;
}
"#;

/// What Belljar is asked to do.
const BELLJAR_TOML: &str = r#"image = "host"
run = ["cc -O1 -o app shell-main.c sqlite3.c -lpthread -ldl -lm"]
outputs = ["app"]
"#;

/// Lay the project into a new folder; return the version of SQLite that the sources name.
pub(super) fn lay(metadata: &Metadata, folder: &Path) -> Result<String> {
    let from = sources(metadata)?;
    std::fs::create_dir(folder).with_context(|| format!("creating {}", folder.display()))?;
    for file in FILES {
        let bytes = std::fs::copy(from.join(file), folder.join(file))
            .with_context(|| format!("copying {} of {PACKAGE}", file))?;
        println!("   {file}: {bytes} bytes");
    }
    for (file, text) in [("shell-main.c", MAIN), ("belljar.toml", BELLJAR_TOML)] {
        std::fs::write(folder.join(file), text).with_context(|| format!("writing {file}"))?;
    }
    let header = std::fs::read_to_string(folder.join("sqlite3.h")).context("reading sqlite3.h")?;
    let version = version(&header).context("sqlite3.h does not name its version")?;
    println!("   SQLite {version}, with a main function and a belljar.toml of our own");
    Ok(version)
}

fn sources(metadata: &Metadata) -> Result<PathBuf> {
    let package = metadata
        .packages
        .iter()
        .find(|package| package.name.as_str() == PACKAGE);
    let package = package.with_context(|| format!("the workspace does not depend on {PACKAGE}"))?;
    let root = package
        .manifest_path
        .parent()
        .context("a manifest has a folder")?;
    let folder = root.join("sqlite3").into_std_path_buf();
    ensure!(
        folder.is_dir(),
        "{PACKAGE} {} does not ship sqlite3/",
        package.version
    );
    Ok(folder)
}

/// The text of `#define SQLITE_VERSION "…"`.
fn version(header: &str) -> Option<String> {
    let line = header
        .lines()
        .find(|line| line.starts_with("#define SQLITE_VERSION "))?;
    Some(line.split('"').nth(1)?.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_version_is_the_headers_own() {
        let header =
            "#define SQLITE_VERSION_NUMBER 3050004\n#define SQLITE_VERSION        \"3.50.4\"\n";
        assert_eq!(version(header).as_deref(), Some("3.50.4"));
        assert_eq!(version("#define SQLITE_VERSION_NUMBER 3050004"), None);
    }
}
