//! RECVs for many receivers, straight into their sockets.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

use crate::DETACH_BYTES;
use crate::peer::Peer;
use crate::write::{Recv, RecvFields, Writer, size_of};

/// Receivers whose frames are made before they are sent: enough to fill the lanes, few enough for the nearest cache.
const AT_ONCE: usize = 8;

/// What a socket has not taken of the frames of one receiver.
struct Left {
    number: usize,
    bytes: Vec<u8>,
}

/// (bytes of the frames of each receiver, (number of a receiver, what its socket did not take))
type Sent<'py> = (Vec<usize>, Vec<(usize, Bound<'py, PyBytes>)>);

/// Encode messages for each of several receivers and send them, all of one receiver in one call.
///
/// `descriptors` are those of non-blocking sockets to which nothing else is to be sent first; -1 for a receiver who
/// has none. What a socket does not take, be it full or broken, is returned. Other threads run meanwhile, unless there
/// is little to do: to be let in again may take longer than that. The caller sees to it that no descriptor is closed
/// before this returns.
#[pyfunction]
pub fn send_recvs<'py>(
    py: Python<'py>,
    recvs: Vec<RecvFields>,
    peers: Vec<Bound<'py, Peer>>,
    descriptors: Vec<i32>,
) -> PyResult<Sent<'py>> {
    if descriptors.len() != peers.len() {
        return Err(PyValueError::new_err("there are not as many descriptors as peers"));
    }
    let recvs: Vec<Recv> = recvs.iter().map(Recv::new).collect::<PyResult<_>>()?;
    let receivers: Vec<&Peer> = peers.iter().map(Bound::get).collect();
    let (sizes, left) = if size_of(&recvs) * receivers.len() < DETACH_BYTES {
        send_all(&recvs, &receivers, &descriptors)
    } else {
        py.detach(|| send_all(&recvs, &receivers, &descriptors))
    };
    Ok((sizes, left.into_iter().map(|each| (each.number, PyBytes::new(py, &each.bytes))).collect()))
}

fn send_all(recvs: &[Recv], receivers: &[&Peer], descriptors: &[i32]) -> (Vec<usize>, Vec<Left>) {
    let mut sizes = Vec::with_capacity(receivers.len());
    let mut left = Vec::new();
    let mut writer = Writer::default();
    for (some, sockets) in receivers.chunks(AT_ONCE).zip(descriptors.chunks(AT_ONCE)) {
        let mut start = 0;
        let (out, ends) = writer.encode(recvs, some);
        for (&descriptor, &end) in sockets.iter().zip(ends) {
            let frames = &out[start..end];
            let taken = if descriptor < 0 { 0 } else { send(descriptor, frames) };
            if taken < frames.len() {
                left.push(Left { number: sizes.len(), bytes: frames[taken..].to_vec() });
            }
            sizes.push(frames.len());
            start = end;
        }
    }
    (sizes, left)
}

/// Send what the socket takes at once; returns how much that was, 0 if it is broken.
#[cfg(unix)]
pub(crate) fn send(descriptor: i32, bytes: &[u8]) -> usize {
    #[cfg(any(target_os = "linux", target_os = "android", target_os = "freebsd"))]
    const FLAGS: i32 = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    #[cfg(not(any(target_os = "linux", target_os = "android", target_os = "freebsd")))]
    const FLAGS: i32 = libc::MSG_DONTWAIT; // Python ignores the signal

    loop {
        // SAFETY: the kernel reads `bytes.len()` bytes from a slice of that length.
        let taken = unsafe { libc::send(descriptor, bytes.as_ptr().cast(), bytes.len(), FLAGS) };
        if let Ok(taken) = usize::try_from(taken) {
            return taken;
        }
        if std::io::Error::last_os_error().kind() != std::io::ErrorKind::Interrupted {
            return 0;
        }
    }
}

/// Elsewhere sockets are no file descriptors: all is left to the caller.
#[cfg(not(unix))]
pub(crate) fn send(_descriptor: i32, _bytes: &[u8]) -> usize {
    0
}

#[cfg(all(test, unix))]
mod tests {
    use std::io::Read;
    use std::os::fd::AsRawFd;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn a_socket_takes_what_it_has_room_for() {
        let (ours, mut theirs) = UnixStream::pair().unwrap();
        let bytes = vec![7; 8 << 20];
        let taken = send(ours.as_raw_fd(), &bytes);
        assert!(0 < taken && taken < bytes.len());
        assert_eq!(send(ours.as_raw_fd(), &bytes), 0);
        let mut got = vec![0; taken];
        theirs.read_exact(&mut got).unwrap();
        assert_eq!(got, bytes[..taken]);
    }

    #[test]
    fn a_broken_socket_takes_nothing() {
        let (ours, theirs) = UnixStream::pair().unwrap();
        drop(theirs);
        assert_eq!(send(ours.as_raw_fd(), b"x"), 0);
        assert_eq!(send(1 << 20, b"x"), 0);
    }
}
