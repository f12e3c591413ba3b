//! The compiled twin of `triolet_gateway.protocol._hot`: the same functions for the same input give the same output,
//! which the tests of triolet hold both to. No IO, no clock, no randomness.

mod base64;
mod keys;
mod md5;
mod peer;
mod read;
mod write;

use pyo3::prelude::*;

/// Work on more bytes than this lets other threads run; for less it is not worth waiting to be let in again.
const DETACH_BYTES: usize = 1 << 16;

/// Compiled hot path of triolet.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::peer::Peer;
    #[pymodule_export]
    use crate::read::read_batch;
    #[pymodule_export]
    use crate::write::{write_recvs, write_sendacks};

    /// As in `triolet_gateway.protocol._hot`.
    #[pymodule_export]
    const INTERFACE: u32 = 1;
}
