mod answers;
mod spec;
