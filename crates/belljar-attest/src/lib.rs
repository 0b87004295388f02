//! Statement, DSSE envelope, Sigstore bundle, signing and offline verification
