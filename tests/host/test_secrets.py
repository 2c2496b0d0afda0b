# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""No file, process list or log shows a secret to other users."""

from __future__ import annotations

import base64
from collections.abc import Callable
from typing import Any
from urllib.parse import quote

import pytest

from plugins.filter.keystone import compute_identity
from plugins.filter.rabbitmq import compute_messaging

pytestmark = pytest.mark.on("controller", "compute")

CONTROLLER_MODES = {
    "/etc/keystone/keystone.conf": ("root", "keystone", 0o640),
    "/etc/glance/glance-api.conf": ("root", "glance", 0o640),
    "/etc/placement/placement.conf": ("root", "placement", 0o640),
    "/etc/neutron/neutron.conf": ("root", "neutron", 0o640),
    "/etc/neutron/plugins/ml2/ml2_conf.ini": ("root", "neutron", 0o640),
    "/etc/neutron/ovn-key.pem": ("root", "neutron", 0o640),
    "/etc/ovn/server.pem": ("root", "root", 0o600),
    "/etc/nova/nova.conf": ("root", "nova", 0o640),
    "/etc/nova/api-paste.ini": ("root", "nova", 0o640),
    "/etc/openstack/clouds.yaml": ("root", "root", 0o600),
    "/root/openrc": ("root", "root", 0o600),
    "/root/.ssh/kilonova_id_ed25519": ("root", "root", 0o600),
}
COMPUTE_MODES = {
    "/etc/nova/nova.conf": ("root", "nova", 0o640),
    "/etc/nova/nova-compute.conf": ("root", "nova", 0o640),
    "/etc/ovn/chassis.pem": ("root", "root", 0o600),
    # The agent runs as root.
    "/etc/neutron/neutron_ovn_metadata_agent.ini": ("root", "root", 0o600),
}

# Directories in which other users must not be able to read a secret.
READABLE_ROOTS = ["/boot", "/etc", "/home", "/opt", "/root", "/run", "/srv", "/tmp", "/usr/local", "/var"]
SCAN = r"""
import base64, glob, os, stat, subprocess, sys
needles = {base64.b64decode(key): name for key, name in ARGUMENTS[0].items()}
found = []
def names_in(data):
    return sorted({name for needle, name in needles.items() if needle in data})
def reachable(path, cache={}):
    if path not in cache:
        cache[path] = path == "/" or (bool(os.stat(path).st_mode & 0o001) and reachable(os.path.dirname(path)))
    return cache[path]
"""
SCAN_FILES = (
    SCAN
    + r"""
# grep finds the files, many times faster than Python, which then names the secrets.
def scan(paths):
    done = subprocess.run(["grep", "--files-with-matches", "--text", "--fixed-strings", "--no-messages", "--null",
                           "--file=-", "--", *paths],
                          input=b"\n".join(needles), capture_output=True, env={**os.environ, "LC_ALL": "C"})
    # 2: a file is gone meanwhile, or a kernel file that root cannot read.
    assert done.returncode in (0, 1, 2), done.stderr
    for path in filter(None, done.stdout.split(b"\0")):
        try:
            with open(path, "rb") as stream:
                found.append([path.decode(), oct(os.fstat(stream.fileno()).st_mode & 0o7777), names_in(stream.read())])
        except FileNotFoundError:
            continue  # Gone meanwhile.
paths = []
# The data of images, disks and volumes: gigabytes without a newline, which grep holds in memory.
stores = {os.path.realpath(path) for path in glob.glob("/var/lib/ceph/osd/*/block")}
for root in ARGUMENTS[1]:
    for directory, children, files in os.walk(root):
        # Links may lead to other directories.
        children[:] = [name for name in children if not os.path.islink(os.path.join(directory, name))]
        if ARGUMENTS[2] == "others" and not reachable(directory):
            children[:] = []
            continue
        for name in files:
            path = os.path.join(directory, name)
            try:
                state = os.lstat(path)
            except OSError:
                continue  # Gone meanwhile.
            wanted = ARGUMENTS[2] != "others" or state.st_mode & 0o004
            if stat.S_ISREG(state.st_mode) and wanted and path not in stores:
                paths.append(path)
for start in range(0, len(paths), 500):
    scan(paths[start:start + 500])
print(json.dumps({"seen": len(paths), "found": found}))
"""
)
SCAN_PROCESSES = (
    SCAN
    + r"""
seen = 0
for name in os.listdir("/proc"):
    if not name.isdigit():
        continue
    try:
        with open(f"/proc/{name}/cmdline", "rb") as stream:
            words = stream.read()
    except OSError:
        continue
    seen += 1
    if hits := names_in(words):
        found.append([name, words.split(b"\0")[0].decode(), hits])
print(json.dumps({"seen": seen, "found": found}))
"""
)
SCAN_JOURNAL = (
    SCAN
    + r"""
journal = subprocess.run(["journalctl", "--no-pager", "--quiet", "--all", "-o", "cat"], capture_output=True).stdout
for line in journal.splitlines():
    if hits := names_in(line):
        found.append(hits)
print(json.dumps({"seen": len(journal), "found": found}))
"""
)


def forms(secret: str) -> set[str]:
    """Return a secret as it appears in plain text, in URLs, and in oslo.config files."""
    escaped = {secret.replace("$", "$$"), secret.replace("$", "\\$")}
    # The password in RabbitMQ has %2F for each slash, see the filter messaging_password.
    in_urls = {quote(secret, safe=""), quote(secret.replace("/", "%2F"), safe="")}
    return {secret, secret.replace("'", "''"), secret.replace("\\", "\\\\"), *escaped, *in_urls}


def derived(host: str, seed: str) -> dict[str, str]:
    """Return the passwords of a compute's accounts."""
    return {
        f"Keystone user of {host}": compute_identity(host, seed)["password"],
        f"RabbitMQ account of {host}": compute_messaging(host, seed, "any")["password"],
    }


@pytest.fixture(scope="module")
def needles(generated_secrets: dict[str, str], hosts_sites: tuple[Any, ...]) -> dict[str, str]:
    """The names of all secrets, by their forms in base64."""
    computes = [
        derived(one.name, generated_secrets["nova_compute_seed"]) for one in hosts_sites if "compute" in one.groups
    ]
    secrets = generated_secrets | {name: password for one in computes for name, password in one.items()}
    assert all(len(secret) >= 8 for secret in secrets.values()), "too short to look for"
    return {
        base64.b64encode(form.encode()).decode(): name for name, secret in secrets.items() for form in forms(secret)
    }


def assert_mode(host: Any, path: str, user: str, group: str, mode: int) -> None:
    assert host.check_output("stat --format='%%U %%G %%a' %s", path) == f"{user} {group} {mode:o}"


@pytest.mark.on("controller")
@pytest.mark.parametrize("path", CONTROLLER_MODES)
def test_modes_on_controllers(host: Any, path: str) -> None:
    assert_mode(host, path, *CONTROLLER_MODES[path])


@pytest.mark.on("compute")
@pytest.mark.parametrize("path", COMPUTE_MODES)
def test_modes_on_computes(host: Any, path: str) -> None:
    assert_mode(host, path, *COMPUTE_MODES[path])


def test_search_finds_what_is_there(site: Any, run_python: Callable[..., Any], needles: dict[str, str]) -> None:
    """The searches below would find nothing if they were broken. Nova's files have secrets, for its group."""
    result = run_python(SCAN_FILES, needles, ["/etc/nova"], "all")
    expected = {"controller": "/etc/nova/nova.conf", "compute": "/etc/nova/nova-compute.conf"}
    found = {path for path, _, _ in result["found"]}
    assert {path for group, path in expected.items() if group in site.groups} <= found


def test_no_secret_in_a_file_that_others_can_read(run_python: Callable[..., Any], needles: dict[str, str]) -> None:
    result = run_python(SCAN_FILES, needles, READABLE_ROOTS, "others")
    assert result["found"] == []
    assert result["seen"] > 1000


def test_no_secret_in_the_logs(run_python: Callable[..., Any], needles: dict[str, str]) -> None:
    result = run_python(SCAN_FILES, needles, ["/var/log"], "all")
    assert result["found"] == []
    assert result["seen"] > 5


def test_no_secret_in_the_journal(run_python: Callable[..., Any], needles: dict[str, str]) -> None:
    result = run_python(SCAN_JOURNAL, needles)
    assert result["found"] == []
    assert result["seen"] > 1000


def test_no_secret_in_the_process_list(run_python: Callable[..., Any], needles: dict[str, str]) -> None:
    result = run_python(SCAN_PROCESSES, needles)
    assert result["found"] == []
    assert result["seen"] > 20


@pytest.mark.on("compute")
def test_computes_know_only_what_they_log_in_with(
    run_python: Callable[..., Any], needles: dict[str, str], site: Any
) -> None:
    """Computes have no password of a database, a service, another compute or the administrator, nor a seed."""
    if "controller" in site.groups:
        pytest.skip("this compute is also the controller")
    result = run_python(SCAN_FILES, needles, READABLE_ROOTS, "all")
    known = {name for _, _, names in result["found"] for name in names}
    own = {f"Keystone user of {site.name}", f"RabbitMQ account of {site.name}"}
    assert known == {"neutron_ovn_metadata_secret", *own}


@pytest.mark.on("controller")
@pytest.mark.parametrize("directory", ["/etc/keystone/fernet-keys", "/etc/keystone/credential-keys"])
def test_keystone_keys(host: Any, directory: str) -> None:
    assert_mode(host, directory, "keystone", "keystone", 0o700)
    found = host.check_output("stat --format='%%n %%U %%a' %s/*", directory).splitlines()
    keys = dict(line.removeprefix(f"{directory}/").split(" ", 1) for line in found)
    # The staged key, and the primary one, whose number a rotation changes.
    assert "0" in keys and len(keys) >= 2
    assert set(keys.values()) == {"keystone 600"}
