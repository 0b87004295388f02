//! Every bound of Belljar in one place: queues, messages, buffers, logs, trees and names.
//!
//! A bound that is not here does not exist; a queue, buffer or message without one is a defect. Each has a file by what
//! it bounds; all are named as `bounds::NAME`.

mod api;
mod client;
mod evidence;
mod fetch;
mod git;
mod image;
mod process;
mod sandbox;
mod specification;
mod store;

pub use api::*;
pub use client::*;
pub use evidence::*;
pub use fetch::*;
pub use git::*;
pub use image::*;
pub use process::*;
pub use sandbox::*;
pub use specification::*;
pub use store::*;
