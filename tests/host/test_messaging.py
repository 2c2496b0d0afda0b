# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""RabbitMQ speaks TLS only, and a compute's own account opens nothing but its own queues."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from typing import Any

import pytest

pytestmark = pytest.mark.on("compute")

# As whoever is root on this host, with the account of its nova-compute.
CONNECT = """
import configparser, socket, ssl, urllib.parse
import amqp
from amqp.exceptions import AccessRefused, NotAllowed

files = configparser.RawConfigParser(strict=False)
files.read(["/etc/nova/nova.conf", "/etc/nova/nova-compute.conf"])
# With several controllers, it names the broker of each.
first, _, rest = files["DEFAULT"]["transport_url"].partition(",")
url = urllib.parse.urlsplit(first + ("/" + rest.rpartition("/")[2] if rest else ""))
authority = files["oslo_messaging_rabbit"]["ssl_ca_file"]
address = (url.hostname, url.port)

def connect(**options):
    trusted = {"ca_certs": authority, "cert_reqs": ssl.CERT_REQUIRED, "server_hostname": url.hostname}
    login = {"userid": url.username, "password": url.password, "virtual_host": url.path[1:]}
    found = amqp.Connection(f"{url.hostname}:{url.port}", login_method="AMQPLAIN", ssl=trusted, connect_timeout=10,
                            **{**login, **options})
    found.connect()
    return found

def tried(action, **options):
    # A refusal closes the channel. What was read goes back into the queue.
    try:
        with connect(**options) as connection, connection.channel() as channel:
            action(channel)
    except (AccessRefused, NotAllowed) as refusal:
        return f"refused: {refusal.reply_code}"
    return "done"
"""
QUEUES = (
    CONNECT
    + """
print(json.dumps({queue: tried(lambda channel: channel.basic_get(queue)) for queue in ARGUMENTS[0]}))
"""
)
ELSEWHERE = (
    CONNECT
    + """
host, other = ARGUMENTS
own = f"compute.{host}"
print(json.dumps({
    "the messages of others": tried(lambda channel: channel.queue_bind(own, "nova", "conductor")),
    "all messages": tried(lambda channel: channel.queue_bind(own, "nova", "#")),
    "the queue of another compute": tried(lambda channel: channel.queue_bind(f"compute.{other}", "nova", own)),
    "a queue of its own making": tried(lambda channel: channel.queue_declare("site")),
    "deletion of another queue": tried(lambda channel: channel.queue_delete("conductor")),
    "an exchange of its own making": tried(lambda channel: channel.exchange_declare("site", "topic")),
    "the virtual host of Neutron": tried(lambda channel: None, virtual_host="neutron"),
    "the default virtual host": tried(lambda channel: None, virtual_host="/"),
    "the user guest": tried(lambda channel: None, userid="guest", password="guest"),
}))
"""
)
TLS = (
    CONNECT
    + """
def handshake(**options):
    context = ssl.create_default_context(cafile=options.get("cafile"))
    context.maximum_version = options.get("version", ssl.TLSVersion.MAXIMUM_SUPPORTED)
    try:
        with socket.create_connection(address, timeout=10) as plain:
            with context.wrap_socket(plain, server_hostname=options.get("name", url.hostname)) as connection:
                return [connection.version(), connection.cipher()[0]]
    except ssl.SSLError as error:
        return error.reason
def answers(port):
    try:
        socket.create_connection((url.hostname, port), timeout=10).close()
    except OSError:  # Refused, or dropped by the firewall.
        return False
    return True
with connect() as connection:
    mechanisms = [name.decode() for name in connection.mechanisms]
print(json.dumps({
    "port": url.port,
    "plain": answers(5672),
    "verified": files["oslo_messaging_rabbit"]["ssl_enforce_hostname_verification"],
    "trusted": handshake(cafile=authority),
    "old": handshake(cafile=authority, version=ssl.TLSVersion.TLSv1_2),
    "other name": handshake(cafile=authority, name="192.0.2.1"),
    "other authority": handshake(),
    "mechanisms": mechanisms,
}))
"""
)


@pytest.fixture(scope="module")
def other(site: Any, hosts_sites: tuple[Any, ...]) -> str:
    """Another compute; where there is none, one that does not exist: permissions are checked first."""
    return next((one.name for one in hosts_sites if "compute" in one.groups and one.name != site.name), "absent")


def test_a_compute_reads_its_own_queues(site: Any, run_python: Callable[..., Any]) -> None:
    queues = ["compute", f"compute.{site.name}", f"reply_{site.name}:nova-compute:1"]
    assert run_python(QUEUES, queues) == dict.fromkeys(queues, "done")


def test_a_compute_reads_no_other_queue(
    site: Any, other: str, first_controller: Any, run_python: Callable[..., Any]
) -> None:
    queues = [
        *("conductor", f"conductor.{first_controller.name}", "scheduler", f"compute.{other}"),
        *(f"reply_{first_controller.name}:nova-conductor:1", f"reply_{other}:nova-compute:1"),
    ]
    assert run_python(QUEUES, queues) == dict.fromkeys(queues, "refused: 403")


def test_a_compute_changes_nothing_that_is_not_its_own(site: Any, other: str, run_python: Callable[..., Any]) -> None:
    found = run_python(ELSEWHERE, site.name, other)
    assert len(found) == 9
    assert {what: answer for what, answer in found.items() if not answer.startswith("refused")} == {}


def test_messages_are_encrypted_and_the_broker_is_verified(run_python: Callable[..., Any]) -> None:
    found = run_python(TLS)
    assert found["port"] == 5671 and found["verified"] == "true"
    assert found["trusted"][0] == "TLSv1.3" and found["trusted"][1].startswith("TLS_")
    assert "VERSION" in found["old"]
    assert found["other name"] == found["other authority"] == "CERTIFICATE_VERIFY_FAILED"


def test_nothing_answers_without_tls(run_python: Callable[..., Any]) -> None:
    assert run_python(TLS)["plain"] is False


def test_nobody_is_anonymous(run_python: Callable[..., Any]) -> None:
    assert set(run_python(TLS)["mechanisms"]) == {"PLAIN", "AMQPLAIN"}


@pytest.mark.on("controller")
def test_each_service_and_each_compute_has_an_account(host: Any, hosts_sites: tuple[Any, ...]) -> None:
    """The user guest and the one that all shared are gone; the accounts of services differ in their virtual hosts."""
    computes = {f"compute-{site.name}" for site in hosts_sites if "compute" in site.groups}
    # One call: rabbitmqctl takes seconds to start.
    found = json.loads(host.check_output("rabbitmqctl --silent export_definitions -"))
    users = [user["name"] for user in found["users"]]
    # A rotation changes to the second name, and back.
    names = {re.sub(r"^([a-z]+)2", r"\1", user): user for user in users}
    assert len(names) == len(users)
    assert set(names) == {"nova", "neutron"} | computes
    nova, neutron = (
        {one["vhost"] for one in found["permissions"] if one["user"] == names[user]} for user in ("nova", "neutron")
    )
    assert len(nova) == 1 and nova != neutron == {"neutron"}


@pytest.mark.on("controller", "compute")
def test_the_broker_refused_nothing_that_a_service_needs(host: Any) -> None:
    # Logins are refused while a password drifts.
    refused = "ACCESS_REFUSED - access to"
    done = host.run("grep --recursive --max-count=1 --no-messages %s /var/log/nova /var/log/neutron", refused)
    assert (done.rc, done.stdout) == (1, "")
