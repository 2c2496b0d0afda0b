# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""A cloud changes from one seed to another in three runs: trust the new one, use it, do not trust the old one."""

from __future__ import annotations

import re
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from cryptography import x509

from tests.render import rendering

OLD, NEW = "the seed before, of enough characters", "the seed after, of enough characters!"
STAGES = {"before": (OLD, []), "add": (OLD, [NEW]), "use": (NEW, [OLD]), "remove": (NEW, [])}
SSH = ("/var/lib/nova/.ssh/known_hosts", "/var/lib/nova/.ssh/authorized_keys")

Files = dict[tuple[str, str], str]


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, rendering.Sample]:
    """A cloud of several hosts in each stage."""
    found = {}
    for stage, (seed, trusted) in STAGES.items():
        inventory = tmp_path_factory.mktemp(stage) / "inventory"
        shutil.copytree(Path(__file__).parent / "multihost", inventory)
        # Every seed twice: a bundle has each once.
        values = {"secrets_pki_seed": seed, "secrets_pki_trusted_seeds": [*trusted, *trusted, seed]}
        for group in ("controller", "compute"):
            (inventory / "group_vars" / f"{group}.yml").write_text(yaml.safe_dump(values))
        found[stage] = rendering.load(str(inventory))
    return found


@pytest.fixture(scope="module")
def stages(samples: dict[str, rendering.Sample]) -> dict[str, Files]:
    """The files of all hosts in each stage."""
    return {
        stage: {(host, file.dest): file.text for host in sample.hosts() for file in sample.files(host) if file.text}
        for stage, sample in samples.items()
    }


def certificates(text: str) -> list[x509.Certificate]:
    return x509.load_pem_x509_certificates(text.encode()) if "BEGIN CERTIFICATE" in text else []


def is_authority(certificate: x509.Certificate) -> bool:
    return certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca


def bundles(files: Files) -> Iterator[tuple[tuple[str, str], list[x509.Certificate]]]:
    """The files with authorities."""
    for place, text in files.items():
        found = certificates(text)
        if found and all(map(is_authority, found)):
            yield place, found


def test_every_authority_is_that_of_both_seeds(stages: dict[str, Files]) -> None:
    alone = dict(bundles(stages["before"])), dict(bundles(stages["remove"]))
    both = dict(bundles(stages["add"])), dict(bundles(stages["use"]))
    assert len(alone[0]) > 5
    for place, old in alone[0].items():
        new = alone[1][place]
        assert not {*old} & {*new}
        for found in (both[0][place], both[1][place]):
            assert len(found) == len({*found}) == len(old) + len(new), place
            assert {*found} == {*old} | {*new}, place
        # The own one first: some programs read no other.
        assert both[0][place][0] == old[0]
        assert both[1][place][0] == new[0]


def test_trust_changes_nothing_else(stages: dict[str, Files]) -> None:
    """The first and the last run write no key and no certificate."""
    trust = {*dict(bundles(stages["before"]))} | {place for place in stages["before"] if place[1] in SSH}
    for one, other in (("before", "add"), ("use", "remove")):
        changed = {place for place, text in stages[one].items() if stages[other][place] != text}
        assert changed == trust


def test_each_stage_accepts_what_the_next_one_presents(stages: dict[str, Files]) -> None:
    """A host that has not changed yet, and one that has, know each other's authority."""
    order = list(STAGES)
    for earlier, later in zip(order, order[1:], strict=False):
        for one, other in ((earlier, later), (later, earlier)):
            trusted = {found for _, all_found in bundles(stages[one]) for found in all_found}
            by_name = {(found.subject.public_bytes(), key_of(found)) for found in trusted}
            for text in stages[other].values():
                for found in certificates(text):
                    if not is_authority(found):
                        assert (found.issuer.public_bytes(), issuer_key(found)) in by_name
    for place in (place for place in stages["before"] if place[1] in SSH):
        lines = {stage: set(stages[stage][place].splitlines()) for stage in STAGES}
        assert lines["add"] == lines["use"] == lines["before"] | lines["remove"]
        assert len(lines["before"]) == len(lines["remove"]) == 1
        assert all(re.match(r"(@cert-authority \*|restrict) ssh-ed25519 \S+ ", line) for line in lines["add"])


def key_of(certificate: x509.Certificate) -> bytes:
    return certificate.extensions.get_extension_for_class(x509.SubjectKeyIdentifier).value.digest


def issuer_key(certificate: x509.Certificate) -> bytes | None:
    return certificate.extensions.get_extension_for_class(x509.AuthorityKeyIdentifier).value.key_identifier


def test_no_unit_restarts(samples: dict[str, rendering.Sample], stages: dict[str, Files]) -> None:
    """Units that hold certificates read them again: at a reload, or whenever they connect."""
    changed = {place for place, text in stages["before"].items() if stages["remove"].get(place) != text}
    assert {dest for _, dest in changed} > {"/etc/nova/console/client-key.pem", "/etc/haproxy/front.pem"}
    restarted = [
        (host, unit["name"])
        for host in samples["before"].hosts()
        for service in samples["before"].services(host)
        for unit in [*service.get("units", []), *service.get("later_units", [])]
        for path in unit.get("reads", [])
        if any(at == host and (dest == path or dest.startswith(f"{path}/")) for at, dest in changed)
    ]
    assert restarted == []
