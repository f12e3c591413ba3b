//! Rows of the store for messages, and the body of a record of the journal. The forms are those of
//! `triolet_core.store._records` and `triolet_core.store._journal`.

use pyo3::exceptions::PyOverflowError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::types::{PyBytes, PyList, PyTuple};

/// Return the rows of messages of one channel: each one, and its entry in the commit log.
#[pyfunction]
#[pyo3(signature = (messages, prefix, log_prefix, place, /))]
pub fn message_rows<'py>(
    py: Python<'py>,
    messages: &Bound<'py, PyList>,
    prefix: &[u8],
    log_prefix: &[u8],
    place: &[u8],
) -> PyResult<Vec<(Bound<'py, PyBytes>, Bound<'py, PyBytes>)>> {
    let mut rows = Vec::with_capacity(2 * messages.len());
    let mut key = Vec::with_capacity(24);
    let mut value = Vec::with_capacity(512);
    for message in messages.iter() {
        let message_id: u64 = message.getattr(intern!(py, "message_id"))?.extract()?;
        let seq: u64 = message.getattr(intern!(py, "seq"))?.extract()?;
        key.clear();
        key.extend_from_slice(prefix);
        key.extend_from_slice(&seq.to_be_bytes());
        value.clear();
        write_record(&message, message_id, &mut value)?;
        rows.push((PyBytes::new(py, &key), PyBytes::new(py, &value)));
        key.clear();
        key.extend_from_slice(log_prefix);
        key.extend_from_slice(&message_id.to_be_bytes());
        value.clear();
        value.extend_from_slice(place);
        value.extend_from_slice(&seq.to_be_bytes());
        rows.push((PyBytes::new(py, &key), PyBytes::new(py, &value)));
    }
    Ok(rows)
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

/// Return rows as the body of a record.
#[pyfunction]
#[pyo3(signature = (rows, /))]
pub fn encode_rows<'py>(py: Python<'py>, rows: &Bound<'py, PyList>) -> PyResult<Bound<'py, PyBytes>> {
    let mut out = Vec::with_capacity(192 * rows.len());
    for row in rows.iter() {
        let row = row.cast::<PyTuple>()?;
        let (key, value) = (row.get_item(0)?, row.get_item(1)?);
        let (key, value) = (key.cast::<PyBytes>()?.as_bytes(), value.cast::<PyBytes>()?.as_bytes());
        let sizes = (u16::try_from(key.len()), u32::try_from(value.len()));
        let (Ok(key_size), Ok(value_size)) = sizes else {
            return Err(PyOverflowError::new_err("a row is too long"));
        };
        out.extend_from_slice(&key_size.to_be_bytes());
        out.extend_from_slice(&value_size.to_be_bytes());
        out.extend_from_slice(key);
        out.extend_from_slice(value);
    }
    Ok(PyBytes::new(py, &out))
}
