//! The hash-chained audit trail of a build and its verification; pure
