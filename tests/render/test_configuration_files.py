# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Every template of every role renders to a well-formed file, with any secret in it intact."""

from __future__ import annotations

import base64
import configparser
import hashlib
import json
import re
import shlex
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
import yaml
from ansible.module_utils.kilonova.config.urls import oslo_escape
from ansible.template import Templar, trust_as_template

from tests.render import rendering
from tests.render.conftest import INVENTORIES
from tests.render.rendering import PROJECT, SECRET, File

Files = dict[str, list[File]]
# The APIs and consoles that clients reach at the API address.
API_PORTS = {5000, 9292, 8778, 8774, 8775, 9696, 6080, 6083}
VOLUME_PORT = 8776
# Between controllers: the database, and the state of its members.
DATABASE_PORTS = {3306, 3309}
# A secret, in the forms that shells, URLs, oslo.config and JSON give it.
WRITTEN = (SECRET.partition("'")[0], "p%40%3A%2F", "p%40%3A%252F", oslo_escape(SECRET), json.dumps(SECRET)[1:-1])


def texts(rendered: Files) -> Iterator[tuple[str, File, str]]:
    """Every file that has content, with its host."""
    for host, files in rendered.items():
        for file in files:
            if file.text is not None:
                yield host, file, file.text


def ini(text: str, delimiters: tuple[str, ...] = ("=",)) -> configparser.ConfigParser:
    """An INI file as oslo.config reads it: strict about repeated options, values as they stand."""
    parser = configparser.ConfigParser(
        interpolation=None, strict=True, delimiters=delimiters, comment_prefixes=("#",), default_section="none"
    )
    # uWSGI has one option for all variables of the environment; the same variable twice would still be a mistake.
    parser.read_string(re.sub(r"^env = (\w+)=", r"env \1 = ", text, flags=re.MULTILINE))
    return parser


def oslo(value: str) -> str:
    """A value as oslo.config gives it to a service: one pair of quotes off, dollar signs unescaped."""
    if len(value) > 1 and value[0] == value[-1] and value[0] in "'\"":
        value = value[1:-1]
    return value.replace("\\$", "$$").replace("$$", "$")


def service_conf(rendered: Files) -> Iterator[tuple[str, configparser.ConfigParser]]:
    """All files that oslo.config reads, parsed."""
    for host, file, text in texts(rendered):
        if re.search(
            r"/(nova|nova-compute|neutron|glance-api|placement|keystone|ml2_conf|neutron_ovn_\w+)\.(conf|ini)$",
            file.dest,
        ):
            yield f"{host}:{file.dest}", ini(text)


def test_files_are_whole(rendered: Files) -> None:
    for host, file, text in texts(rendered):
        where = f"{host}:{file.dest}"
        assert text.strip(), where
        assert text.endswith("\n"), where
        assert not re.search(r"\{\{|\{%|\bundefined\b", text, re.IGNORECASE), where
        is_program = text.startswith("#!/usr/bin/python3\n")
        assert is_program or not re.search(r"=\s*(None|True|False)$", text.replace(SECRET, ""), re.MULTILINE), (
            f"{where}: a Python value"
        )


def test_ini_files_are_well_formed(rendered: Files) -> None:
    parsed = 0
    for host, file, text in texts(rendered):
        if Path(file.dest).suffix == ".ini" or re.fullmatch(
            r"/etc/(nova|neutron|glance|keystone|placement)/.*\.conf", file.dest
        ):
            # PasteDeploy's files also map paths, written "/v2.1: application".
            delimiters = ("=", ": ") if file.dest.endswith("paste.ini") else ("=",)
            assert ini(text, delimiters).sections(), f"{host}:{file.dest}"
            parsed += 1
    assert parsed


def test_json_and_yaml_files_are_well_formed(rendered: Files) -> None:
    parsers: dict[str, Callable[[str], Any]] = {".json": json.loads, ".yaml": yaml.safe_load}
    loaded = {
        file.dest: parsers[Path(file.dest).suffix](text)
        for _, file, text in texts(rendered)
        if Path(file.dest).suffix in parsers
    }
    assert loaded["/etc/openstack/clouds.yaml"]["clouds"]["admin"]["auth"]["password"] == SECRET
    assert loaded["/etc/rabbitmq/definitions.json"]["users"]


def test_openrc_is_read_by_a_shell(rendered: Files) -> None:
    openrc = next(text for _, file, text in texts(rendered) if file.dest == "/root/openrc")
    words = [word for line in openrc.splitlines() for word in shlex.split(line, comments=True)]
    exported = dict(word.partition("=")[::2] for word in words if "=" in word)
    assert exported["OS_PASSWORD"] == SECRET
    assert exported["OS_AUTH_URL"].startswith("https://")
    assert exported["OS_CACERT"] == "/etc/kilonova/ca.pem"


def test_passwords_in_urls_survive(rendered: Files) -> None:
    found = 0
    for where, parsed in service_conf(rendered):
        for section in parsed.sections():
            for option in ("connection", "transport_url"):
                if parsed.has_option(section, option) and "://" in parsed.get(section, option):
                    url = urlsplit(oslo(parsed.get(section, option)))
                    if url.scheme in {"tcp", "unix"}:
                        continue
                    # Of a message queue's, the test below says more.
                    if url.scheme != "rabbit":
                        assert unquote(url.password or "") == SECRET, f"{where} [{section}] {option}"
                    assert url.hostname and url.hostname != "None", f"{where} [{section}] {option}"
                    found += 1
    assert found


def test_the_message_queue_knows_the_password_that_services_send(rendered: Files) -> None:
    definitions = next(text for _, file, text in texts(rendered) if file.dest == "/etc/rabbitmq/definitions.json")
    stored = {user["name"]: base64.b64decode(user["password_hash"]) for user in json.loads(definitions)["users"]}
    urls = {
        (where, oslo(parsed.get("DEFAULT", "transport_url")))
        for where, parsed in service_conf(rendered)
        if parsed.has_option("DEFAULT", "transport_url")
    }
    assert urls
    # One login for each broker.
    logins = [(where, urlsplit(f"//{one}")) for where, url in urls for one in urlsplit(url).netloc.split(",")]
    for where, login in logins:
        password = unquote(login.password or "")
        salt, digest = stored[login.username or ""][:4], stored[login.username or ""][4:]
        assert hashlib.sha256(salt + password.encode()).digest() == digest, where
        # oslo.messaging and kombu cannot carry a slash; all else is the operator's password. A compute's is derived.
        assert where.endswith("nova-compute.conf") or password == SECRET.replace("/", "%2F"), where


def test_passwords_of_service_users_survive(rendered: Files) -> None:
    found = 0
    for where, parsed in service_conf(rendered):
        for section in parsed.sections():
            for option in ("password", "metadata_proxy_shared_secret"):
                # A compute's password is derived.
                if parsed.has_option(section, option) and not where.endswith("nova-compute.conf"):
                    assert oslo(parsed.get(section, option)) == SECRET, f"{where} [{section}] {option}"
                    found += 1
    assert found


@pytest.mark.parametrize(("inventory", "computes"), [("all_in_one", ["cloud1"]), ("multihost", ["cmp1", "cmp2"])])
def test_a_compute_logs_in_to_keystone_as_itself(inventory: str, computes: list[str]) -> None:
    sample = rendering.load(inventory)
    (catalog,) = (one for one in sample.services(sample.hosts()[0]) if one["name"] == "catalog")
    registered = {user["name"]: user for user in catalog["checks"][0]["args"]["users"]}
    found = {}
    for host in computes:
        files = [text_of(inventory, host, f"/etc/nova/{name}.conf") for name in ("nova", "nova-compute")]
        # nova-compute reads one after the other, and the last value of an option counts.
        conf = configparser.ConfigParser(interpolation=None, strict=False, default_section="none")
        conf.read_string("\n".join(files))
        logins = {
            (conf.get(section, "username"), oslo(conf.get(section, "password")), conf.get(section, "project_name"))
            for section in ("service_user", "placement", "neutron")
        }
        ((name, password, project),) = logins
        assert password == registered[name]["password"]
        assert registered[name]["roles"] == [{"project": project, "role": "service"}]
        assert registered[name]["exact_roles"]
        assert registered[name]["options"] == {"ignore_lockout_failure_attempts": True}
        found[name] = password
    assert list(found) == [f"nova-compute-{host}" for host in computes]
    assert len(set(found.values())) == len(computes)
    assert {name for name in registered if name.startswith("nova-compute")} == set(found)


def test_a_compute_knows_no_password_of_another_service() -> None:
    sample = rendering.load("multihost")
    for host in ("cmp1", "cmp2"):
        knows = [file.dest for file in sample.files(host) if any(form in (file.text or "") for form in WRITTEN)]
        # The secret that it shares with Nova's metadata API.
        assert knows == ["/etc/neutron/neutron_ovn_metadata_agent.ini"], host
        nova = ini(text_of("multihost", host, "/etc/nova/nova.conf"))
        assert [name for name in nova.sections() if nova.has_option(name, "auth_type")] == []


def test_files_with_secrets_are_not_for_everyone(rendered: Files) -> None:
    found = set()
    for host, file, text in texts(rendered):
        if forms := {form for form in WRITTEN if form in text}:
            assert file.mode in {"0600", "0640", "0400", "0440"}, f"{host}:{file.dest} has mode {file.mode}"
            found |= forms
    # A form that no file has would hide a file that everybody may read.
    assert found == set(WRITTEN)


def test_haproxy_serves_every_api(sample: rendering.Sample, rendered: Files) -> None:
    served = {
        int(port)
        for _, file, text in texts(rendered)
        if file.dest == "/etc/haproxy/haproxy.cfg"
        for address, port in bound(text)
        if not address.startswith("127.")
    }
    has_volumes = any(service["name"] == "cinder" for host in sample.hosts() for service in sample.services(host))
    several = len(next(sample.variables(host)["groups"]["controller"] for host in sample.hosts())) > 1
    assert served == API_PORTS | ({VOLUME_PORT} if has_volumes else set()) | (DATABASE_PORTS if several else set())


def bound(text: str) -> list[tuple[str, str]]:
    """Addresses and ports of the bind lines of a haproxy.cfg."""
    return re.findall(r"^\s*bind\s+(\S+):(\d+)", text, re.MULTILINE)


def test_applications_that_are_not_thread_safe_have_one_thread(rendered: Files) -> None:
    # Nova and Neutron run under eventlet; Keystone makes its policy enforcer at the first request, without a lock.
    threads = {
        Path(file.dest).name: ini(text)["uwsgi"]["threads"]
        for _, file, text in texts(rendered)
        if re.fullmatch(r"(keystone|nova-api|neutron-api)-uwsgi\.ini", Path(file.dest).name)
    }
    assert threads == {"keystone-uwsgi.ini": "1", "nova-api-uwsgi.ini": "1", "neutron-api-uwsgi.ini": "1"}


def test_no_two_services_write_one_file(rendered: Files) -> None:
    for host, files in rendered.items():
        written = [file.dest for file in files]
        assert sorted(set(written)) == sorted(written), host


def test_rendering_again_gives_the_same(sample: rendering.Sample, rendered: Files) -> None:
    """By Ansible's own templating too, which works a variable out wherever it is needed."""
    again = replace(sample.changed(), make_templar=Templar)
    for host in sample.hosts():
        assert again.files(host) == rendered[host]


def test_a_compute_knows_no_database_password() -> None:
    sample = rendering.load("multihost")
    for host in ("cmp1", "cmp2"):
        for file in sample.files(host):
            assert "mysql+" not in (file.text or ""), f"{host}:{file.dest}"
            assert "[api_database]" not in (file.text or ""), f"{host}:{file.dest}"


def test_addresses_are_those_of_the_inventory() -> None:
    sample = rendering.load("multihost")
    nova = {
        host: ini(next(f.text or "" for f in sample.files(host) if f.dest == "/etc/nova/nova.conf"))
        for host in sample.hosts()
    }
    assert {host: conf.get("DEFAULT", "my_ip") for host, conf in nova.items()} == {
        "ctl1": "192.0.2.10",
        "cmp1": "192.0.2.21",
        "cmp2": "192.0.2.22",
    }
    compute = ini(text_of("multihost", "cmp1", "/etc/nova/nova-compute.conf"))
    for conf in (nova["ctl1"], compute):
        assert urlsplit(conf.get("placement", "auth_url")).hostname == "192.0.2.10"


def text_of(inventory: str, host: str, dest: str) -> str:
    """A file's content on one host of a sample inventory."""
    return next(file.text or "" for file in rendering.load(inventory).files(host) if file.dest == dest)


@pytest.mark.parametrize(
    ("inventory", "host", "outside"),
    [("all_in_one", "cloud1", "br0"), ("multihost", "ctl1", "eth0"), ("multihost", "cmp1", None)],
)
def test_guests_leave_by_the_default_route_and_only_where_they_are_translated(
    inventory: str, host: str, outside: str | None
) -> None:
    rules = re.findall(r'oifname "(\S+)" masquerade', text_of(inventory, host, "/etc/kilonova/nat.nft"))
    assert rules == [outside] * (outside is not None)


@pytest.mark.parametrize(
    ("changes", "public"),
    [
        ({"flat_interface": "eth0"}, "eth0"),
        ({"flat_interface": "eth1"}, "eth0"),
        # An earlier run put the bridge over the interface with the default route, or its VLAN has that.
        ({"flat_interface": "eth0", "preflight_facts": {"default_interface": "br0"}}, "eth0"),
        ({"flat_interface": "eth0", "preflight_facts": {"default_interface": "eth0.5"}}, "eth0.5"),
        # The default route moves to the bridge, there is none, or the host was not looked at yet.
        ({"flat_interface": "eth1", "bridge_method": "static", "bridge_gateway": "192.0.2.1"}, "eth1"),
        ({"flat_interface": "eth1", "preflight_facts": {"default_interface": ""}}, "eth1"),
        ({"flat_interface": "eth1", "preflight_facts": {}}, "eth1"),
    ],
)
def test_public_interface_follows_the_default_route(changes: dict[str, Any], public: str) -> None:
    sample = rendering.load("multihost")
    assert sample.templar("ctl1", changes).template(trust_as_template("{{ public_interface }}")) == public


@pytest.mark.parametrize(
    ("changes", "physical", "tunnel"),
    [
        ({}, 9000, 1600),
        ({"bridge_mtu": 4000}, 4000, 1600),
        # Tunnels share the flat network's interface, management's, or one that they have an address on.
        ({"ovn_chassis_tunnel_interface": ""}, 9000, 9000),
        ({"ovn_chassis_tunnel_interface": "", "ovn_chassis_bridge_address": ""}, 9000, 1500),
        ({"ovn_chassis_tunnel_interface": "", "ovn_chassis_bridge_address": "", "flat_interface": "eth0"}, 1500, 1500),
        (
            {
                "ovn_chassis_tunnel_interface": "",
                "ovn_chassis_bridge_address": "",
                "ovn_chassis_tunnel_address": "198.18.7.10",
                "preflight_facts": {
                    "interfaces": {"eth1": {"mtu": 9000}, "eth2": {"mtu": 1450, "addresses": ["198.18.7.10/24"]}}
                },
            },
            9000,
            1450,
        ),
    ],
)
def test_mtu_of_each_network(changes: dict[str, Any], physical: int, tunnel: int) -> None:
    templar = rendering.load("multihost").templar("ctl1", changes)
    assert templar.template(trust_as_template("{{ [neutron_physical_mtu, neutron_tunnel_mtu] }}")) == [physical, tunnel]


def default_of(role: str, variable: str) -> str:
    """A default, as Ansible reads it, of a role that not every play has."""
    text: str = yaml.safe_load((PROJECT / "roles" / role / "defaults/main.yml").read_text())[variable]
    return trust_as_template(text)


@pytest.mark.parametrize(
    ("changes", "interface"),
    [
        ({}, "br0"),
        ({"fixed_gateway": "192.168.1.254"}, "eth0"),
        ({"fixed_gateway": "192.168.1.254", "flat_interface": "eth0"}, "br0"),
    ],
)
def test_guests_are_looked_for_where_the_controller_reaches_them(changes: dict[str, Any], interface: str) -> None:
    templar = rendering.load("multihost").templar("ctl1", changes)
    assert templar.template(default_of("verify", "verify_interface")) == interface


def test_a_guest_outside_is_seen_with_an_address_of_the_way_out() -> None:
    sample = rendering.load("multihost")
    peers = default_of("verify", "verify_outside_peers")
    assert sample.templar("ctl1").template(peers) == ["192.0.2.10"]
    assert sample.templar("ctl1", {"fixed_gateway": "192.168.1.254"}).template(peers) == []
    bridged = {
        "default_interface": "br0",
        "interfaces": {"eth0": {"addresses": ["192.0.2.10/24"]}, "br0": {"addresses": ["198.51.100.7/24"]}},
    }
    changes = {"preflight_facts": bridged, "hostvars": {"ctl1": {"preflight_facts": bridged}}}
    assert sample.templar("ctl1", changes).template(peers) == ["198.51.100.7"]


def test_tunnels_have_their_own_bridge_where_they_have_an_interface() -> None:
    unit = "/etc/systemd/system/kilonova-tunnel.service"
    own = text_of("multihost", "cmp1", unit)
    assert "ip link set dev eth2 up" in own
    assert "ip address add 198.18.0.10/24 dev kilonova-tunnel\n" in own
    sample = rendering.load("multihost")
    service = next(service for service in sample.services("cmp1") if service["name"] == "ovn_chassis")
    files = [item for item in service["files"] if item["dest"] == unit]
    changed = sample.changed(ovn_chassis_tunnel_interface="")
    shared = changed.render("cmp1", service | {"files": files})[-1].text or ""
    assert "ip address add 198.18.0.10/24 dev br-provider\n" in shared
    assert "kilonova-tunnel\n" not in shared and "eth2" not in shared


@pytest.mark.parametrize("option", ["DEFAULT/debug", "made_up/option"])
@pytest.mark.parametrize(
    ("variable", "name"),
    [
        ("nova_conf_overrides", "nova.conf"),
        ("nova_api_conf_overrides", "nova-api.conf"),
        ("nova_scheduler_conf_overrides", "nova-scheduler.conf"),
    ],
)
def test_overrides_reach_the_file(option: str, variable: str, name: str) -> None:
    section, _, key = option.partition("/")
    sample = rendering.load("all_in_one")
    overrides = {section: {key: "from the site"}}
    service = next(service for service in sample.services("cloud1") if service["name"] == "nova")
    (file,) = [item for item in service["files"] if item["dest"] == f"/etc/nova/{name}"]
    assert file["overrides_name"] == variable
    files = [file | {"overrides": overrides}]
    text = sample.changed(**{variable: overrides}).render("cloud1", service | {"files": files})[-1].text
    assert ini(text or "").get(section, key) == "from the site"


def overridable() -> list[tuple[str, str]]:
    """The files of all services that have overrides, by service."""
    return [
        (service["name"], file["dest"])
        for service in rendering.load("all_in_one").services("cloud1")
        for file in service.get("files", [])
        if file.get("overrides_name")
    ]


@pytest.mark.parametrize(("service_name", "dest"), overridable(), ids=lambda value: value.rpartition("/")[2])
def test_every_file_with_overrides_takes_them(service_name: str, dest: str) -> None:
    sample = rendering.load("all_in_one")
    service = next(service for service in sample.services("cloud1") if service["name"] == service_name)
    (file,) = [item for item in service["files"] if item["dest"] == dest]
    files = [file | {"overrides": {"made_up": {"option": "from the site"}}}]
    text = sample.render("cloud1", service | {"files": files})[-1].text or ""
    assert re.search(r"^\[made_up\]\n(.*\n)*?option ?[:=] ?from the site$", text, re.MULTILINE)


def test_what_the_services_of_nova_are_told_to_read_is_what_restarts_them() -> None:
    sample = rendering.load("all_in_one")
    service = next(service for service in sample.services("cloud1") if service["name"] == "nova")
    reads = {unit["name"].removesuffix(".service"): set(unit["reads"]) for unit in service["units"]}
    for name in ("nova-scheduler", "nova-conductor"):
        named = re.findall(r"--config-file=([^\s\"]+)", text_of("all_in_one", "cloud1", f"/etc/default/{name}"))
        # A later one counts more.
        assert named == ["/etc/nova/nova.conf", "/etc/nova/nova-scheduler.conf"]
        assert {*named, f"/etc/default/{name}"} == reads[name]
    for name in ("nova-api", "nova-api-metadata"):
        text = text_of("all_in_one", "cloud1", f"/etc/nova/{name}-uwsgi.ini")
        (named,) = re.findall(r"^env = OS_NOVA_CONFIG_FILES=(.+)$", text, re.MULTILINE)
        files = [f"/etc/nova/{file}" for file in named.split(";")]
        # Nova takes the first one for the pipeline's configuration.
        assert files == ["/etc/nova/api-paste.ini", "/etc/nova/nova.conf", "/etc/nova/nova-api.conf"]
        assert {*files, f"/etc/nova/{name}-uwsgi.ini", f"/etc/default/{name}"} == reads[name]


def test_computes_give_out_tokens_for_as_long_as_the_inventory_says() -> None:
    for host in ("ctl1", "cmp1"):
        assert ini(text_of("multihost", host, "/etc/nova/nova.conf")).get("consoleauth", "token_ttl") == "120"


def test_every_template_is_rendered_here_or_used_by_a_task() -> None:
    sources = {
        file.source
        for name in INVENTORIES
        for host in rendering.load(name).hosts()
        for file in rendering.load(name).files(host)
    }
    code = "".join(
        path.read_text()
        for pattern in (
            "roles/*/tasks/*.yml",
            "roles/*/templates/*",
            "templates/*",
            "plugins/action/*.py",
            "playbooks/**/*",
        )
        for path in PROJECT.glob(pattern)
        if path.is_file()
    )
    # With several controllers: test_database_cluster.py.
    sources |= {"galera.cnf.j2", "galera-member.j2", "kilonova-galera.service.j2"}
    templates = [*PROJECT.glob("roles/*/templates/*.j2"), *PROJECT.glob("templates/*.j2")]
    unused = [
        str(path.relative_to(PROJECT)) for path in templates if path.name not in sources and path.name not in code
    ]
    assert unused == []
