//! Writing to the journal. Timed here, since who comes back to the interpreter may wait for it.

use std::io;
use std::time::Instant;

use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;

/// Write all of `data` at `offset` and let it be on disk; returns the seconds that took, without the interpreter.
#[pyfunction]
#[pyo3(signature = (descriptor, data, offset, /))]
pub fn write_synced(py: Python<'_>, descriptor: i32, data: &[u8], offset: i64) -> PyResult<f64> {
    let written = py.detach(|| {
        let began = Instant::now();
        write_all(descriptor, data, offset).map(|()| began.elapsed().as_secs_f64())
    });
    written.map_err(|error| match error.raw_os_error() {
        Some(number) => PyOSError::new_err((number, error.to_string())), // who catches it looks at the number
        None => error.into(),
    })
}

#[cfg(target_os = "linux")]
fn write_all(descriptor: i32, mut data: &[u8], mut offset: i64) -> io::Result<()> {
    while !data.is_empty() {
        let part = libc::iovec { iov_base: data.as_ptr() as *mut libc::c_void, iov_len: data.len() };
        // SAFETY: `part` describes memory that lives longer than the call, which only reads it.
        let done = unsafe { libc::pwritev2(descriptor, &part, 1, offset, libc::RWF_DSYNC) };
        if done < 0 {
            let error = io::Error::last_os_error();
            if error.kind() == io::ErrorKind::Interrupted {
                continue;
            }
            return Err(error);
        }
        data = &data[done as usize..];
        offset += done as i64;
    }
    Ok(())
}

#[cfg(not(target_os = "linux"))]
fn write_all(_descriptor: i32, _data: &[u8], _offset: i64) -> io::Result<()> {
    Err(io::Error::from_raw_os_error(libc::ENOSYS))
}
