use std::fmt;

use belljar_core::Invalid;

use crate::cargo;

/// Whose lock file it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Ecosystem {
    /// `Cargo.lock`.
    Cargo,
    /// `package-lock.json` and `npm-shrinkwrap.json`.
    Npm,
}

/// Lock files that are known and not read yet, with what they belong to.
const LATER: [(&str, &str); 18] = [
    ("go.sum", "Go"),
    ("go.mod", "Go"),
    ("requirements.txt", "pip"),
    ("Pipfile.lock", "Pipenv"),
    ("poetry.lock", "Poetry"),
    ("pdm.lock", "PDM"),
    ("pylock.toml", "Python"),
    ("uv.lock", "uv"),
    ("yarn.lock", "Yarn"),
    ("pnpm-lock.yaml", "pnpm"),
    ("bun.lock", "Bun"),
    ("pom.xml", "Maven"),
    ("gradle.lockfile", "Gradle"),
    ("verification-metadata.xml", "Gradle"),
    ("Gemfile.lock", "Bundler"),
    ("composer.lock", "Composer"),
    ("mix.lock", "Mix"),
    ("packages.lock.json", "NuGet"),
];

impl Ecosystem {
    /// Every one.
    pub const ALL: [Self; 2] = [Self::Cargo, Self::Npm];

    /// Whose lock file has this name.
    ///
    /// # Errors
    /// For every other name; that of a lock file which is not read yet is told so.
    pub fn of_file_name(name: &str) -> Result<Self, Invalid> {
        match name {
            "Cargo.lock" => return Ok(Self::Cargo),
            "package-lock.json" | "npm-shrinkwrap.json" => return Ok(Self::Npm),
            _ => {}
        }
        let known = "Cargo.lock, package-lock.json and npm-shrinkwrap.json are";
        let name = name.escape_debug();
        Err(Invalid::new(
            match LATER.iter().find(|(later, _)| *later == name.to_string()) {
                Some((_, whose)) => format!(
                    "lock files of {whose} (`{name}`) are not supported yet; {known}. Until then, put what the build needs into the source tree"
                ),
                None => format!("`{name}` is no lock file that is known; {known}"),
            },
        ))
    }

    /// What a build has to have in its environment so that its package manager takes packages from the tree
    /// that is mounted at `at`, and asks no network.
    pub fn environment(self, at: &str) -> Vec<(&'static str, String)> {
        match self {
            Self::Cargo => vec![("CARGO_HOME", format!("{at}/{}", cargo::HOME))],
            Self::Npm => {
                let fixed = [
                    ("npm_config_audit", "false"),
                    ("npm_config_fund", "false"),
                    ("npm_config_logs_max", "0"),
                    ("npm_config_offline", "true"),
                    ("npm_config_update_notifier", "false"),
                ];
                let fixed = fixed.map(|(name, value)| (name, value.to_owned()));
                [("npm_config_cache", at.to_owned())]
                    .into_iter()
                    .chain(fixed)
                    .collect()
            }
        }
    }

    /// Its short name, which is also the name of the input that is made from its lock file.
    pub fn name(self) -> &'static str {
        match self {
            Self::Cargo => "cargo",
            Self::Npm => "npm",
        }
    }
}

impl fmt::Display for Ecosystem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lock_files_are_known_by_their_names() {
        assert_eq!(Ecosystem::of_file_name("Cargo.lock"), Ok(Ecosystem::Cargo));
        for name in ["package-lock.json", "npm-shrinkwrap.json"] {
            assert_eq!(Ecosystem::of_file_name(name), Ok(Ecosystem::Npm));
        }
        let refused = |name| Ecosystem::of_file_name(name).unwrap_err().reason;
        for (name, whose) in LATER {
            let reason = refused(name);
            assert!(
                reason.contains(whose) && reason.contains("not supported yet"),
                "{reason}"
            );
        }
        assert!(refused("Cargo.toml").contains("no lock file that is known"));
        assert!(refused("cargo.lock").contains("no lock file that is known"));
    }
}
