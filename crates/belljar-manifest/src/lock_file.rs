use belljar_core::{EnvName, EnvValue, InputName, Inputs, Invalid, RelPath};
use belljar_lock::Ecosystem;

/// A lock file that `belljar.toml` names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LockFile {
    /// Where, below the source directory.
    pub path: RelPath,
    /// Whose it is.
    pub ecosystem: Ecosystem,
}

impl LockFile {
    /// The name of the input that is made of it.
    ///
    /// # Errors
    /// Never: the names of ecosystems are names of inputs.
    pub fn input(&self) -> Result<InputName, Invalid> {
        InputName::new(self.ecosystem.name())
    }

    /// What a build needs in its environment to find its packages.
    ///
    /// # Errors
    /// Never: these are good variables.
    pub fn environment(&self) -> Result<Vec<(EnvName, EnvValue)>, Invalid> {
        let at = format!("{}/{}", Inputs::DIR, self.ecosystem.name());
        let variables = self.ecosystem.environment(&at);
        let parsed = |(name, value)| Ok((EnvName::new(name)?, EnvValue::new(value)?));
        variables.into_iter().map(parsed).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn inputs_and_variables_are_sound() {
        for ecosystem in Ecosystem::ALL {
            let path = RelPath::new("x").unwrap();
            let file = LockFile { path, ecosystem };
            let name = file.input().unwrap();
            let place = format!("/deps/{name}");
            let variables = file.environment().unwrap();
            assert!(variables[0].1.as_str().starts_with(&place), "{variables:?}");
        }
    }
}
