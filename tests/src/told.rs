use serde_json::Value;

/// What a command left.
#[derive(Clone, Debug)]
pub struct Told {
    /// Its exit status.
    pub code: i32,
    /// Standard output.
    pub printed: String,
    /// Standard error.
    pub said: String,
}

impl Told {
    /// What it printed, as JSON of this schema.
    pub fn json(&self, schema: &str) -> Value {
        let json: Value = serde_json::from_str(&self.printed)
            .unwrap_or_else(|e| panic!("no JSON ({e}): {self:?}"));
        assert_eq!(json["schema"], schema, "{json:#}");
        json
    }

    /// Fails the test unless it ended so.
    pub fn assert_code(self, code: i32) -> Self {
        assert_eq!(self.code, code, "{}\n{}", self.printed, self.said);
        self
    }
}
