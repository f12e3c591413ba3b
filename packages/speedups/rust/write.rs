//! RECVs for many receivers and SENDACKs of a batch. Source: wire-protocol.md, sections 3 and 9.

use std::mem::swap;

use pyo3::exceptions::{PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::pybacked::{PyBackedBytes, PyBackedStr};
use pyo3::types::PyBytes;

use crate::DETACH_BYTES;
use crate::keys::{Encryptor, Keys, Lanes};
use crate::md5::LANES;
use crate::peer::Peer;

const RECV: u8 = 5 << 4;
const SENDACK: u8 = 4 << 4;
const SENDACK_BODY: u8 = 17;
const TOPIC: u8 = 0x08;
const STREAM_BITS: u8 = 0x06;
const MAX_LENGTH: usize = (1 << 28) - 1;
/// About what a frame and its signature take beside the payload, to tell small work from large.
const FRAME_OVERHEAD: usize = 256;

/// A message as its receivers see it.
#[derive(FromPyObject)]
pub(crate) struct RecvFields(
    i64,           // 0 message_id
    u64,           // 1 seq
    u8,            // 2 channel_type
    i32,           // 3 timestamp
    u8,            // 4 setting
    u32,           // 5 expire
    u8,            // 6 flags
    PyBackedStr,   // 7 client_msg_no
    PyBackedStr,   // 8 channel_id
    PyBackedStr,   // 9 from_uid
    PyBackedStr,   // 10 topic
    PyBackedBytes, // 11 payload
);

/// The same, with what all receivers share.
pub(crate) struct Recv<'a> {
    message_id: i64,
    seq: u32,
    channel_type: u8,
    timestamp: i32,
    setting: u8,
    expire: u32,
    flags: u8,
    client_msg_no: &'a str,
    channel_id: &'a str,
    from_uid: &'a str,
    topic: &'a str,
    payload: &'a [u8],
    sign_head: Vec<u8>,
}

impl<'a> Recv<'a> {
    pub(crate) fn new(fields: &'a RecvFields) -> PyResult<Self> {
        let RecvFields(
            message_id,
            seq,
            channel_type,
            timestamp,
            setting,
            expire,
            flags,
            no,
            channel,
            sender,
            topic,
            payload,
        ) = fields;
        let seq = *seq as u32;
        for text in [no, channel, sender, topic] {
            if text.len() > u16::MAX as usize {
                return Err(PyOverflowError::new_err("a string is longer than 65535 bytes"));
            }
        }
        if payload.len() > MAX_LENGTH / 2 {
            return Err(PyOverflowError::new_err("a payload does not fit into a frame"));
        }
        Ok(Recv {
            message_id: *message_id,
            seq,
            channel_type: *channel_type,
            timestamp: *timestamp,
            setting: *setting,
            expire: *expire,
            flags: flags & 0x0F,
            client_msg_no: no,
            channel_id: channel,
            from_uid: sender,
            topic,
            payload,
            sign_head: format!("{message_id}{seq}{no}{timestamp}{sender}{channel}{channel_type}").into_bytes(),
        })
    }

    /// Append the frame for one receiver.
    fn write(&self, peer: &Peer, payload: &[u8], msg_key: &[u8], out: &mut Vec<u8>) {
        let setting = if peer.version < 5 { self.setting & !STREAM_BITS } else { self.setting };
        let start = out.len();
        let strings =
            [self.client_msg_no, self.channel_id, self.from_uid, self.topic].map(str::len).iter().sum::<usize>();
        out.reserve(strings + msg_key.len() + payload.len() + 48);
        out.extend_from_slice(&[RECV | self.flags, 0, 0, 0, 0]);
        if peer.is_limao {
            self.limao_body(peer.version, setting, msg_key, out);
        } else {
            self.body(peer.version, setting, msg_key, out);
        }
        out.extend_from_slice(payload);
        set_length(start, out);
    }

    fn body(&self, version: u8, setting: u8, msg_key: &[u8], out: &mut Vec<u8>) {
        out.push(setting);
        put(msg_key, out);
        put(self.from_uid.as_bytes(), out);
        put(self.channel_id.as_bytes(), out);
        out.push(self.channel_type);
        if version >= 3 {
            out.extend_from_slice(&self.expire.to_be_bytes());
        }
        put(self.client_msg_no.as_bytes(), out);
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        if setting & TOPIC != 0 {
            put(self.topic.as_bytes(), out);
        }
    }

    fn limao_body(&self, version: u8, setting: u8, msg_key: &[u8], out: &mut Vec<u8>) {
        if version >= 4 {
            out.push(setting);
        }
        if version >= 3 {
            put(msg_key, out);
        }
        out.extend_from_slice(&self.message_id.to_be_bytes());
        out.extend_from_slice(&self.seq.to_be_bytes());
        if version >= 2 {
            put(self.client_msg_no.as_bytes(), out);
        }
        out.extend_from_slice(&self.timestamp.to_be_bytes());
        put(self.channel_id.as_bytes(), out);
        out.push(self.channel_type);
        put(self.from_uid.as_bytes(), out);
    }
}

fn put(text: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(&(text.len() as u16).to_be_bytes());
    out.extend_from_slice(text);
}

/// Write the length of the frame at `start`, for which four bytes were left free.
fn set_length(start: usize, out: &mut Vec<u8>) {
    let mut length = out.len() - start - 5;
    let mut field = [0; 4];
    let mut used = 0;
    loop {
        field[used] = (length & 0x7F) as u8 | if length >= 0x80 { 0x80 } else { 0 };
        used += 1;
        length >>= 7;
        if length == 0 {
            break;
        }
    }
    out[start + 1..start + 1 + used].copy_from_slice(&field[..used]);
    out.drain(start + 1 + used..start + 5);
}

/// Encode messages for each of several receivers: all of one receiver joined.
#[pyfunction]
pub fn write_recvs<'py>(
    py: Python<'py>,
    recvs: Vec<RecvFields>,
    peers: Vec<Bound<'py, Peer>>,
) -> PyResult<Vec<Bound<'py, PyBytes>>> {
    let recvs: Vec<Recv> = recvs.iter().map(Recv::new).collect::<PyResult<_>>()?;
    let receivers: Vec<&Peer> = peers.iter().map(Bound::get).collect();
    let mut writer = Writer::default();
    let (out, ends) = if size_of(&recvs) * receivers.len() < DETACH_BYTES {
        writer.encode(&recvs, &receivers)
    } else {
        py.detach(|| writer.encode(&recvs, &receivers))
    };
    let mut start = 0;
    Ok(ends
        .iter()
        .map(|&end| {
            let bytes = PyBytes::new(py, &out[start..end]);
            start = end;
            bytes
        })
        .collect())
}

/// About the bytes of the frames of messages for one receiver.
pub(crate) fn size_of(recvs: &[Recv]) -> usize {
    recvs.iter().map(|recv| recv.payload.len() + FRAME_OVERHEAD).sum()
}

/// One message for one receiver.
struct Job<'a> {
    number: usize,
    recv: &'a Recv<'a>,
    peer: &'a Peer,
    /// Place in `Writer::encryptors`.
    encryptor: usize,
}

/// Collects as many frames as there are lanes, then encrypts, signs and writes them.
#[derive(Default)]
pub(crate) struct Writer<'a> {
    out: Vec<u8>,
    ends: Vec<usize>,
    jobs: Vec<Job<'a>>,
    encryptors: Vec<Encryptor>,
    lanes: Lanes,
    payloads: [Vec<u8>; LANES],
}

impl<'a> Writer<'a> {
    /// Return the frames of all receivers, and where those of each end; what was there before is overwritten.
    pub(crate) fn encode(&mut self, recvs: &'a [Recv<'a>], receivers: &[&'a Peer]) -> (&[u8], &[usize]) {
        self.out.clear();
        self.ends.clear();
        self.ends.resize(receivers.len(), 0);
        for (number, peer) in receivers.iter().enumerate() {
            match &peer.keys {
                Some(keys) => self.encrypted(number, peer, keys, recvs),
                None => self.plain(number, peer, recvs),
            }
        }
        self.flush();
        (&self.out, &self.ends)
    }

    fn plain(&mut self, number: usize, peer: &Peer, recvs: &[Recv]) {
        self.flush();
        for recv in recvs {
            recv.write(peer, recv.payload, b"", &mut self.out);
        }
        self.ends[number] = self.out.len();
    }

    fn encrypted(&mut self, number: usize, peer: &'a Peer, keys: &Keys, recvs: &'a [Recv<'a>]) {
        self.encryptors.push(keys.encryptor());
        for recv in recvs {
            self.jobs.push(Job { number, recv, peer, encryptor: self.encryptors.len() - 1 });
            if self.jobs.len() == LANES {
                self.flush();
            }
        }
    }

    fn flush(&mut self) {
        let encryptors: Vec<&Encryptor> = self.jobs.iter().map(|job| &self.encryptors[job.encryptor]).collect();
        for (job, plain) in self.jobs.iter().zip(&mut self.lanes.plain) {
            plain.clear();
            plain.extend_from_slice(job.recv.payload);
        }
        self.lanes.encrypt(&encryptors);
        swap(&mut self.lanes.text, &mut self.payloads);
        for ((job, plain), payload) in self.jobs.iter().zip(&mut self.lanes.plain).zip(&self.payloads) {
            plain.clear();
            plain.extend_from_slice(&job.recv.sign_head);
            plain.extend_from_slice(payload);
        }
        let msg_keys = self.lanes.msg_keys(&encryptors);
        for ((job, payload), msg_key) in self.jobs.drain(..).zip(&self.payloads).zip(&msg_keys) {
            job.recv.write(job.peer, payload, msg_key, &mut self.out);
            self.ends[job.number] = self.out.len();
        }
        // The receiver at hand may have more messages.
        self.encryptors.drain(..self.encryptors.len().saturating_sub(1));
    }
}

/// Encode the SENDACKs of a batch, one behind the other.
#[pyfunction]
#[pyo3(signature = (marks, receipts, *, limao))]
pub fn write_sendacks<'py>(
    py: Python<'py>,
    marks: &Bound<'py, PyAny>,
    receipts: &Bound<'py, PyAny>,
    limao: bool,
) -> PyResult<Bound<'py, PyBytes>> {
    let count = marks.len()?;
    if receipts.len()? != count {
        return Err(PyValueError::new_err("there are not as many receipts as marks"));
    }
    let mut out = Vec::with_capacity(count * (SENDACK_BODY as usize + 2));
    for (mark, receipt) in marks.try_iter()?.zip(receipts.try_iter()?) {
        let (client_seq, flags): (u32, u8) = mark?.extract()?;
        let (reason, message_id, seq): (u8, i64, u64) = receipt?.extract()?;
        let (client_seq, seq) = (client_seq.to_be_bytes(), (seq as u32).to_be_bytes());
        if limao {
            out.extend_from_slice(&[SENDACK, SENDACK_BODY]);
            out.extend_from_slice(&client_seq);
            out.extend_from_slice(&message_id.to_be_bytes());
        } else {
            out.extend_from_slice(&[SENDACK | flags & 0x0F, SENDACK_BODY]);
            out.extend_from_slice(&message_id.to_be_bytes());
            out.extend_from_slice(&client_seq);
        }
        out.extend_from_slice(&seq);
        out.push(reason);
    }
    Ok(PyBytes::new(py, &out))
}
