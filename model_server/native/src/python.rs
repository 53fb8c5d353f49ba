//! What Python sees: `fairlead_server_native.Connection`, whose events are tuples, `Heads` and `numbers`.

use std::ops::Range;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::budget;
use crate::columns;
use crate::engine::{Engine, Event, Limits};
use crate::head::{self, Names};
use crate::numbers as plain;

const PATHS_KEPT: usize = 16;
const LONGEST_PATH_KEPT: usize = 256;

/// What all connections of a process may hold together, in bytes.
#[pyclass(frozen)]
struct Budget(Arc<budget::Budget>);

#[pymethods]
impl Budget {
    #[new]
    fn new(limit: usize) -> Self {
        Self(budget::Budget::new(limit))
    }

    #[getter]
    fn held(&self) -> usize {
        self.0.held()
    }
}

struct Driven {
    engine: Engine,
    events: Vec<Event>,
    paths: Vec<(String, Py<PyString>)>,
}

/// One connection.
#[pyclass(frozen)]
struct Connection(Mutex<Driven>);

type Pairs = Vec<(String, String)>;

impl Connection {
    fn driven(&self) -> MutexGuard<'_, Driven> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (budget, *, calls, message_bytes, header_bytes, window_bytes, connection_window_bytes, held_bytes, resets, resets_per_tick, message_ticks, streaming, marker))]
    #[allow(clippy::too_many_arguments)]
    fn new(
        budget: &Budget,
        calls: usize,
        message_bytes: usize,
        header_bytes: u32,
        window_bytes: u32,
        connection_window_bytes: u32,
        held_bytes: usize,
        resets: u32,
        resets_per_tick: u32,
        message_ticks: u32,
        streaming: Vec<String>,
        marker: &str,
    ) -> PyResult<Self> {
        let marker = HeaderName::try_from(marker).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let limits = Limits {
            calls,
            message_bytes,
            header_bytes,
            window_bytes: (window_bytes, connection_window_bytes),
            held_bytes,
            resets: (resets, resets_per_tick),
            message_ticks,
            streaming,
            marker: Some(marker),
        };
        let engine = Engine::new(limits, budget.0.clone());
        Ok(Self(Mutex::new(Driven { engine, events: Vec::new(), paths: Vec::new() })))
    }

    fn feed<'py>(&self, py: Python<'py>, received: &[u8]) -> PyResult<Bound<'py, PyList>> {
        let mut driven = self.driven();
        let Driven { engine, events, paths } = &mut *driven;
        engine.feed(received, events);
        let list = PyList::empty(py);
        for event in events.drain(..) {
            list.append(tuple(py, event, paths)?)?;
        }
        Ok(list)
    }

    #[pyo3(signature = (stream, message, compressed=false, metadata=None))]
    fn reply(&self, stream: u32, message: &[u8], compressed: bool, metadata: Option<Pairs>) -> PyResult<bool> {
        let extra = extra(metadata)?;
        Ok(self.driven().engine.reply(stream, message, compressed, &extra))
    }

    fn send(&self, stream: u32, message: &[u8]) -> bool {
        self.driven().engine.send(stream, message)
    }

    #[pyo3(signature = (stream, status, text="", metadata=None))]
    fn finish(&self, stream: u32, status: u32, text: &str, metadata: Option<Pairs>) -> PyResult<bool> {
        let extra = extra(metadata)?;
        Ok(self.driven().engine.finish(stream, status, text, &extra))
    }

    fn take<'py>(&self, py: Python<'py>) -> Bound<'py, PyBytes> {
        self.driven().engine.take(|bytes| PyBytes::new(py, bytes))
    }

    fn tick(&self) {
        self.driven().engine.tick();
    }

    fn shutdown(&self) {
        self.driven().engine.shutdown();
    }

    #[getter]
    fn closed(&self) -> bool {
        self.driven().engine.closed()
    }

    #[getter]
    fn greeted(&self) -> bool {
        self.driven().engine.greeted()
    }

    #[getter]
    fn idle(&self) -> bool {
        self.driven().engine.idle()
    }

    #[getter]
    fn stalled(&self) -> bool {
        self.driven().engine.stalled()
    }
}

fn tuple<'py>(py: Python<'py>, event: Event, paths: &mut Vec<(String, Py<PyString>)>) -> PyResult<Bound<'py, PyTuple>> {
    match event {
        Event::Call(stream, head, message) => {
            let path = kept(py, head.uri.path(), paths);
            let compressed = message.as_ref().is_some_and(|message| message.compressed);
            let bytes = message.map(|message| PyBytes::new(py, &message.bytes));
            let metadata = head.headers.map(Metadata);
            (stream, path, bytes, compressed, head.takes_gzip, head.timeout_s, metadata).into_pyobject(py)
        }
        Event::Message(stream, message) => {
            let compressed = message.as_ref().is_some_and(|message| message.compressed);
            (stream, message.map(|message| PyBytes::new(py, &message.bytes)), compressed).into_pyobject(py)
        }
        Event::Cancelled(stream) => (stream,).into_pyobject(py),
    }
}

/// Return the path as the same Python text each time it is one of the first few.
fn kept<'py>(py: Python<'py>, path: &str, paths: &mut Vec<(String, Py<PyString>)>) -> Bound<'py, PyString> {
    if let Some((_, text)) = paths.iter().find(|(name, _)| name == path) {
        return text.bind(py).clone();
    }
    let text = PyString::new(py, path);
    if paths.len() < PATHS_KEPT {
        paths.push((path.to_owned(), text.clone().unbind()));
    }
    text
}

/// Return `body[start..end]`, a JSON list of `count` numbers, as little-endian elements of numpy's `kind`; None if it
/// is not that.
#[pyfunction]
fn numbers<'py>(
    py: Python<'py>,
    body: &[u8],
    start: usize,
    end: usize,
    kind: &str,
    count: usize,
) -> Option<Bound<'py, PyBytes>> {
    let found = plain::list(body.get(start..end)?, plain::Kind::named(kind)?, count)?;
    Some(PyBytes::new(py, &found))
}

/// Return `body[start..end]`, a JSON list of at most `most` lists of `width` numbers, likewise.
#[pyfunction]
fn rows<'py>(
    py: Python<'py>,
    body: &[u8],
    start: usize,
    end: usize,
    kind: &str,
    width: usize,
    most: usize,
) -> Option<Bound<'py, PyBytes>> {
    let found = plain::rows(body.get(start..end)?, plain::Kind::named(kind)?, width, most)?;
    Some(PyBytes::new(py, &found))
}

/// Reads documents of one form; see `columns`.
#[pyclass(frozen)]
struct Columns(columns::Columns);

#[pymethods]
impl Columns {
    #[new]
    #[allow(clippy::needless_pass_by_value)] // as Python hands it over
    fn new(pieces: Vec<Vec<u8>>, kinds: Vec<String>, rows: usize) -> PyResult<Self> {
        let kinds: Option<Vec<_>> = kinds.iter().map(|kind| plain::Kind::named(kind)).collect();
        let made = kinds.and_then(|kinds| columns::Columns::new(pieces, kinds, rows));
        made.map(Self).ok_or_else(|| PyValueError::new_err("there is a piece more than kinds, and at least a row"))
    }

    fn read<'py>(&self, py: Python<'py>, body: &[u8]) -> Option<Bound<'py, PyBytes>> {
        self.0.read(body).map(|found| PyBytes::new(py, &found))
    }
}

/// Reads requests that came whole and plain; see `head`.
#[pyclass(frozen)]
struct Heads {
    names: Names,
    targets: Mutex<Vec<Py<PyBytes>>>,
}

/// Target, body, length of its JSON, timeout, headers of an experiment.
type Plain<'py> = (
    Bound<'py, PyBytes>,
    Bound<'py, PyBytes>,
    Option<Bound<'py, PyBytes>>,
    Option<Bound<'py, PyBytes>>,
    Option<Fields>,
);

#[pymethods]
impl Heads {
    #[new]
    fn new(json_length: String, timeout: String, experiment: String) -> Self {
        Self { names: Names { json_length, timeout, experiment }, targets: Mutex::default() }
    }

    fn read<'py>(&self, py: Python<'py>, data: &Bound<'py, PyBytes>) -> Option<Plain<'py>> {
        let received = data.as_bytes();
        let found = head::plain(received, &self.names)?;
        let told = |range: Option<Range<usize>>| range.map(|range| PyBytes::new(py, &received[range]));
        let in_experiment = !found.headers.is_empty();
        Some((
            self.target(py, &received[found.target]),
            PyBytes::new(py, &received[found.body..]),
            told(found.json_length),
            told(found.timeout),
            in_experiment.then(|| Fields { data: data.clone().unbind(), places: found.headers }),
        ))
    }
}

impl Heads {
    /// Return a target as the same Python bytes each time it is one of the first few.
    fn target<'py>(&self, py: Python<'py>, target: &[u8]) -> Bound<'py, PyBytes> {
        let mut targets = self.targets.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = targets.iter().find(|known| known.as_bytes(py) == target) {
            return known.bind(py).clone();
        }
        let made = PyBytes::new(py, target);
        if targets.len() < PATHS_KEPT && target.len() <= LONGEST_PATH_KEPT {
            targets.push(made.clone().unbind());
        }
        made
    }
}

/// The headers of one request.
#[pyclass(frozen)]
struct Fields {
    data: Py<PyBytes>,
    places: Vec<(Range<usize>, Range<usize>)>,
}

#[pymethods]
impl Fields {
    /// Return a header's value as Latin-1, values of several joined by commas.
    fn get(&self, py: Python<'_>, name: &str) -> Option<String> {
        let data = self.data.as_bytes(py);
        let named = |place: &&(Range<usize>, Range<usize>)| data[place.0.clone()].eq_ignore_ascii_case(name.as_bytes());
        joined(self.places.iter().filter(named).map(|(_, value)| &data[value.clone()]))
    }
}

/// Return values as Latin-1, joined by commas; None if there are none.
fn joined<'a>(mut values: impl Iterator<Item = &'a [u8]>) -> Option<String> {
    let mut found = latin_1(values.next()?);
    for more in values {
        found.push(',');
        found.push_str(&latin_1(more));
    }
    Some(found)
}

fn latin_1(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if bytes.is_ascii() => text.to_owned(),
        _ => bytes.iter().map(|&byte| char::from(byte)).collect(),
    }
}

/// The metadata of one call.
#[pyclass(frozen)]
struct Metadata(Box<HeaderMap>);

#[pymethods]
impl Metadata {
    /// Return a value as Latin-1, values of several joined by commas.
    fn get(&self, name: &str) -> Option<String> {
        joined(self.0.get_all(name).iter().map(HeaderValue::as_bytes))
    }
}

fn extra(metadata: Option<Pairs>) -> PyResult<Vec<(HeaderName, HeaderValue)>> {
    let pairs = metadata.unwrap_or_default().into_iter().map(|(name, value)| {
        let name = HeaderName::try_from(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let mut value = HeaderValue::try_from(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
        // It is another one each time: indexed, it would push out of HPACK's table what comes back.
        value.set_sensitive(true);
        Ok((name, value))
    });
    pairs.collect()
}

#[pymodule]
mod fairlead_server_native {
    #[pymodule_export]
    use super::{Budget, Columns, Connection, Fields, Heads, Metadata, numbers, rows};
}
