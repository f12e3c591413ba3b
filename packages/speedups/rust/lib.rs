//! The compiled twin of `triolet_protocol._hot`, and what builds pages of history: the same input gives the same
//! output as Python does, which the tests of triolet hold both to. No randomness, and neither clock nor IO except that
//! `send_recvs`, `receive_requests`, `read_sockets` and `write_sockets` use sockets that they are given, and
//! `write_synced` writes to a file and times that.

mod agree;
mod base64;
mod disk;
mod keys;
mod md5;
mod page;
mod peer;
mod read;
mod request;
mod rows;
mod send;
mod sockets;
mod websocket;
mod write;

use pyo3::prelude::*;

/// Work on more bytes than this lets other threads run; for less it is not worth waiting to be let in again.
const DETACH_BYTES: usize = 1 << 16;

/// Compiled hot path of triolet.
#[pymodule]
mod _native {
    #[pymodule_export]
    use crate::agree::aes_keys;
    #[pymodule_export]
    use crate::disk::write_synced;
    #[pymodule_export]
    use crate::page::{page_text, run_text};
    #[pymodule_export]
    use crate::peer::Peer;
    #[pymodule_export]
    use crate::read::{match_recvacks, read_batch};
    #[pymodule_export]
    use crate::request::receive_requests;
    #[pymodule_export]
    use crate::rows::{SortedRows, message_rows};
    #[pymodule_export]
    use crate::send::send_recvs;
    #[pymodule_export]
    use crate::sockets::{read_sockets, write_sockets};
    #[pymodule_export]
    use crate::websocket::{read_messages, write_messages};
    #[pymodule_export]
    use crate::write::{write_recvs, write_sendacks};

    /// As in `triolet_core.speedups`.
    #[pymodule_export]
    const INTERFACE: u32 = 6;
}
