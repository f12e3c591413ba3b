//! Rows of the store, encoded. The forms are those of `triolet_core.store._records` and `triolet_core.store._rows`.

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::{PyBytes, PyList};

/// Bytes before a row: the length of its key (2), and of its value (4).
const HEAD: usize = 6;

/// Return the encoded rows of messages of one channel: each one, and its entry in the commit log.
#[pyfunction]
#[pyo3(signature = (messages, prefix, log_prefix, place, /))]
pub fn message_rows<'py>(
    py: Python<'py>,
    messages: &Bound<'py, PyList>,
    prefix: &[u8],
    log_prefix: &[u8],
    place: &[u8],
) -> PyResult<Bound<'py, PyBytes>> {
    let mut rows = Vec::with_capacity(256 * messages.len());
    let mut value = Vec::with_capacity(512);
    for message in messages.iter() {
        let message_id: u64 = message.getattr(intern!(py, "message_id"))?.extract()?;
        let seq: u64 = message.getattr(intern!(py, "seq"))?.extract()?;
        value.clear();
        write_record(&message, message_id, &mut value)?;
        write_row(&mut rows, &[prefix, &seq.to_be_bytes()], &[&value])?;
        write_row(&mut rows, &[log_prefix, &message_id.to_be_bytes()], &[place, &seq.to_be_bytes()])?;
    }
    Ok(PyBytes::new(py, &rows))
}

fn write_row(out: &mut Vec<u8>, key: &[&[u8]], value: &[&[u8]]) -> PyResult<()> {
    let size = |parts: &[&[u8]]| parts.iter().map(|part| part.len()).sum::<usize>();
    let (Ok(key_size), Ok(value_size)) = (u16::try_from(size(key)), u32::try_from(size(value))) else {
        return Err(PyOverflowError::new_err("a row is too long"));
    };
    out.extend_from_slice(&key_size.to_be_bytes());
    out.extend_from_slice(&value_size.to_be_bytes());
    for part in key.iter().chain(value) {
        out.extend_from_slice(part);
    }
    Ok(())
}

fn write_record(message: &Bound<'_, PyAny>, message_id: u64, out: &mut Vec<u8>) -> PyResult<()> {
    let py = message.py();
    let timestamp: u32 = message.getattr(intern!(py, "timestamp"))?.extract()?;
    let flags: u8 = message.getattr(intern!(py, "flags"))?.extract()?;
    let marks: u8 = message.getattr(intern!(py, "marks"))?.extract()?;
    let setting: u8 = message.getattr(intern!(py, "setting"))?.extract()?;
    let expire: u32 = message.getattr(intern!(py, "expire"))?.extract()?;
    let sender: PyBackedStr = message.getattr(intern!(py, "sender"))?.extract()?;
    let client_msg_no: PyBackedStr = message.getattr(intern!(py, "client_msg_no"))?.extract()?;
    let topic: PyBackedStr = message.getattr(intern!(py, "topic"))?.extract()?;
    let payload = message.getattr(intern!(py, "payload"))?;
    out.extend_from_slice(&message_id.to_be_bytes());
    out.extend_from_slice(&timestamp.to_be_bytes());
    out.extend_from_slice(&[flags | marks, setting]);
    out.extend_from_slice(&expire.to_be_bytes());
    for text in [&sender, &client_msg_no, &topic] {
        let size =
            u16::try_from(text.len()).map_err(|_| PyOverflowError::new_err("a string is longer than 65535 bytes"))?;
        out.extend_from_slice(&size.to_be_bytes());
    }
    for text in [&sender, &client_msg_no, &topic] {
        out.extend_from_slice(text.as_bytes());
    }
    out.extend_from_slice(payload.cast::<PyBytes>()?.as_bytes());
    Ok(())
}

/// Encoded rows in the order of their keys, some at a time; of one key the later comes later.
#[pyclass]
pub struct SortedRows {
    encoded: Vec<PyBackedBytes>,
    places: std::vec::IntoIter<Place>,
    at_once: usize,
}

/// Where a row lies: in which of the encoded, from where on, and how long its key and its value are.
struct Place {
    part: usize,
    start: usize,
    key: usize,
    value: usize,
}

#[pymethods]
impl SortedRows {
    #[new]
    #[pyo3(signature = (encoded, at_once, /))]
    fn new(py: Python<'_>, encoded: Vec<PyBackedBytes>, at_once: usize) -> PyResult<Self> {
        let places = py.detach(|| sorted(&encoded)).ok_or_else(|| PyValueError::new_err("the last row is cut off"))?;
        Ok(Self { encoded, places: places.into_iter(), at_once })
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&mut self, py: Python<'py>) -> Option<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
        let rows: Vec<_> = (self.places.by_ref().take(self.at_once))
            .map(|place| {
                let (key, rest) = self.encoded[place.part][place.start..].split_at(place.key);
                (PyBytes::new(py, key), PyBytes::new(py, &rest[..place.value]))
            })
            .collect();
        (!rows.is_empty()).then_some(rows)
    }
}

fn sorted(encoded: &[PyBackedBytes]) -> Option<Vec<Place>> {
    let mut places = Vec::new();
    for (part, bytes) in encoded.iter().enumerate() {
        let mut at = 0;
        while at < bytes.len() {
            let (head, rest) = bytes[at..].split_first_chunk::<HEAD>()?;
            let key = usize::from(u16::from_be_bytes([head[0], head[1]]));
            let value = u32::from_be_bytes([head[2], head[3], head[4], head[5]]) as usize;
            rest.get(..key + value)?;
            places.push(Place { part, start: at + HEAD, key, value });
            at += HEAD + key + value;
        }
    }
    places.sort_by_key(|place| &encoded[place.part][place.start..place.start + place.key]);
    Some(places)
}
