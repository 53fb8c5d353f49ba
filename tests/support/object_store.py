"""An object store on the loopback that speaks what a fetch needs of S3 (signed), of Google's JSON API and of HTTP.

S3's signatures are recomputed, so that an unknown key id and a wrong secret are told apart as S3 does. Faults are
taken from a list, one per request that reads an object's bytes (S3 sends ``HEAD`` first, which is spared).
"""

from __future__ import annotations

import hashlib
import hmac
import re
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, quote, unquote, urlsplit

KEY_ID = "AKIAFAIRLEADTESTS001"
SECRET = "a-secret-that-must-never-be-printed"  # noqa: S105 -- the fake store's own
BUCKET = "models"

_AUTHORIZATION = re.compile(r"Credential=([^/]+)/([^,]+), ?SignedHeaders=([^,]+), ?Signature=(\w+)")


@dataclass
class ObjectStore:
    """A running store."""

    url: str
    objects: dict[str, bytes] = field(default_factory=dict)
    """Content by key, all in ``BUCKET``."""
    faults: list[str] = field(default_factory=list)
    """``503``, ``hang``, ``cut`` or ``redirect:URL``; taken from the front."""
    requests: list[str] = field(default_factory=list)
    """Request lines, in order of arrival."""
    head_status: int | None = None
    """Status of every ``HEAD`` if set."""
    unknown_key: tuple[int, str] = (403, "InvalidAccessKeyId")
    """Status and code of the answer to a key id that is not known."""
    released: threading.Event = field(default_factory=threading.Event)
    """Ends what hangs."""

    @property
    def environment(self) -> dict[str, str]:
        """What a Secret with the right key would put into a pod."""
        return {
            "AWS_ACCESS_KEY_ID": KEY_ID,
            "AWS_SECRET_ACCESS_KEY": SECRET,
            "AWS_ENDPOINT_URL": self.url,
            "AWS_EC2_METADATA_DISABLED": "true",
            "CLOUD_STORAGE_EMULATOR_ENDPOINT": self.url,
        }


@contextmanager
def object_store(**objects: bytes) -> Iterator[ObjectStore]:
    """Run a store with these objects; underscores in names stay."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Handler)
    server.daemon_threads = True
    store = ObjectStore(f"http://127.0.0.1:{server.server_port}", dict(objects))
    server.store = store  # type: ignore[attr-defined]  # what its handlers answer from
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    try:
        yield store
    finally:
        store.released.set()
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    @property
    def _store(self) -> ObjectStore:
        store: ObjectStore = self.server.store  # type: ignore[attr-defined]  # see object_store()
        return store

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 -- the parent's name
        """Say nothing."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self._store.requests.append(self.requestline)
        url = urlsplit(self.path)
        if url.path.startswith("/storage/v1/"):
            self._google(unquote(url.path.rpartition("/o/")[2]), dict(parse_qsl(url.query)))
        elif url.path.startswith("/plain/"):
            self._object(unquote(url.path.removeprefix("/plain/")), b"")
        else:
            self._s3(unquote(url.path), dict(parse_qsl(url.query, keep_blank_values=True)))

    def _google(self, key: str, query: Mapping[str, str]) -> None:
        content = self._store.objects.get(key)
        if content is None:
            self._send(404, b'{"error":{"code":404,"message":"No such object"}}')
        elif query.get("alt") == "media":
            self._object(key, b"")
        else:
            body = b'{"kind":"storage#object","name":"%s","bucket":"models","size":"%d","generation":"1"}'
            self._send(200, body % (key.encode(), len(content)), {"content-type": "application/json"})

    def _s3(self, path: str, query: Mapping[str, str]) -> None:
        refused = self._refusal()
        bucket, _, key = path.strip("/").partition("/")
        if self._store.head_status is not None and self.command == "HEAD":
            self._send(self._store.head_status, b"")
        elif refused:
            status, code = self._store.unknown_key if refused == "InvalidAccessKeyId" else (403, refused)
            self._send(status, _error(code))
        elif bucket != BUCKET:
            self._send(404, _error("NoSuchBucket"))
        elif not key:
            self._send(200, _listing(query.get("prefix", "")))
        else:
            self._object(key, _error("NoSuchKey"))

    def _refusal(self) -> str | None:
        found = _AUTHORIZATION.search(self.headers.get("Authorization", ""))
        if found is None:
            return "AccessDenied"
        if found[1] != KEY_ID:
            return "InvalidAccessKeyId"
        return None if hmac.compare_digest(self._signature(found[2], found[3]), found[4]) else "SignatureDoesNotMatch"

    def _signature(self, scope: str, signed: str) -> str:
        url = urlsplit(self.path)
        pairs = sorted(parse_qsl(url.query, keep_blank_values=True))
        query = "&".join(f"{quote(name, safe='-_.~')}={quote(value, safe='-_.~')}" for name, value in pairs)
        headers = "".join(f"{name}:{' '.join(self.headers[name].split())}\n" for name in signed.split(";"))
        request = (self.command, url.path, query, headers, signed, self.headers["x-amz-content-sha256"])
        digest = hashlib.sha256("\n".join(request).encode()).hexdigest()
        text = f"AWS4-HMAC-SHA256\n{self.headers['x-amz-date']}\n{scope}\n{digest}"
        key = f"AWS4{SECRET}".encode()
        for part in scope.split("/"):
            key = hmac.digest(key, part.encode(), "sha256")
        return hmac.new(key, text.encode(), "sha256").hexdigest()

    def _object(self, key: str, missing: bytes) -> None:
        content = self._store.objects.get(key)
        fault = self._store.faults.pop(0) if self._store.faults and self.command == "GET" else ""
        if fault == "hang":
            self._store.released.wait(30)
            self.close_connection = True
        elif fault.startswith("redirect:"):
            self._send(302, b"", {"location": fault.partition(":")[2]})
        elif fault.isdigit():
            self._send(int(fault), _error("SlowDown"))
        elif content is None:
            self._send(404, missing)
        else:
            self._content(content, cut=fault == "cut")

    def _content(self, content: bytes, *, cut: bool) -> None:
        found = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        start, end = (int(found[1]), int(found[2] or len(content) - 1) + 1) if found else (0, len(content))
        part = content[start:end]
        headers = {"content-range": f"bytes {start}-{start + len(part) - 1}/{len(content)}"} if found else {}
        self._send(206 if found else 200, part, headers, sent=len(part) // 2 if cut else None)

    def _send(
        self, status: int, body: bytes, headers: Mapping[str, str] | None = None, *, sent: int | None = None
    ) -> None:
        self.send_response(status)
        for name, value in (headers or {}).items():
            self.send_header(name, value)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        if self.command != "HEAD":
            with suppress(ConnectionError):
                self.wfile.write(body[:sent])
        if sent is not None:
            self.close_connection = True


def _error(code: str) -> bytes:
    return f'<?xml version="1.0"?><Error><Code>{code}</Code><Message>{code}</Message></Error>'.encode()


def _listing(prefix: str) -> bytes:
    return (
        '<?xml version="1.0"?><ListBucketResult><Name>models</Name>'
        f"<Prefix>{prefix}</Prefix><KeyCount>0</KeyCount><IsTruncated>false</IsTruncated></ListBucketResult>"
    ).encode()
