"""The pod security standard *restricted*, and what we ask of every pod besides, as one function over a pod's spec.

Kubernetes' own check (https://kubernetes.io/docs/concepts/security/pod-security-standards/) is the judge in
``tests/cluster``; this one says the same without a cluster.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

Spec = Mapping[str, Any]

_VOLUMES = {
    *("configMap", "csi", "downwardAPI", "emptyDir", "ephemeral", "persistentVolumeClaim", "projected", "secret"),
}
_SYSCTLS = {
    *("kernel.shm_rmid_forced", "net.ipv4.ip_local_port_range", "net.ipv4.ip_unprivileged_port_start"),
    *("net.ipv4.tcp_syncookies", "net.ipv4.ping_group_range", "net.ipv4.ip_local_reserved_ports"),
    *("net.ipv4.tcp_keepalive_time", "net.ipv4.tcp_fin_timeout", "net.ipv4.tcp_keepalive_intvl"),
    *("net.ipv4.tcp_keepalive_probes", "net.ipv4.tcp_rmem", "net.ipv4.tcp_wmem"),
}
_SELINUX_TYPES = {"", "container_t", "container_init_t", "container_kvm_t", "container_engine_t"}
_SECCOMP_TYPES = {"RuntimeDefault", "Localhost"}
_APPARMOR_TYPES = {"", "RuntimeDefault", "Localhost"}


def violations(pod: Spec) -> list[str]:
    """Return what is wrong with a pod's spec, a line each; nothing if it is restricted as ours are."""
    return [*_of_pod(pod), *(line for name, one in _containers(pod) for line in _of_container(pod, name, one))]


def _containers(pod: Spec) -> Iterator[tuple[str, Spec]]:
    for group in ("initContainers", "containers", "ephemeralContainers"):
        for one in pod.get(group) or ():
            yield str(one["name"]), one


def _of_pod(pod: Spec) -> Iterator[str]:
    security = pod.get("securityContext") or {}
    for field in ("hostNetwork", "hostPID", "hostIPC"):
        if pod.get(field):
            yield f"{field} is set"
    for volume in pod.get("volumes") or ():
        for kind in sorted(set(volume) - {"name"} - _VOLUMES):
            yield f"volume {volume['name']} is a {kind}"
    for sysctl in security.get("sysctls") or ():
        if sysctl["name"] not in _SYSCTLS:
            yield f"sysctl {sysctl['name']} is set"
    yield from _of_either("pod", security)
    if pod.get("automountServiceAccountToken") is None:
        yield "automountServiceAccountToken is left to the account"
    if pod.get("enableServiceLinks") is not False:
        yield "enableServiceLinks is not false"


def _of_container(pod: Spec, name: str, container: Spec) -> Iterator[str]:
    security = container.get("securityContext") or {}
    inherited = {**(pod.get("securityContext") or {}), **security}
    wrong = {
        "privileged": bool(security.get("privileged")),
        "allowPrivilegeEscalation is not false": security.get("allowPrivilegeEscalation") is not False,
        "runAsNonRoot is not true": inherited.get("runAsNonRoot") is not True,
        "runAsUser is no fixed user but root": not inherited.get("runAsUser"),
        "seccompProfile is not RuntimeDefault": _type(inherited, "seccompProfile") not in _SECCOMP_TYPES,
        "procMount is not Default": security.get("procMount", "Default") != "Default",
        "readOnlyRootFilesystem is not true": security.get("readOnlyRootFilesystem") is not True,
        "hostPort is set": any(port.get("hostPort") for port in container.get("ports") or ()),
        "a probe or hook names a host": any(_host(handler) for handler in _handlers(container)),
    }
    yield from (f"{name}: {what}" for what, is_so in wrong.items() if is_so)
    capabilities = security.get("capabilities") or {}
    if "ALL" not in (capabilities.get("drop") or ()):
        yield f"{name}: capabilities are not all dropped"
    for added in sorted(set(capabilities.get("add") or ()) - {"NET_BIND_SERVICE"}):
        yield f"{name}: capability {added} is added"
    yield from _of_either(name, security)


def _of_either(name: str, security: Spec) -> Iterator[str]:
    """Yield what is wrong wherever it is said, in the pod or in a container."""
    selinux = security.get("seLinuxOptions") or {}
    if selinux.get("type", "") not in _SELINUX_TYPES or selinux.get("user") or selinux.get("role"):
        yield f"{name}: seLinuxOptions are set"
    if _type(security, "appArmorProfile") not in _APPARMOR_TYPES:
        yield f"{name}: appArmorProfile is not RuntimeDefault"
    if (security.get("windowsOptions") or {}).get("hostProcess"):
        yield f"{name}: hostProcess is set"
    if security.get("runAsNonRoot") is False:
        yield f"{name}: runAsNonRoot is false"
    if _type(security, "seccompProfile") not in _SECCOMP_TYPES | {""}:
        yield f"{name}: seccompProfile is neither RuntimeDefault nor Localhost"
    if security.get("runAsUser", 1) == 0:
        yield f"{name}: runAsUser is root"


def _type(security: Spec, profile: str) -> str:
    return str((security.get(profile) or {}).get("type", ""))


def _host(handler: Spec) -> str:
    return str((handler.get("httpGet") or handler.get("tcpSocket") or {}).get("host", ""))


def _handlers(container: Spec) -> Iterator[Spec]:
    for probe in ("livenessProbe", "readinessProbe", "startupProbe"):
        yield container.get(probe) or {}
    hooks = container.get("lifecycle") or {}
    for hook in ("postStart", "preStop"):
        yield hooks.get(hook) or {}
