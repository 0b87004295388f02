mod answers;
mod derive;
mod spec;
