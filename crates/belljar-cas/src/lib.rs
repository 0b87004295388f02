//! Content-addressed objects on disk: layout, verified writing and reading
