use belljar_core::ObjectId;

use crate::failed::Failed;

/// Who wants a tree.
pub(crate) trait Customer {
    /// Whether an object may be read for it.
    ///
    /// # Errors
    /// When it does not say.
    fn may(&mut self, object: ObjectId) -> Result<bool, Failed>;

    /// Whether it still waits. Who has gone needs no tree, and others need the place.
    fn is_there(&self) -> bool;
}
