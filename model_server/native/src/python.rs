//! What Python sees: `fairlead_server_native.Connection`, whose events are tuples.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use http::header::{HeaderMap, HeaderName, HeaderValue};
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList, PyString, PyTuple};

use crate::budget;
use crate::engine::{Engine, Event, Limits};

const PATHS_KEPT: usize = 16;

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

type Metadata = Vec<(String, String)>;

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
    fn reply(&self, stream: u32, message: &[u8], compressed: bool, metadata: Option<Metadata>) -> PyResult<bool> {
        let extra = extra(metadata)?;
        Ok(self.driven().engine.reply(stream, message, compressed, &extra))
    }

    fn send(&self, stream: u32, message: &[u8]) -> bool {
        self.driven().engine.send(stream, message)
    }

    #[pyo3(signature = (stream, status, text="", metadata=None))]
    fn finish(&self, stream: u32, status: u32, text: &str, metadata: Option<Metadata>) -> PyResult<bool> {
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
            let metadata = head.headers.as_ref().map(|headers| metadata(py, headers)).transpose()?;
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

/// Return headers as pairs of text, bytes as Latin-1.
fn metadata<'py>(py: Python<'py>, headers: &HeaderMap) -> PyResult<Bound<'py, PyList>> {
    let pairs = headers.iter().map(|(name, value)| {
        let text: String = value.as_bytes().iter().map(|&byte| char::from(byte)).collect();
        (name.as_str(), text)
    });
    PyList::new(py, pairs.collect::<Vec<_>>())
}

fn extra(metadata: Option<Metadata>) -> PyResult<Vec<(HeaderName, HeaderValue)>> {
    let pairs = metadata.unwrap_or_default().into_iter().map(|(name, value)| {
        let name = HeaderName::try_from(name).map_err(|error| PyValueError::new_err(error.to_string()))?;
        let value = HeaderValue::try_from(value).map_err(|error| PyValueError::new_err(error.to_string()))?;
        Ok((name, value))
    });
    pairs.collect()
}

#[pymodule]
mod fairlead_server_native {
    #[pymodule_export]
    use super::{Budget, Connection};
}
