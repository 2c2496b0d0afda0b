# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""After a rotation, no old secret opens anything, and none is left on a host.

Needs the file of secrets from before, which the scenario default keeps; by hand, KILONOVA_SECRETS_BEFORE names it.
"""

from __future__ import annotations

import base64
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import pytest
import yaml

from tests.host.conftest import PROJECT
from tests.secret import secrets_of

KEPT = PROJECT / ".cache" / "molecule" / "rotation" / "before.yml"
ROTATING_SCENARIO = "default"
# Of guests that run; of a store, whose identity follows from it.
NOT_ROTATED = {"guest_image_console_password", "ceph_seed"}

DATABASES = """
import pymysql
found = {}
for user, password in ARGUMENTS:
    try:
        pymysql.connect(host="127.0.0.1", user=user, password=password).close()
        found[user] = "opened"
    except pymysql.err.OperationalError as error:
        found[user] = error.args[0]
print(json.dumps(found))
"""
REFUSED = 1045
QUEUES = """
import configparser, ssl, urllib.parse
import amqp
from amqp.exceptions import AccessRefused
found = {}
for user, password in ARGUMENTS:
    service = user.removesuffix("2")
    files = configparser.RawConfigParser(strict=False)
    files.read(f"/etc/{service}/{service}.conf")
    url = urllib.parse.urlsplit(files["DEFAULT"]["transport_url"])
    trusted = {"ca_certs": files["oslo_messaging_rabbit"]["ssl_ca_file"], "cert_reqs": ssl.CERT_REQUIRED,
               "server_hostname": url.hostname}
    try:
        with amqp.Connection(f"{url.hostname}:{url.port}", userid=user, password=password.replace("/", "%2F"),
                             virtual_host=url.path[1:], login_method="AMQPLAIN", ssl=trusted, connect_timeout=10):
            found[user] = True
    except AccessRefused:
        found[user] = False
print(json.dumps(found))
"""
LOGINS = """
import ssl, urllib.error, urllib.request
url, authority, logins = ARGUMENTS
context = ssl.create_default_context(cafile=authority)
found = {}
for name, password in logins:
    user = {"name": name, "domain": {"id": "default"}, "password": password}
    body = {"auth": {"identity": {"methods": ["password"], "password": {"user": user}}, "scope": "unscoped"}}
    request = urllib.request.Request(url, json.dumps(body).encode(), {"Content-Type": "application/json"})
    try:
        found[name] = urllib.request.urlopen(request, context=context).status
    except urllib.error.HTTPError as error:
        found[name] = error.code
print(json.dumps(found))
"""
UNAUTHORIZED, CREATED = 401, 201
SEARCH = """
import base64, glob, os, subprocess
# Grep would hold a store in memory: gigabytes without a newline.
stores = [os.path.basename(os.path.realpath(path)) for path in glob.glob("/var/lib/ceph/osd/*/block")]
needles = b"\\n".join(base64.b64decode(one) for one in ARGUMENTS[0])
done = subprocess.run(["grep", "-rlFs", "--text", "--file=-", *(f"--exclude={name}" for name in stores),
                       "--", *ARGUMENTS[1]], input=needles, capture_output=True,
                      env={**os.environ, "LC_ALL": "C"})
assert done.returncode in (0, 1, 2), done.stderr
print(json.dumps(done.stdout.decode().splitlines()))
"""
SERVICES = ("cinder", "glance", "keystone", "neutron", "nova", "placement")


def path_before() -> Path | None:
    """The file of secrets from before a rotation, where there was one."""
    if named := os.environ.get("KILONOVA_SECRETS_BEFORE"):
        return Path(named)
    return KEPT if os.environ.get("MOLECULE_SCENARIO_NAME") == ROTATING_SCENARIO else None


@pytest.fixture(scope="module")
def before() -> dict[str, str]:
    path = path_before()
    if not path:
        pytest.skip("these secrets were not rotated")
    return secrets_of(yaml.safe_load(path.read_text()))


@pytest.fixture(scope="module")
def rotated(before: dict[str, str], generated_secrets: dict[str, str]) -> dict[str, str]:
    """The old secrets that are not in use any more."""
    return {name: value for name, value in before.items() if generated_secrets.get(name) != value}


def pairs(secrets: dict[str, str], end: str, turns: tuple[str, ...] = ("",)) -> Iterator[tuple[str, str]]:
    for service in SERVICES:
        if f"{service}{end}" in secrets:
            yield from ((f"{service}{turn}", secrets[f"{service}{end}"]) for turn in turns)


def test_every_secret_has_changed(before: dict[str, str], rotated: dict[str, str]) -> None:
    assert set(before) - set(rotated) == NOT_ROTATED & set(before)


def test_old_passwords_open_no_database(
    run_python: Callable[..., Any], rotated: dict[str, str], generated_secrets: dict[str, str]
) -> None:
    old = run_python(DATABASES, *pairs(rotated, "_database_password"))
    assert old and set(old.values()) == {REFUSED}
    assert set(run_python(DATABASES, *pairs(generated_secrets, "_database_password")).values()) == {"opened"}


def test_old_passwords_open_no_queue(
    run_python: Callable[..., Any], rotated: dict[str, str], generated_secrets: dict[str, str], host: Any
) -> None:
    turns = ("", "2")
    services = {name.removesuffix("_messaging_password") for name in rotated if name.endswith("_messaging_password")}
    old = run_python(QUEUES, *pairs(rotated, "_messaging_password", turns))
    assert set(old) == {service + turn for service in services for turn in turns} and not any(old.values())
    # One account of each service is left.
    assert sum(run_python(QUEUES, *pairs(generated_secrets, "_messaging_password", turns)).values()) == len(services)
    users = {line.split("\t")[0] for line in host.check_output("rabbitmqctl --silent list_users").splitlines()}
    assert len({user.replace("2-", "-", 1) for user in users if user.startswith("compute")}) == len(
        [user for user in users if user.startswith("compute")]
    )


def test_old_passwords_log_in_to_no_api(
    run_python: Callable[..., Any], rotated: dict[str, str], generated_secrets: dict[str, str], site: Any
) -> None:
    url = f"https://{site.api_address}:5000/v3/auth/tokens"
    old = list(pairs(rotated, "_password", ("", "2"))) + [("admin", rotated["keystone_admin_password"])]
    assert set(run_python(LOGINS, url, site.authority, old).values()) == {UNAUTHORIZED}
    admin = [("admin", generated_secrets["keystone_admin_password"])]
    assert run_python(LOGINS, url, site.authority, admin) == {"admin": CREATED}


@pytest.mark.on("controller", "compute")
def test_no_old_secret_is_left_on_a_host(run_python: Callable[..., Any], rotated: dict[str, str]) -> None:
    forms = {form for value in rotated.values() for form in (value, quote(value, safe=""), value.replace("$", "\\$"))}
    needles = sorted(base64.b64encode(form.encode()).decode() for form in forms)
    assert run_python(SEARCH, needles, ["/etc", "/root", "/var/lib/kilonova", "/var/log", "/run/kilonova"]) == []


def test_keystone_signs_with_a_new_key(host: Any, before: dict[str, str]) -> None:
    """The key of the deployment has number 1000."""
    for kind in ("fernet", "credential"):
        keys = host.check_output(f"ls /etc/keystone/{kind}-keys").split()
        assert max(int(key) for key in keys if key.isdigit()) > 1000, kind
