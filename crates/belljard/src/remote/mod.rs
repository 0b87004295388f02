//! Callers from elsewhere: TCP with mutual TLS 1.3, and nothing else.
//!
//! * [`certificates`] reads certificate, key and client CAs, and reads them again when they change.
//! * [`accept`] lets in who has a certificate of one of these CAs.
//! * [`principal`] says who that is.
//! * [`door`] counts and logs who was turned away.

mod accept;
mod certificates;
mod door;
mod principal;

pub(crate) use accept::{Remote, RemoteStream, listen};
pub(crate) use certificates::{Certificates, TlsError, TlsFiles};
pub(crate) use door::{Door, Refusal};
