"""The bill of materials and the list of contents say what is in the layers."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from cyclonedx.schema import SchemaVersion
from cyclonedx.validation.json import JsonStrictValidator
from fairlead_images import contents, inside, page, sbom
from fairlead_images.inside import Inside

from support.image_archives import write_archive

ROOT = Path(__file__).resolve().parents[2]
SITE = "opt/fairlead/lib/python3.11/site-packages"
DIGEST = "0123456789abcdef" * 4
LIBC = "Package: libc6\nVersion: 2.36-9+deb12u14\nArchitecture: amd64\nSource: glibc\n"
THING = "Name: Py_Thing\nVersion: 1.2\nLicense-Expression: MIT\n\nA thing.\n"
LAYERS = (
    {
        "var/lib/dpkg/status.d/libc6": LIBC,
        "usr/lib/x86_64-linux-gnu/libc.so.6": "c" * 3_000_000,
        "usr/lib/python3.11/os.py": "o" * 10,
        "gone": "g" * 100,
    },
    {
        f"{SITE}/Py_Thing-1.2.dist-info/METADATA": THING,
        f"{SITE}/Py_Thing-1.2.dist-info/RECORD": "thing/__init__.py,sha256=x,5\nthing/gone.py,,\n",
        f"{SITE}/thing/__init__.py": "t" * 2_000_000,
        f"{SITE}/thing/__pycache__/__init__.cpython-311.pyc": "t" * 500_000,
        "opt/fairlead/share/left-out.json": json.dumps([{"what": "tests", "why": "no", "bytes": 7_000_000}]),
        ".wh.gone": "",
    },
    {
        f"{SITE}/fairlead-0.1.0.dist-info/METADATA": "Name: fairlead\nVersion: 0.1.0\n\n",
        f"{SITE}/fairlead-0.1.0.dist-info/RECORD": "fairlead/contract.py,,\n",
        f"{SITE}/fairlead/contract.py": "f" * 1_500_000,
    },
)


@pytest.fixture
def found(tmp_path: Path) -> Inside:
    config = {"User": "1000:1000", "Entrypoint": ["python"]}
    return inside.look(write_archive(tmp_path / "image.tar", LAYERS, config))


def _bill(found: Inside) -> dict[str, Any]:
    return sbom.bill("server", "0.1.0", found, {"py-thing==1.2": [DIGEST]})


def test_the_bill_is_valid_cyclonedx(found: Inside) -> None:
    assert JsonStrictValidator(SchemaVersion.V1_5).validate_str(json.dumps(_bill(found))) is None


def test_the_bill_names_python_packages_with_hashes_and_licenses(found: Inside) -> None:
    thing = next(one for one in _bill(found)["components"] if one["name"] == "py-thing")
    assert thing["purl"] == "pkg:pypi/py-thing@1.2"
    assert thing["licenses"] == [{"license": {"name": "MIT"}}]
    assert thing["externalReferences"][0]["hashes"] == [{"alg": "SHA-256", "content": DIGEST}]


def test_the_bill_names_debian_packages(found: Inside) -> None:
    package = next(one for one in _bill(found)["components"] if one["name"] == "libc6")
    assert package["purl"] == "pkg:deb/debian/libc6@2.36-9%2Bdeb12u14?arch=amd64&distro=debian-12"
    assert package["properties"] == [{"name": "debian:source", "value": "glibc"}]


def test_the_same_content_has_the_same_bill(found: Inside) -> None:
    assert _bill(found) == _bill(found)


def test_every_byte_is_counted_once_where_it_belongs(found: Inside) -> None:
    parts = {part.name: part.size_bytes for part in contents.parts(found)}
    assert sum(parts.values()) == sum(found.sizes.values())
    assert parts["py-thing"] >= 2_500_000
    assert parts["Fairlead's own code"] >= 1_500_000
    assert parts["Debian: C libraries"] == 3_000_000
    assert "gone" not in found.sizes


def test_the_page_says_what_is_in_an_image_and_what_was_left_out(found: Inside) -> None:
    text = page.page({"server": contents.described(found)}, ROOT / "tools/images/left_out.toml")
    assert "| [server](#server) | 7.0 |" in text
    assert "| py-thing | 2.5 |" in text
    assert "| tests | 7.0 | no |" in text
    assert "| `mypy` | - | a type checker" in text


def test_the_reference_page_is_about_the_images_that_there_are() -> None:
    text = (ROOT / "docs/reference/images.md").read_text()
    for name in ("base", "server", "operator", "ledger", "flights", "gateway", "redis", "postgres"):
        assert f"\n## {name}\n" in text
