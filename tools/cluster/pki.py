"""Keys, certificates and kubeconfigs of a cluster: made once, in its state folder, for a few days."""

from __future__ import annotations

import base64
import datetime as dt
import ipaddress
from dataclasses import dataclass
from pathlib import Path

import yaml
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID
from layout import API_SERVICE_IP, API_URL, NODE, NODE_IP, Layout

VALID = dt.timedelta(days=7)
_SKEW = dt.timedelta(hours=1)
_KUBERNETES_NAMES = [
    "kubernetes",
    "kubernetes.default",
    "kubernetes.default.svc",
    "kubernetes.default.svc.cluster.local",
]

_CLIENTS = {
    "admin": ("admin", "system:masters"),
    "apiserver-kubelet-client": ("kube-apiserver-kubelet-client", "system:masters"),
    "controller-manager": ("system:kube-controller-manager", None),
    "scheduler": ("system:kube-scheduler", None),
    "proxy": ("system:kube-proxy", None),
    "kubelet": (f"system:node:{NODE}", "system:nodes"),
}
"""Common name and organisation by file."""

_SERVERS = {
    "apiserver": ["127.0.0.1", NODE_IP, API_SERVICE_IP, "localhost", *_KUBERNETES_NAMES],
    "kubelet-server": ["127.0.0.1", NODE_IP, NODE],
    "etcd": ["127.0.0.1"],
    "webhook": ["127.0.0.1", "localhost"],
    "metrics-server": [NODE_IP, "metrics-server.kube-system.svc"],
}
"""Names and addresses by file."""


@dataclass(frozen=True, slots=True)
class _Authority:
    key: ec.EllipticCurvePrivateKey
    certificate: x509.Certificate


def make(layout: Layout, now: dt.datetime) -> None:
    """Write everything unless it is there."""
    folder = layout.pki
    if (folder / "done").exists():
        return
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    authority = _authority(folder, "ca", now)
    front = _authority(folder, "front-proxy-ca", now)
    _issue(folder, "front-proxy-client", front, now, common_name="front-proxy-client")
    _issue(folder, "apiserver-etcd", authority, now, common_name="apiserver-etcd")
    for name, (common_name, organisation) in _CLIENTS.items():
        _issue(folder, name, authority, now, common_name=common_name, organisation=organisation)
    for name, hosts in _SERVERS.items():
        _issue(folder, name, authority, now, common_name=name, hosts=hosts)
    _service_account_keys(folder)
    for name in ("admin", "controller-manager", "scheduler", "proxy", "kubelet"):
        (folder / f"{name}.kubeconfig").write_text(_kubeconfig(folder, name))
    layout.kubeconfig.write_text((folder / "admin.kubeconfig").read_text())
    layout.kubeconfig.chmod(0o600)
    (folder / "done").touch()


def _authority(folder: Path, name: str, now: dt.datetime) -> _Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    subject = _name(f"fairlead-test-{name}")
    usage = x509.KeyUsage(
        digital_signature=True,
        key_cert_sign=True,
        crl_sign=True,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )
    certificate = (
        _builder(subject, subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(usage, critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    _write(folder, name, key, certificate)
    return _Authority(key, certificate)


def _issue(
    folder: Path,
    name: str,
    authority: _Authority,
    now: dt.datetime,
    *,
    common_name: str,
    organisation: str | None = None,
    hosts: list[str] | None = None,
) -> None:
    key = ec.generate_private_key(ec.SECP256R1())
    uses = [ExtendedKeyUsageOID.CLIENT_AUTH] + ([ExtendedKeyUsageOID.SERVER_AUTH] if hosts else [])
    builder = (
        _builder(_name(common_name, organisation), authority.certificate.subject, key.public_key(), now)
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.ExtendedKeyUsage(uses), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(authority.key.public_key()), critical=False)
    )
    if hosts:
        builder = builder.add_extension(x509.SubjectAlternativeName([_host(h) for h in hosts]), critical=False)
    _write(folder, name, key, builder.sign(authority.key, hashes.SHA256()))


def _builder(
    subject: x509.Name, issuer: x509.Name, key: ec.EllipticCurvePublicKey, now: dt.datetime
) -> x509.CertificateBuilder:
    return (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(issuer)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - _SKEW)
        .not_valid_after(now + VALID)
    )


def _name(common_name: str, organisation: str | None = None) -> x509.Name:
    attributes = [x509.NameAttribute(NameOID.COMMON_NAME, common_name)]
    if organisation:
        attributes.append(x509.NameAttribute(NameOID.ORGANIZATION_NAME, organisation))
    return x509.Name(attributes)


def _host(host: str) -> x509.GeneralName:
    try:
        return x509.IPAddress(ipaddress.ip_address(host))
    except ValueError:
        return x509.DNSName(host)


def _service_account_keys(folder: Path) -> None:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    _write_private(folder / "service-accounts.key", key)
    public = key.public_key().public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    (folder / "service-accounts.pub").write_bytes(public)


def _write(folder: Path, name: str, key: ec.EllipticCurvePrivateKey, certificate: x509.Certificate) -> None:
    _write_private(folder / f"{name}.key", key)
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))


def _write_private(path: Path, key: ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey) -> None:
    content = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    path.touch(mode=0o600)
    path.write_bytes(content)


def _kubeconfig(folder: Path, name: str) -> str:
    """Return a kubeconfig that carries its certificates, so that it may be copied anywhere."""
    config = {
        "apiVersion": "v1",
        "kind": "Config",
        "current-context": "fairlead",
        "clusters": [
            {
                "name": "fairlead",
                "cluster": {"server": API_URL, "certificate-authority-data": _base64(folder / "ca.crt")},
            }
        ],
        "users": [
            {
                "name": name,
                "user": {
                    "client-certificate-data": _base64(folder / f"{name}.crt"),
                    "client-key-data": _base64(folder / f"{name}.key"),
                },
            }
        ],
        "contexts": [{"name": "fairlead", "context": {"cluster": "fairlead", "user": name}}],
    }
    return yaml.safe_dump(config, sort_keys=False)


def _base64(path: Path) -> str:
    return base64.b64encode(path.read_bytes()).decode()
