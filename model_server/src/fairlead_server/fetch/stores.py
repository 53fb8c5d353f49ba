"""Model files in S3 and Google Cloud Storage, through Arrow's file systems.

Arrow reports failures as ``OSError`` with a text, and asks by ``HEAD``, whose answers say no more than 403. So a
refusal is asked about once more in a way that is answered with a reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from typing import Any
from urllib.parse import urlsplit

from pyarrow import fs

from fairlead_server.errors import FetchError, FetchInterrupted, FetchRefused
from fairlead_server.fetch.body import CHUNK_BYTES, Body
from fairlead_server.fetch.uri import ModelUri

_SECRET = "check the Secret named by model.storage.secretRef"  # noqa: S105 -- the name of a field
_SAID_CHARACTERS = 200
_CONNECT_TIMEOUT_S = 5
_GOOGLE_RETRIES_S = 3
"""Google's library tries again by itself; after so long it is our turn."""
_FINAL_OF_GOOGLE = ("PERMISSION_DENIED", "UNAUTHENTICATED", "INVALID_ARGUMENT", "FAILED_PRECONDITION")
_UNKNOWN_KEY = ("INVALID_ACCESS_KEY_ID", "INVALID_CLIENT_TOKEN_ID", "XAdminUserNotFound")
"""The last is versitygw's, with status 404."""
_WRONG_KEY = (*_UNKNOWN_KEY, "SIGNATURE_DOES_NOT_MATCH")
_FINAL_OF_S3 = (
    *_WRONG_KEY,
    *("ACCESS_DENIED", "NO_SUCH_BUCKET", "EXPIRED_TOKEN", "INVALID_TOKEN", "UNRECOGNIZED_CLIENT"),
    *("REQUEST_TIME_TOO_SKEWED", "HTTP status 301", "HTTP status 307", "HTTP status 400"),
)


@contextmanager
def open_s3(uri: ModelUri, environment: Mapping[str, str]) -> Iterator[Body]:
    """Open an object in S3, or in what speaks its protocol.

    Args:
        uri: Of scheme s3.
        environment: ``AWS_ENDPOINT_URL_S3``, ``AWS_ENDPOINT_URL``, ``AWS_REGION``, ``AWS_CA_BUNDLE``, and keys; without
            keys the default chain of the AWS SDK (web identity, container, instance) finds some.

    Raises:
        FetchError: It is refused, or interrupted.
    """
    system = _s3(environment)
    try:
        with system.open_input_file(uri.place) as file:
            yield Body(file.size(), iter(partial(file.read, CHUNK_BYTES), b""))
    except OSError as error:
        raise _s3_failure(error, system, uri, environment) from None


@contextmanager
def open_google(uri: ModelUri, environment: Mapping[str, str]) -> Iterator[Body]:
    """Open an object in Google Cloud Storage, with the default credentials of the process.

    Args:
        uri: Of scheme gs.
        environment: ``CLOUD_STORAGE_EMULATOR_ENDPOINT`` names another server, that takes no credentials.

    Raises:
        FetchError: It is refused, or interrupted.
    """
    system = fs.GcsFileSystem(
        anonymous="CLOUD_STORAGE_EMULATOR_ENDPOINT" in environment,  # Google's library asks for a token all the same
        retry_time_limit=timedelta(seconds=_GOOGLE_RETRIES_S),
    )
    try:
        size = system.get_file_info([uri.place])[0].size
        # A stream is one request; a file would be one for each read.
        with system.open_input_stream(uri.place) as stream:
            yield Body(size, iter(partial(stream.read, CHUNK_BYTES), b""))
    except OSError as error:
        raise _google_failure(error) from None


def _s3(environment: Mapping[str, str]) -> Any:
    keys = _keys(environment)
    options: dict[str, Any] = {
        "region": environment.get("AWS_REGION") or environment.get("AWS_DEFAULT_REGION") or "us-east-1",
        "connect_timeout": _CONNECT_TIMEOUT_S,
        "retry_strategy": fs.AwsStandardS3RetryStrategy(max_attempts=1),
        "tls_ca_file_path": environment.get("AWS_CA_BUNDLE") or None,
    }
    endpoint = _endpoint(environment)
    if endpoint:
        parts = urlsplit(endpoint)
        if endpoint.rstrip("/") != f"{parts.scheme}://{parts.netloc}" or "@" in endpoint or not parts.hostname:
            raise FetchRefused("the endpoint is not http(s)://HOST[:PORT]: check model.storage.endpoint")
        options |= {"scheme": parts.scheme, "endpoint_override": parts.netloc}
    try:
        return fs.S3FileSystem(**keys, **options)
    except OSError as error:
        raise FetchRefused(f"S3 cannot be set up ({_said(error)}): {_SECRET}") from None


def _keys(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the keys, without the line break that a Secret made from a file ends with."""
    names = {
        "access_key": "AWS_ACCESS_KEY_ID",
        "secret_key": "AWS_SECRET_ACCESS_KEY",
        "session_token": "AWS_SESSION_TOKEN",
    }
    found = {option: environment[name].strip() for option, name in names.items() if environment.get(name, "").strip()}
    if len(found.keys() & {"access_key", "secret_key"}) == 1:
        missing = names["secret_key" if "access_key" in found else "access_key"]
        raise FetchRefused(f"{missing} is not set: {_SECRET}")
    return found


def _endpoint(environment: Mapping[str, str]) -> str:
    return environment.get("AWS_ENDPOINT_URL_S3") or environment.get("AWS_ENDPOINT_URL") or ""


def _s3_failure(error: OSError, system: Any, uri: ModelUri, environment: Mapping[str, str]) -> FetchError:
    text = str(error)
    missing = isinstance(error, FileNotFoundError)
    if missing or "ACCESS_DENIED" in text:
        reason = _reason(system, uri)
        text = reason if _has(reason, _FINAL_OF_S3) else text
    if missing and not _has(text, _WRONG_KEY):  # some stores answer 404 to an unknown key id
        return FetchRefused(_missing(system, uri))
    if not _has(text, _FINAL_OF_S3):
        return FetchInterrupted(_said(error))
    return FetchRefused(_s3_refusal(text, environment))


def _s3_refusal(text: str, environment: Mapping[str, str]) -> str:
    key, store = _shortened(environment.get("AWS_ACCESS_KEY_ID", "")), _endpoint(environment) or "S3"
    if _has(text, _UNKNOWN_KEY):
        return f"the key id {key} is not known to {store}: {_SECRET}"
    if "SIGNATURE_DOES_NOT_MATCH" in text:
        return f"the secret is not the one of key id {key} at {store}: {_SECRET}"
    if "ACCESS_DENIED" in text:
        who = f"the key id {key}" if key else "the pod's service account, or nobody,"
        return f"{who} may not read it at {store} (403): allow s3:GetObject, or {_SECRET}"
    if "TOKEN" in text:
        return f"the session token is invalid or has expired at {store}: {_SECRET}"
    if "SKEWED" in text:
        return f"the clock of this machine is not that of {store}: set it"
    return f"{store} answers that the bucket is elsewhere, or refuses the request: set model.storage.region"


def _has(text: str, codes: Iterable[str]) -> bool:
    return any(code in text for code in codes)


def _reason(system: Any, uri: ModelUri) -> str:
    """Ask why it was refused: a listing is answered with the reason, if it is refused too."""
    try:
        system.get_file_info(fs.FileSelector(uri.place))
    except FileNotFoundError:
        return ""
    except OSError as error:
        return str(error)
    return ""


def _missing(system: Any, uri: ModelUri) -> str:
    try:
        bucket_is_there = system.get_file_info([uri.bucket])[0].type is not fs.FileType.NotFound
    except OSError:
        bucket_is_there = True
    what = "no such object" if bucket_is_there else f"there is no bucket {uri.bucket}"
    return f"{what} (404): check model.uri and model.storage.endpoint"


def _google_failure(error: OSError) -> FetchError:
    if isinstance(error, FileNotFoundError):
        return FetchRefused("no such object (404): check model.uri")
    if any(code in str(error) for code in _FINAL_OF_GOOGLE):
        return FetchRefused("may not be read (403): allow storage.objects.get to the pod's service account")
    return FetchInterrupted(_said(error))


def _shortened(key_id: str) -> str:
    kept = 8
    return key_id if len(key_id) <= kept else f"{key_id[:kept]}…"


def _said(error: OSError) -> str:
    """Return the libraries' texts without their preamble."""
    line = (str(error).splitlines() or [""])[0]
    for start in ("Details: ", "AWS Error ", "last message of "):
        line = line.partition(start)[2] or line
    return line[:_SAID_CHARACTERS]
