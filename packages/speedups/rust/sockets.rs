//! Many sockets in one call: what came in, and what goes out.

use std::cell::RefCell;

use pyo3::prelude::*;
use pyo3::pybacked::PyBackedBytes;
use pyo3::types::PyBytes;

/// While more sockets than this are written other threads run. Reading is too quick for that: to be let in again takes
/// longer (measured: 12 µs of CPU instead of 10 for a delivery and its RECVACK).
const DETACH_SOCKETS: usize = 4;

/// What one socket gave.
pub(crate) enum Got<T = usize> {
    /// So many bytes, or the bytes themselves; none if the peer has ended or is lost.
    Bytes(T),
    /// There is nothing now.
    Nothing,
}

thread_local! {
    /// Where bytes are read to before it is known how many there are.
    static SPACE: RefCell<Vec<u8>> = const { RefCell::new(Vec::new()) };
}

/// Read once from each of several non-blocking sockets, at most `most` bytes from one, until there are `enough`.
/// Keeps the interpreter: there is nothing to wait for.
#[pyfunction]
pub fn read_sockets<'py>(
    py: Python<'py>,
    descriptors: Vec<i32>,
    most: usize,
    enough: usize,
) -> Vec<Option<Bound<'py, PyBytes>>> {
    let (bytes, found) = read_all(&descriptors, most, enough);
    let mut rest = bytes.as_slice();
    found
        .into_iter()
        .map(|got| match got {
            Got::Nothing => None,
            Got::Bytes(size) => {
                let (some, after) = rest.split_at(size);
                rest = after;
                Some(PyBytes::new(py, some))
            }
        })
        .collect()
}

fn read_all(descriptors: &[i32], most: usize, enough: usize) -> (Vec<u8>, Vec<Got>) {
    let mut bytes = Vec::new();
    let mut found = Vec::with_capacity(descriptors.len());
    SPACE.with_borrow_mut(|space| {
        if space.len() < most {
            space.resize(most, 0);
        }
        for &descriptor in descriptors {
            if bytes.len() >= enough {
                break;
            }
            let got = read(descriptor, &mut space[..most]);
            if let Got::Bytes(size) = got {
                bytes.extend_from_slice(&space[..size]);
            }
            found.push(got);
        }
    });
    (bytes, found)
}

/// Read once from a non-blocking socket, at most `most` bytes, and let `take` have them.
pub(crate) fn receive<R>(descriptor: i32, most: usize, take: impl FnOnce(Got<&[u8]>) -> R) -> R {
    let mut space = SPACE.take(); // and not borrowed: what `take` calls may come here again
    if space.len() < most {
        space.resize(most, 0);
    }
    let taken = match read(descriptor, &mut space[..most]) {
        Got::Bytes(size) => take(Got::Bytes(&space[..size])),
        Got::Nothing => take(Got::Nothing),
    };
    SPACE.set(space);
    taken
}

#[cfg(unix)]
fn read(descriptor: i32, space: &mut [u8]) -> Got {
    use std::io::ErrorKind::{Interrupted, WouldBlock};
    loop {
        // SAFETY: the kernel writes at most `space.len()` bytes to a slice of that length.
        let got = unsafe { libc::recv(descriptor, space.as_mut_ptr().cast(), space.len(), libc::MSG_DONTWAIT) };
        if let Ok(got) = usize::try_from(got) {
            return Got::Bytes(got);
        }
        match std::io::Error::last_os_error().kind() {
            Interrupted => {}
            WouldBlock => return Got::Nothing,
            _ => return Got::Bytes(0),
        }
    }
}

/// Elsewhere sockets are no file descriptors, and the gateway does not run.
#[cfg(not(unix))]
fn read(_descriptor: i32, _space: &mut [u8]) -> Got {
    Got::Nothing
}

/// Write to several non-blocking sockets; returns what they did not take, by the number of the socket.
#[pyfunction]
pub fn write_sockets<'py>(py: Python<'py>, outgoing: Vec<(i32, PyBackedBytes)>) -> Vec<(usize, Bound<'py, PyBytes>)> {
    let taken = if outgoing.len() > DETACH_SOCKETS { py.detach(|| write_all(&outgoing)) } else { write_all(&outgoing) };
    let left = outgoing.iter().zip(taken).enumerate().filter(|(_, ((_, data), taken))| *taken < data.len());
    left.map(|(number, ((_, data), taken))| (number, PyBytes::new(py, &data[taken..]))).collect()
}

fn write_all(outgoing: &[(i32, PyBackedBytes)]) -> Vec<usize> {
    outgoing.iter().map(|(descriptor, data)| crate::send::send(*descriptor, data)).collect()
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Write;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn sockets_are_read_until_there_is_enough() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let (quiet, _open) = UnixStream::pair().unwrap();
        theirs.write_all(b"abcde").unwrap();
        let all = [quiet.as_raw_fd(), ours.as_raw_fd(), ours.as_raw_fd(), ours.as_raw_fd()];
        let (bytes, found) = read_all(&all, 3, 5);
        assert_eq!(bytes, b"abcde");
        assert!(matches!(found[..], [Got::Nothing, Got::Bytes(3), Got::Bytes(2)]));
    }

    #[test]
    fn an_end_and_a_lost_peer_are_no_bytes() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        let (bytes, found) = read_all(&[ours.as_raw_fd(), 1 << 20], 10, 10);
        assert!(bytes.is_empty());
        assert!(matches!(found[..], [Got::Bytes(0), Got::Bytes(0)]));
    }
}
