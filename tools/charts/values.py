"""The values of the charts: the one source of ``values.yaml``, of ``values.schema.json`` and of each chart's README.

``operator.settings`` is made from the operator's own settings, so a setting can neither be forgotten nor misspelt.
"""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal, TypeAlias

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.alias_generators import to_camel
from pydantic.fields import FieldInfo

from fairlead.feedback.kafka import EXPOSURES_TOPIC, OUTCOMES_TOPIC
from fairlead_operator.settings import Settings

Manifest: TypeAlias = dict[str, Any]
"""A part of a Kubernetes object: checked by the API server, not here."""
Texts: TypeAlias = dict[str, str]
Name = Annotated[str, Field(pattern=r"^([a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?)?$")]
NamespaceName = Annotated[str, Field(pattern=r"^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$")]
Topic = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,200}$")]
Digest = Annotated[str, Field(pattern=r"^(sha256:[a-f0-9]{64})?$")]
Duration = Annotated[str, Field(pattern=r"^([0-9]+(ms|s|m|h))+$")]

ELSEWHERE: Final = {
    "namespaces": "operator.namespaces",
    "server_image": "image.registry and server.image.repository",
    "ledger_api_key": "ledger.apiKeys",
    "ledger_server_key": "ledger.apiKeys",
    "feedback_keys": "ledger.keys",
    "kafka_bootstrap_servers": "ledger.kafka",
    "kafka_config": "ledger.kafka",
    "kafka_exposures_topic": "ledger.kafka",
    "own_namespace": "the pod's namespace",
    "pod_name": "the pod's name",
    "kubeconfig": "the pod's service account",
    "context": "the pod's service account",
}
"""Settings that are no value of ``operator.settings``: where they come from."""


class Part(BaseModel):
    """A group of values; a key that it does not have is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", alias_generator=to_camel, populate_by_name=True)


class Shared(Part):
    """What all images share."""

    registry: str = Field("fairlead.local", description="Registry of all images, with its path; may be empty.")
    pull_secrets: tuple[NamespaceName, ...] = Field(
        (), description="Names of Secrets with the registry's credentials, for the pods of this chart."
    )


class Image(Part):
    """One image."""

    repository: str = Field(min_length=1, description="Repository below `image.registry`.")
    tag: str = Field("", description="Tag; the chart's `appVersion` if empty.")
    digest: Digest = Field("", description="Digest `sha256:…`; wins over the tag.")
    pull_policy: Literal["Always", "IfNotPresent", "Never"] = Field("IfNotPresent", description="When it is pulled.")


class ServerImage(Part):
    """The model servers' image."""

    repository: str = Field(
        "server", min_length=1, description="Repository below `image.registry`; its tag is a ModelDeployment's release."
    )


class Server(Part):
    """The model servers, whose pods the operator makes."""

    image: ServerImage = ServerImage()


_CHOSEN: Final = {
    "lease_name": "The operator's full name",
    "ledger_url": "The chart's own ledger, where it is enabled,",
}
"""What the chart takes for settings that are empty."""


def _setting(name: str, field: FieldInfo) -> tuple[Any, Any]:
    """Return type and default of a setting as a value: what is empty is left to the chart or the operator."""
    if field.default_factory is not None or name in _CHOSEN:
        chosen = _CHOSEN.get(name, "This release")
        return str, Field("", description=f"{field.description} {chosen} if empty.")
    bounds = list(field.metadata)
    if name == "http_port":
        return int, Field(field.default, ge=1, le=65535, description="Port of /metrics, /livez and /readyz.")
    annotation: Any = field.annotation
    if bounds:
        annotation = Annotated[annotation, *bounds]
    return annotation, Field(field.default, description=field.description)


_SETTINGS: Final[dict[str, Any]] = {
    name: _setting(name, field) for name, field in Settings.model_fields.items() if name not in ELSEWHERE
}


OperatorSettings: type[Part] = create_model(
    "OperatorSettings",
    __base__=Part,
    __doc__="The operator's settings; docs/reference/operator.md lists them, too.",
    **_SETTINGS,
)


class ServiceAccount(Part):
    """The account that the operator runs as."""

    create: bool = Field(default=True, description="Whether the chart makes it.")
    name: Name = Field("", description="Its name; the operator's full name if empty.")
    annotations: Texts = Field({}, description="Its annotations.")


class Rbac(Part):
    """What the operator may do."""

    create: bool = Field(default=True, description="Whether the chart makes roles and their bindings.")
    gateway_log_namespaces: tuple[NamespaceName, ...] = Field(
        (),
        description=(
            "Namespaces in which it may read pods' logs, while `settings.gatewayLog` is true;"
            " `settings.gatewayNamespace` if empty."
        ),
    )


class OperatorBudget(Part):
    """How many operators may be taken away at a time."""

    enabled: bool = Field(default=True, description="Whether there is a PodDisruptionBudget when `replicas` > 1.")
    max_unavailable: int = Field(1, ge=1, description="How many may be taken away at a time.")


_OPERATOR_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "192Mi"},
    "limits": {"memory": "512Mi"},
}
_REDIS_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "64Mi"},
    "limits": {"memory": "384Mi"},
}


_LEDGER_RESOURCES: Final = {
    "requests": {"cpu": "100m", "memory": "256Mi"},
    "limits": {"memory": "768Mi"},
}
_POSTGRES_RESOURCES: Final = {
    "requests": {"cpu": "50m", "memory": "128Mi"},
    "limits": {"memory": "512Mi"},
}


class Placed(Part):
    """Where pods run, and what they carry."""

    pod_labels: Texts = Field({}, description="More labels of its pods.")
    pod_annotations: Texts = Field({}, description="More annotations of its pods.")
    node_selector: Texts = Field({}, description="Labels of nodes that it may run on.")
    tolerations: tuple[Manifest, ...] = Field((), description="Taints of nodes that it tolerates.")
    affinity: Manifest = Field({}, description="Affinity of its pods.")
    priority_class_name: str = Field("", description="Priority class of its pods.")


class Operator(Placed):
    """The control loop."""

    image: Image = Image(repository="operator")
    replicas: int = Field(
        1, ge=0, le=9, description="How many run. One writes, by a Lease; the others wait to take over."
    )
    namespaces: tuple[NamespaceName, ...] = Field(
        (),
        description=(
            "Namespaces whose ModelDeployments are served; all if empty. If given, the operator has Roles in these and"
            " in the gateway's namespace, and a ClusterRole for cluster-wide kinds alone."
        ),
    )
    settings: OperatorSettings = OperatorSettings()
    resources: Manifest = Field(_OPERATOR_RESOURCES, description="Resources of its container.")
    service_account: ServiceAccount = ServiceAccount()
    rbac: Rbac = Rbac()
    pod_disruption_budget: OperatorBudget = OperatorBudget()
    topology_spread_constraints: tuple[Manifest, ...] = Field(
        (), description="Spread of its pods; over nodes, where possible, if empty and `replicas` > 1."
    )
    annotations: Texts = Field({}, description="More annotations of the Deployment.")
    service_annotations: Texts = Field({}, description="Annotations of the Service.")
    extra_args: tuple[str, ...] = Field((), description="More arguments of the operator.")
    extra_env: tuple[Manifest, ...] = Field((), description="More environment variables of its container.")
    extra_volumes: tuple[Manifest, ...] = Field((), description="More volumes of its pods.")
    extra_volume_mounts: tuple[Manifest, ...] = Field((), description="More mounts of its container.")


class Users(Part):
    """What people may do."""

    aggregate: bool = Field(
        default=True,
        description="Whether the cluster's roles view, edit and admin gain ModelDeployments (cluster-wide).",
    )


class Egress(Part):
    """Something that the operator reaches."""

    to: tuple[Manifest, ...] = Field((), description="Peers as in a NetworkPolicy; anywhere if empty.")
    ports: tuple[int, ...] = Field(description="TCP ports, as the peers have them behind any Service.")


class Dns(Part):
    """Where names are looked up."""

    to: tuple[Manifest, ...] = Field((), description="Peers as in a NetworkPolicy; anywhere if empty.")


class NetworkPolicies(Part):
    """Who reaches whom; takes effect where the cluster's network enforces it."""

    enabled: bool = Field(default=True, description="Whether the chart's pods may talk to what they need alone.")
    api_server: Egress = Egress(ports=(443, 6443, 8443, 16443))
    dns: Dns = Dns()
    database: Egress = Field(Egress(ports=(5432,)), description="The ledger's database, unless it is the bundled one.")
    kafka: Egress = Field(Egress(ports=(9092, 9093)), description="The brokers of `ledger.kafka`.")
    extra_ingress: tuple[Manifest, ...] = Field((), description="More ingress rules of the operator.")
    extra_egress: tuple[Manifest, ...] = Field((), description="More egress rules of the operator.")


class Monitor(Part):
    """A monitor of the operator."""

    enabled: bool = Field(default=False, description="Whether there is one.")
    interval: Duration = Field("30s", description="From one scrape to the next.")
    labels: Texts = Field({}, description="More labels, such as those that your Prometheus selects by.")


class PrometheusRules(Part):
    """Alerts; docs/runbooks/alerts.md says what to do about each."""

    enabled: bool = Field(default=False, description="Whether there is a PrometheusRule.")
    labels: Texts = Field({}, description="More labels, such as those that your Prometheus selects by.")
    alert_labels: Texts = Field({}, description="More labels of each alert.")
    disabled: tuple[str, ...] = Field((), description="Names of alerts to leave out.")
    runbook_url: str = Field(
        "",
        description=(
            "URL at which you publish docs/runbooks/alerts.md; each alert's name follows as `#anchor`. Alerts have no"
            " `runbook_url` if empty."
        ),
    )


class Dashboards(Part):
    """Grafana dashboards."""

    enabled: bool = Field(default=False, description="Whether there is a ConfigMap for each dashboard.")
    labels: Texts = Field({"grafana_dashboard": "1"}, description="Labels that Grafana's sidecar selects by.")
    annotations: Texts = Field({}, description="Annotations, such as the sidecar's folder.")


class Monitoring(Part):
    """What watches the watcher; the kinds are those of the Prometheus Operator."""

    service_monitor: Monitor = Field(Monitor(), description="Scrapes the operator, and the ledger, by their Services.")
    pod_monitor: Monitor = Field(Monitor(), description="Scrapes the pods of both; instead of `serviceMonitor`.")
    server_pod_monitor: Monitor = Field(Monitor(), description="Scrapes the model servers of all deployments.")
    prometheus_rule: PrometheusRules = PrometheusRules()
    dashboards: Dashboards = Dashboards()


class Redis(Placed):
    """A Redis to try things out: one pod, nothing on disk, no TLS. Not for production."""

    enabled: bool = Field(default=False, description="Whether it is there.")
    image: Image = Image(repository="redis")
    password: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._~-]*$",
        description=(
            "Password; if empty, the one that its Secret has, and a random one at first. After another one:"
            " `kubectl rollout restart` of its Deployment, and of what reads the Secret."
        ),
    )
    max_memory: str = Field("256mb", pattern=r"^[0-9]+(kb|mb|gb)$", description="Data beyond that is refused.")
    resources: Manifest = Field(_REDIS_RESOURCES, description="Resources of its container.")
    namespace_selector: Manifest = Field(
        {"matchLabels": {"serving.fairlead.dev/redis": "true"}},
        description=(
            "Labels of the namespaces whose pods may reach it, besides its own. Helm adds yours to these, and a"
            " namespace must have all: to drop the default, set it to null"
            " (`matchLabels: {serving.fairlead.dev/redis: null, team: a}`). With none left all namespaces may."
        ),
    )


class LedgerDatabase(Part):
    """PostgreSQL, 13 or later, for what the ledger keeps."""

    secret_name: Name = Field(
        "",
        description=(
            "Secret of this namespace with its URL, `postgresql://USER:PASSWORD@HOST:5432/NAME`. It must be there"
            " before the release: a hook migrates the tables. If empty, the bundled one is taken (`postgres.enabled`)."
        ),
    )
    secret_key: str = Field("url", min_length=1, description="Key of the URL in the Secret.")
    migration_deadline_s: int = Field(600, ge=10, description="When a migration by the hook is given up.")


class LedgerKeys(Part):
    """What signs prediction tokens and stands for units: one ring, known to the ledger and the operator alone."""

    secret_name: Name = Field(
        "", description="Secret with the ring in `keys.json`; if empty, the chart makes one, once, and keeps it."
    )


class LedgerApiKeys(Part):
    """Who may tell the ledger what, and ask it."""

    secret_name: Name = Field(
        "",
        description=(
            "Secret with `api-keys.json` for the ledger, and `operator` and `server`, each `ID.SECRET`, for the"
            " operator; if empty, the chart makes one, once, and keeps its keys."
        ),
    )
    more: tuple[Manifest, ...] = Field(
        (),
        description=(
            "More API keys, such as those of applications: `id`, `hash` (SHA-256 of the secret, hexadecimal), `roles`,"
            " `deployments`. Not with `secretName`."
        ),
    )


class LedgerKafka(Part):
    """Exposures and outcomes over Kafka, beside HTTP."""

    bootstrap_servers: str = Field("", description="Brokers, `HOST:PORT` separated by commas; nothing of it if empty.")
    group: str = Field("fairlead-ledger", min_length=1, description="Consumer group that the ledger's pods share.")
    exposures_topic: Topic = Field(EXPOSURES_TOPIC, description="Topic of the model servers' reports.")
    outcomes_topic: Topic = Field(OUTCOMES_TOPIC, description="Topic of the applications' outcomes.")
    servers: bool = Field(
        default=True, description="Whether model servers send their reports there; else to the ledger over HTTP."
    )
    secret_name: Name = Field(
        "",
        description=(
            "Secret with settings of librdkafka, for TLS and SASL: `ledger` for the ledger, and `server` for the model"
            " servers if they send; none if empty. Each is a JSON object, or lines of name=value."
        ),
    )


class LedgerAutoscaling(Part):
    """How many ledgers run, by their CPU."""

    enabled: bool = Field(
        default=False, description="Whether there is a HorizontalPodAutoscaler instead of `replicas`."
    )
    min_replicas: int = Field(2, ge=1, description="At least.")
    max_replicas: int = Field(6, ge=1, description="At most.")
    cpu_percent: int = Field(70, ge=1, le=100, description="CPU to aim at, per cent of what is requested.")


class LedgerBudget(Part):
    """How many ledgers may be taken away at a time."""

    enabled: bool = Field(default=True, description="Whether there is a PodDisruptionBudget where two or more run.")
    max_unavailable: int = Field(1, ge=1, description="How many may be taken away at a time.")


class Ledger(Placed):
    """Exposures and outcomes of experiments, what they come to, and a page for each. Experiments need it."""

    enabled: bool = Field(default=False, description="Whether it is there; it needs a database.")
    image: Image = Image(repository="ledger")
    replicas: int = Field(1, ge=0, description="How many run. All of them write.")
    database: LedgerDatabase = LedgerDatabase()
    keys: LedgerKeys = LedgerKeys()
    api_keys: LedgerApiKeys = LedgerApiKeys()
    kafka: LedgerKafka = LedgerKafka()
    autoscaling: LedgerAutoscaling = LedgerAutoscaling()
    pod_disruption_budget: LedgerBudget = LedgerBudget()
    retention_days: float = Field(90, ge=0, le=36525, description="How long units are kept after an experiment's end.")
    resources: Manifest = Field(_LEDGER_RESOURCES, description="Resources of its container.")
    namespace_selector: Manifest = Field(
        {"matchLabels": {"serving.fairlead.dev/ledger": "true"}},
        description=(
            "Labels of the namespaces of applications that may reach it, besides model servers and the operator; joined"
            " with the default as `redis.namespaceSelector` is."
        ),
    )
    topology_spread_constraints: tuple[Manifest, ...] = Field(
        (), description="Spread of its pods; over nodes, where possible, if empty and several run."
    )
    annotations: Texts = Field({}, description="More annotations of the Deployment.")
    service_annotations: Texts = Field({}, description="Annotations of the Service.")
    extra_args: tuple[str, ...] = Field((), description="More arguments of `python -m fairlead_ledger serve`.")
    extra_env: tuple[Manifest, ...] = Field((), description="More environment variables.")
    extra_volumes: tuple[Manifest, ...] = Field((), description="More volumes of its pods.")
    extra_volume_mounts: tuple[Manifest, ...] = Field((), description="More mounts of its container.")
    extra_ingress: tuple[Manifest, ...] = Field((), description="More ingress rules of its NetworkPolicy.")
    extra_egress: tuple[Manifest, ...] = Field((), description="More egress rules of its NetworkPolicy.")


class PostgresStorage(Part):
    """Where the bundled PostgreSQL keeps its data; not to be changed once it is there."""

    persistent: bool = Field(
        default=True, description="Whether it is a claim, which outlives the release; else all is lost with the pod."
    )
    size: str = Field("2Gi", pattern=r"^[0-9]+(Mi|Gi|Ti)$", description="How much.")
    class_name: str = Field("", description="Storage class; the cluster's default if empty.")


class Postgres(Placed):
    """A PostgreSQL to try the ledger out: one pod, no TLS, no backups. Not for production."""

    enabled: bool = Field(default=False, description="Whether it is there.")
    image: Image = Image(repository="postgres")
    password: str = Field(
        "",
        pattern=r"^[A-Za-z0-9._~-]*$",
        description=(
            "Password; if empty, the one that its Secret has, and a random one at first. After another one:"
            " `kubectl rollout restart` of its StatefulSet, then of the ledger."
        ),
    )
    storage: PostgresStorage = PostgresStorage()
    resources: Manifest = Field(_POSTGRES_RESOURCES, description="Resources of its container.")


class FairleadValues(Part):
    """Values of the chart `fairlead`."""

    name_override: Name = Field("", description="Instead of the chart's name in names and labels.")
    fullname_override: Name = Field("", description="Instead of names made of release and chart.")
    common_labels: Texts = Field({}, description="Labels of every object.")
    image: Shared = Shared()
    operator: Operator = Operator()
    server: Server = Server()
    users: Users = Users()
    network_policy: NetworkPolicies = NetworkPolicies()
    monitoring: Monitoring = Monitoring()
    ledger: Ledger = Ledger()
    postgres: Postgres = Postgres()
    redis: Redis = Redis()
    extra_objects: tuple[Manifest | str, ...] = Field(
        (), description="More objects of yours, as YAML or as text; both may use template syntax."
    )


class CrdsValues(Part):
    """Values of the chart `fairlead-crds`."""

    keep: bool = Field(
        default=True,
        description="Whether the definitions outlive an uninstall; with them gone, all ModelDeployments are, too.",
    )
    labels: Texts = Field({}, description="More labels of the definitions.")
    annotations: Texts = Field({}, description="More annotations of the definitions.")
