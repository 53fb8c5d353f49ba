//! Heads of HTTP/1.1 requests that are plain enough to be read in one go: a whole POST, its body's length announced,
//! and no header that asks for anything else. Whatever is not plain is left to whoever reads everything.

use std::ops::Range;

use httparse::{EMPTY_HEADER, Request, Status};

/// Headers of one request beyond which it is not read here.
pub const MOST_HEADERS: usize = 64;
const MOST_DIGITS: usize = 12;

/// Names of the headers that somebody looks at besides those of HTTP itself, in lower case.
#[derive(Debug, Clone)]
pub struct Names {
    /// Says how long the JSON of a body is.
    pub json_length: String,
    /// Says after how many milliseconds the client gives up.
    pub timeout: String,
    /// Without it nobody looks at any header but the two above.
    pub experiment: String,
}

/// One request; every part of it is a range of the bytes it was read from.
#[derive(Debug, PartialEq, Eq)]
pub struct Plain {
    /// The request line's target.
    pub target: Range<usize>,
    /// Where the body starts; it ends with the bytes.
    pub body: usize,
    /// Value of the header of that name.
    pub json_length: Option<Range<usize>>,
    /// Value of the header of that name.
    pub timeout: Option<Range<usize>>,
    /// Names and values of all headers, if the experiment's is among them.
    pub headers: Vec<(Range<usize>, Range<usize>)>,
}

/// Read `data` if it is exactly one plain request.
#[must_use]
pub fn plain(data: &[u8], names: &Names) -> Option<Plain> {
    if !data.starts_with(b"POST /") {
        return None;
    }
    let mut fields = [EMPTY_HEADER; MOST_HEADERS];
    let mut request = Request::new(&mut fields);
    let Ok(Status::Complete(body)) = request.parse(data) else { return None };
    if request.version != Some(1) || !has_whole_line_ends(&data[..body]) {
        return None;
    }
    let place = |part: &[u8]| {
        let start = part.as_ptr() as usize - data.as_ptr() as usize;
        start..start + part.len()
    };
    let (mut length, mut json_length, mut timeout, mut in_experiment) = (None, None, None, false);
    for field in request.headers.iter() {
        let name = field.name;
        match name.len() {
            _ if refused(name, field.value) => return None,
            14 if name.eq_ignore_ascii_case("content-length") => set(&mut length, number(field.value)?)?,
            _ if name.eq_ignore_ascii_case(&names.experiment) => in_experiment = true,
            _ if name.eq_ignore_ascii_case(&names.json_length) => set(&mut json_length, place(field.value))?,
            _ if name.eq_ignore_ascii_case(&names.timeout) => set(&mut timeout, place(field.value))?,
            _ => {}
        }
    }
    if length? != data.len() - body {
        return None;
    }
    let headers = if in_experiment {
        request.headers.iter().map(|field| (place(field.name.as_bytes()), place(field.value))).collect()
    } else {
        Vec::new()
    };
    Some(Plain { target: place(request.path?.as_bytes()), body, json_length, timeout, headers })
}

/// Whether a header asks for more than to read the request.
fn refused(name: &str, value: &[u8]) -> bool {
    match name.len() {
        6 => name.eq_ignore_ascii_case("expect"),
        7 => name.eq_ignore_ascii_case("upgrade"),
        10 => name.eq_ignore_ascii_case("connection") && !value.eq_ignore_ascii_case(b"keep-alive"),
        16 => name.eq_ignore_ascii_case("content-encoding") || name.eq_ignore_ascii_case("proxy-connection"),
        17 => name.eq_ignore_ascii_case("transfer-encoding"),
        _ => false,
    }
}

/// Note what is there once; None if it is there again.
fn set<T>(kept: &mut Option<T>, value: T) -> Option<()> {
    kept.is_none().then(|| *kept = Some(value))
}

fn number(digits: &[u8]) -> Option<usize> {
    if digits.is_empty() || digits.len() > MOST_DIGITS || !digits.iter().all(u8::is_ascii_digit) {
        return None;
    }
    std::str::from_utf8(digits).ok()?.parse().ok()
}

/// Whether each line ends with CR and LF; `httparse` takes LF alone, other parsers do not.
fn has_whole_line_ends(head: &[u8]) -> bool {
    head.iter().enumerate().all(|(at, &byte)| byte != b'\n' || (at > 0 && head[at - 1] == b'\r'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names() -> Names {
        let [json_length, timeout, experiment] = ["json-length", "timeout", "experiment"].map(String::from);
        Names { json_length, timeout, experiment }
    }

    fn read(head: &str, body: &str) -> Option<Plain> {
        let data = format!("{}\r\n\r\n{body}", head.replace('\n', "\r\n"));
        plain(data.as_bytes(), &names())
    }

    #[test]
    fn a_whole_request_is_read() {
        let data = b"POST /v2/models/m/infer HTTP/1.1\r\nHost: h\r\ncontent-LENGTH:  2 \r\nTimeout: 50\r\n\r\n{}";
        let found = plain(data, &names()).unwrap();
        assert_eq!(&data[found.target], b"/v2/models/m/infer");
        assert_eq!(&data[found.body..], b"{}");
        assert_eq!(&data[found.timeout.unwrap()], b"50");
        assert_eq!((found.json_length, found.headers), (None, vec![]));
    }

    #[test]
    fn headers_are_told_in_an_experiment() {
        let data = b"POST / HTTP/1.1\r\nA: b\r\nExperiment: e\r\nContent-Length: 0\r\n\r\n";
        let found = plain(data, &names()).unwrap();
        let texts: Vec<_> = found.headers.into_iter().map(|(name, value)| (&data[name], &data[value])).collect();
        assert_eq!(texts[..2], [(&b"A"[..], &b"b"[..]), (&b"Experiment"[..], &b"e"[..])]);
    }

    #[test]
    fn what_is_not_plain_is_left() {
        assert!(read("POST / HTTP/1.1\nContent-Length: 1", "x").is_some());
        for head in [
            "GET / HTTP/1.1\nContent-Length: 1",
            "POST / HTTP/1.0\nContent-Length: 1",
            "POST http://h/ HTTP/1.1\nContent-Length: 1",
            "POST / HTTP/1.1",
            "POST / HTTP/1.1\nContent-Length: 2",
            "POST / HTTP/1.1\nContent-Length: 0",
            "POST / HTTP/1.1\nContent-Length: +1",
            "POST / HTTP/1.1\nContent-Length: 1\nContent-Length: 1",
            "POST / HTTP/1.1\nContent-Length: 1\nConnection: close",
            "POST / HTTP/1.1\nContent-Length: 1\nConnection: keep-alive, upgrade",
            "POST / HTTP/1.1\nContent-Length: 1\nTransfer-Encoding: chunked",
            "POST / HTTP/1.1\nContent-Length: 1\nContent-Encoding: gzip",
            "POST / HTTP/1.1\nContent-Length: 1\nExpect: 100-continue",
            "POST / HTTP/1.1\nContent-Length: 1\nUpgrade: h2c",
            "POST / HTTP/1.1\nContent-Length: 1\nTimeout: 1\nTimeout: 2",
            "POST / HTTP/1.1\nContent-Length: 1\nA : b",
            "POST / HTTP/1.1\nContent-Length: 1\nA: b\n c",
        ] {
            assert_eq!(read(head, "x"), None, "{head}");
        }
        assert_eq!(plain(b"POST / HTTP/1.1\nContent-Length: 1\r\n\r\nx", &names()), None);
    }
}
