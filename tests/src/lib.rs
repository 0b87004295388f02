//! End-to-end suites of Belljar.
