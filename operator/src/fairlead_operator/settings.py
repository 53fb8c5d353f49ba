"""What the operator can be told, by environment and by flags; a flag wins.

Each field is the flag ``--field-name`` and the variable ``FAIRLEAD_OPERATOR_FIELD_NAME``; lists have commas.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import os
import socket
import types
import typing
from collections.abc import Mapping, Sequence
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator
from pydantic.fields import FieldInfo

from fairlead.feedback.kafka import EXPOSURES_TOPIC

_PREFIX: Final = "FAIRLEAD_OPERATOR_"


class LogFormat(StrEnum):
    """How log lines are written."""

    JSON = "json"
    TEXT = "text"


def _split(value: object) -> object:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _release() -> str:
    return importlib.metadata.version("fairlead-operator")


Names = Annotated[tuple[str, ...], BeforeValidator(_split)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=0, le=65535)]


class Settings(BaseModel):
    """Everything that can be set."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    namespaces: Names = Field((), description="Namespaces whose ModelDeployments are served; all if empty.")
    kubeconfig: Path | None = Field(None, description="Credentials outside a pod; kubectl's own default if left out.")
    context: str | None = Field(None, description="Context of the kubeconfig; its current one if left out.")

    own_namespace: str | None = Field(None, description="Where the Lease is; the pod's namespace if left out.")
    pod_name: str = Field(default_factory=socket.gethostname, description="Who holds the Lease.")
    lease_name: str = Field("fairlead-operator", description="Name of the Lease.")
    lease_duration_s: Seconds = Field(15, description="How long others wait for a holder that has fallen silent.")
    lease_renew_deadline_s: Seconds = Field(10, description="How long the holder writes after its last renewal.")
    lease_retry_s: Seconds = Field(2, description="Pause between renewals.")

    workers: int = Field(4, ge=1, le=64, description="How many ModelDeployments are reconciled at a time.")
    reconcile_deadline_s: Seconds = Field(120, description="When one reconcile is stopped.")
    resync_interval_s: Seconds = Field(600, description="From one resync to the next, give or take a tenth.")
    shutdown_s: Annotated[float, Field(gt=0, le=9)] = Field(
        8, description="How long running reconciles may go on after SIGTERM."
    )

    server_image: str = Field(
        "fairlead.local/server:{release}", description="Image of the model server; {release} is filled in."
    )
    default_release: str = Field(
        default_factory=_release, description="Server release of a ModelDeployment that names none."
    )
    unavailable_grace_s: Annotated[float, Field(ge=0)] = Field(
        10, description="How long a variant may have no available pod before it loses its weight."
    )
    gateway: str = Field("istio-ingress/public", description="Gateway of a ModelDeployment that names none.")
    host_domain: str = Field("fairlead.local", description="Domain of hosts of ModelDeployments that name none.")
    monitoring_namespace: str = Field("monitoring", description="Namespace whose pods may scrape model servers.")
    gateway_namespace: str = Field("istio-ingress", description="Namespace of the gateway's pods.")
    gateway_log: bool = Field(
        True,
        description=(
            "Whether gateways log requests of experiments that no server answered, and their pods' logs are read for"
            " them."
        ),
    )
    probe_timeout_s: Seconds = Field(2, description="Deadline of one request to a server or through the gateway.")
    report_interval_s: Seconds = Field(
        30, description="How old a server's report on features and arms may be before it is read again."
    )

    ledger_url: str | None = Field(
        None,
        pattern=r"^https?://[^\s/?#@]+(/[^\s?#@]*)?$",
        description="Ledger of a ModelDeployment that names none; without one no experiment of theirs is judged.",
    )
    ledger_api_key: Path | None = Field(
        None, description="File with the operator's API key at the ledger, ID.SECRET; left out for an open ledger."
    )
    ledger_server_key: Path | None = Field(
        None, description="File with the API key that servers are given, ID.SECRET; left out for an open ledger."
    )
    feedback_keys: Path | None = Field(
        None, description="File with the root key ring that the ledger has, too; servers get rings derived from it."
    )
    kafka_bootstrap_servers: str | None = Field(
        None,
        pattern=r"^[^\s]{1,4096}$",
        description=(
            "Brokers, HOST:PORT separated by commas, to which servers send reports for the ledger of --ledger-url"
            " instead of over HTTP."
        ),
    )
    kafka_config: Path | None = Field(
        None,
        description=(
            "File with settings of librdkafka that servers are given, for TLS and SASL: a JSON object, or lines of"
            " name=value; certificates as text."
        ),
    )
    kafka_exposures_topic: str = Field(
        EXPOSURES_TOPIC, pattern=r"^[A-Za-z0-9._-]{1,200}$", description="Topic of servers' reports."
    )
    ledger_timeout_s: Seconds = Field(15, description="Deadline of one call to the ledger.")
    analysis_interval_s: Seconds = Field(
        15, description="How old the analysis of a running experiment may be before another is asked for."
    )

    api_attempt_s: Seconds = Field(15, description="Deadline of one attempt of a call to the API server.")
    api_attempts: int = Field(4, ge=1, le=10, description="How often a call that may be repeated is tried.")
    watch_timeout_s: Annotated[float, Field(ge=10)] = Field(300, description="How long a watch lasts.")
    watch_silence_s: Annotated[float, Field(gt=0)] = Field(
        90, description="A watch without events and bookmarks for so long is opened anew."
    )
    stale_after_s: Seconds = Field(300, description="/livez fails once a watch has told nothing for so long.")

    http_host: str = Field("0.0.0.0", description="Address of /metrics, /livez and /readyz.")  # noqa: S104 -- in a pod
    http_port: Port = Field(8080, description="Port of /metrics, /livez and /readyz; 0 for any.")
    log_format: LogFormat = Field(LogFormat.JSON, description="json or text.")
    log_level: str = Field("INFO", pattern="^(DEBUG|INFO|WARNING|ERROR)$", description="Least level that is logged.")

    @model_validator(mode="after")
    def _check(self) -> Self:
        if not self.lease_retry_s < self.lease_renew_deadline_s < self.lease_duration_s:
            raise ValueError("lease_retry_s < lease_renew_deadline_s < lease_duration_s must hold")
        if "{release}" not in self.server_image:
            raise ValueError("server_image must contain {release}: the release of each ModelDeployment is its own")
        return self

    @property
    def child_namespaces(self) -> tuple[str, ...]:
        """Where what we own is: the gateway's namespace, too. Empty for everywhere."""
        return tuple(sorted({*self.namespaces, self.gateway_namespace})) if self.namespaces else ()


def variable(field: str) -> str:
    """Return the environment variable of a field."""
    return f"{_PREFIX}{field.upper()}"


def parser(prog: str) -> argparse.ArgumentParser:
    """Return a parser of all flags; a flag that is not given is None."""
    made = argparse.ArgumentParser(
        prog=prog,
        description="Run Fairlead's operator: it serves the ModelDeployments of a cluster.",
        epilog=f"Example: {prog} --kubeconfig ~/.kube/config --namespaces flights --log-format text",
    )
    for name, field in Settings.model_fields.items():
        shown = shown_default(field)
        default = f" Default: {shown}." if shown else ""
        described = f"{field.description}{default} [{variable(name)}]".replace("%", "%%")
        made.add_argument(f"--{name.replace('_', '-')}", dest=name, metavar=_metavar(field), help=described)
    return made


def read(arguments: Sequence[str], *, prog: str, environ: Mapping[str, str] = os.environ) -> Settings:
    """Return the settings that flags and environment give; ends the process with 2 and a message if they are wrong."""
    made = parser(prog)
    given = {name: environ[variable(name)] for name in Settings.model_fields if environ.get(variable(name))}
    given |= {name: value for name, value in vars(made.parse_args(arguments)).items() if value is not None}
    try:
        return Settings.model_validate(given)
    except ValidationError as error:
        made.error("; ".join(_told(one) for one in error.errors()))


def _told(error: Any) -> str:
    place = ".".join(str(part) for part in error["loc"])
    return f"--{place.replace('_', '-')}: {error['msg']}" if place else str(error["msg"])


def shown_default(field: FieldInfo) -> str:
    """Return the default of a field in words; empty if it has none."""
    if field.is_required() or field.get_default(call_default_factory=True) in (None, ()):
        return ""
    if field.default_factory is socket.gethostname:
        return "the host's name"
    default = str(field.default).lower() if isinstance(field.default, bool) else str(field.default)
    return "this release" if field.default_factory is _release else default


def _metavar(field: FieldInfo) -> str:
    annotation = field.annotation
    if typing.get_origin(annotation) in (types.UnionType, typing.Union):
        annotation = typing.get_args(annotation)[0]
    shown: dict[Any, str] = {
        float: "SECONDS",
        int: "NUMBER",
        Path: "FILE",
        tuple[str, ...]: "NAMES",
        bool: "true|false",
        LogFormat: "json|text",
    }
    return shown.get(annotation, "TEXT")
