//! The client of one connection.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyString};

use crate::keys::{BLOCK, Keys, Lanes};

/// The client of one connection: the layout that it speaks and the keys agreed on, if there are any.
#[pyclass(frozen, module = "triolet_speedups")]
pub struct Peer {
    #[pyo3(get)]
    pub version: u8,
    #[pyo3(get)]
    pub is_limao: bool,
    pub keys: Option<Keys>,
}

#[pymethods]
impl Peer {
    #[new]
    #[pyo3(signature = (version, *, limao = false, key = &b""[..], iv = &b""[..]))]
    fn new(version: u8, limao: bool, key: &[u8], iv: &[u8]) -> PyResult<Self> {
        let keys = if key.is_empty() {
            None
        } else {
            let key: Option<[u8; BLOCK]> = key.try_into().ok();
            let (Some(key), Ok(iv)) = (key, iv.try_into()) else {
                return Err(PyValueError::new_err("key and iv have 16 bytes each"));
            };
            Some(Keys::new(key, iv))
        };
        Ok(Peer { version, is_limao: limao, keys })
    }

    #[getter]
    fn is_encrypted(&self) -> bool {
        self.keys.is_some()
    }

    #[pyo3(signature = (plain, /))]
    fn encrypt<'py>(&self, plain: &Bound<'py, PyBytes>) -> Bound<'py, PyBytes> {
        let Some(keys) = &self.keys else {
            return plain.clone();
        };
        let mut lanes = Lanes::default();
        lanes.plain[0].extend_from_slice(plain.as_bytes());
        lanes.encrypt(&[&keys.encryptor()]);
        PyBytes::new(plain.py(), &lanes.text[0])
    }

    #[pyo3(signature = (text, /))]
    fn decrypt<'py>(&self, text: &Bound<'py, PyBytes>) -> Option<Bound<'py, PyBytes>> {
        let Some(keys) = &self.keys else {
            return Some(text.clone());
        };
        let mut space = Vec::new();
        let plain = keys.decryptor().decrypt(text.as_bytes(), &mut space)?;
        Some(PyBytes::new(text.py(), plain))
    }

    #[pyo3(signature = (sign, /))]
    fn msg_key<'py>(&self, py: Python<'py>, sign: &[u8]) -> PyResult<Bound<'py, PyString>> {
        let Some(keys) = &self.keys else {
            return Ok(PyString::new(py, ""));
        };
        let mut lanes = Lanes::default();
        lanes.plain[0].extend_from_slice(sign);
        let [digits, ..] = lanes.msg_keys(&[&keys.encryptor()]);
        PyString::from_bytes(py, &digits)
    }
}
