/// Says so when a call ends without an answer: who hangs up ends a call wherever it stands, and what was done until then is to be
/// on record all the same.
pub(super) struct HungUp<F: FnOnce()>(Option<F>);

impl<F: FnOnce()> HungUp<F> {
    /// From now on, `tell` is called if this goes.
    pub(super) fn told_by(tell: F) -> Self {
        Self(Some(tell))
    }

    /// There is an answer.
    pub(super) fn answered(mut self) {
        self.0 = None;
    }
}

impl<F: FnOnce()> Drop for HungUp<F> {
    fn drop(&mut self) {
        if let Some(tell) = self.0.take() {
            tell();
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use super::*;

    #[test]
    fn only_what_is_not_answered_is_told() {
        let told = Cell::new(0);
        let tell = || told.set(told.get() + 1);
        HungUp::told_by(tell).answered();
        assert_eq!(told.get(), 0);
        drop(HungUp::told_by(tell));
        assert_eq!(told.get(), 1);
    }
}
