# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Connect to the cloud's APIs."""

from __future__ import annotations

import os
import sys
import threading
import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, NoReturn

from ansible.module_utils.basic import AnsibleModule, missing_required_lib
from ansible.module_utils.kilonova.cloud.token_cache import KeptLogin, may_cache
from ansible.module_utils.kilonova.system.dry_run import mariadb_is_deployed, not_looked_at
from ansible.module_utils.kilonova.system.logs import unit_log

if TYPE_CHECKING:
    from openstack.connection import Connection

POLL_SECONDS = 0.5
PREPARING = threading.Lock()
SECRET_NAMES = ("password", "secret", "token", "passcode", "passphrase")

CLIENT_ARGUMENTS: dict[str, dict[str, Any]] = {
    "cloud": {"type": "str", "default": "admin"},
    "clouds_file": {"type": "path", "default": "/etc/openstack/clouds.yaml"},
    "api_timeout": {"type": "int", "default": 120},
}


def connect(module: AnsibleModule) -> Connection:
    """Return an authenticated connection, waiting for Keystone to answer.

    Uses the token of an earlier call while Keystone accepts it. Reads only the clouds file, no OS_* variables. A
    refused password, an unknown cloud or a missing file fail at once. A Keystone that does not answer yet (connection
    refused, HTTP 5xx) is tried again for ``api_timeout`` seconds; check mode does not wait, and ends without a
    prediction.

    The module must include ``CLIENT_ARGUMENTS`` in its argument spec.
    """
    # Threads that import the SDK at once would meet parts of it: its modules import each other.
    with PREPARING:
        connection = _prepare(module)
    _authenticate(module, connection, str(connection.config.config.get("auth", {}).get("auth_url", "")))
    return connection


def _prepare(module: AnsibleModule) -> Connection:
    """Return a connection that has not logged in yet."""
    # keystoneauth would import osprofiler, which takes 0.2 s. None in sys.modules stands for a missing module.
    sys.modules.setdefault("osprofiler", None)  # type: ignore[arg-type]
    try:
        # Slow to import, and may be missing.
        from openstack import exceptions as sdk_errors
        from openstack.config import OpenStackConfig
        from openstack.connection import Connection
    except ImportError:
        module.fail_json(msg=missing_required_lib("openstacksdk"), exception=traceback.format_exc())

    cloud, clouds_file = module.params["cloud"], module.params["clouds_file"]
    if not os.path.isfile(clouds_file):
        module.fail_json(
            msg=f"{clouds_file} does not exist, so the cloud '{cloud}' is unknown. Let the clients role write it, "
            "or name another file with clouds_file."
        )
    try:
        config = OpenStackConfig(config_files=[clouds_file], secure_files=[], vendor_files=[], load_envvars=False)
        names = sorted(config.get_cloud_names())
        if cloud not in names:
            module.fail_json(
                msg=f"{clouds_file} does not define the cloud '{cloud}'. It defines: {', '.join(names) or 'none'}."
            )
        with without_archives():
            region = config.get_one(cloud=cloud)
    except sdk_errors.OpenStackCloudException as error:
        module.fail_json(msg=f"{clouds_file} cannot be used: {error}")
    # Mask the secrets of the clouds file in results, like no_log options.
    module.no_log_values.update(secrets_in(region.config))
    # Each of them is made once for a process, without a lock, when a thread first uses a service.
    region.get_prometheus_histogram()
    region.get_prometheus_counter()
    return Connection(config=region)


def is_first_deployment(module: AnsibleModule, **result: Any) -> bool:
    """Return whether check mode runs before the cloud exists, so that everything would be created.

    On a deployed host a missing clouds file tells nothing about the cloud: the module ends there with ``result``.
    """
    path = module.params["clouds_file"]
    if not module.check_mode or os.path.exists(path):
        return False
    if mariadb_is_deployed():
        not_looked_at(module, "The cloud", f"{path} does not exist, but this host is deployed", **result)
    return True


@contextmanager
def without_archives() -> Iterator[None]:
    """Keep the archive that Ansible brings a module in out of sys.path.

    keystoneauth finds its plugins through stevedore, which caches the entry points of all packages in a file below
    ~/.cache, by sys.path. The archive's name is new in each call, which would cost 0.2 s and another file of 180 kB.
    Packages of the archive that were imported before can still be imported from.
    """
    whole = sys.path[:]
    sys.path[:] = [path for path in whole if os.path.isdir(path)]
    try:
        yield
    finally:
        sys.path[:] = whole


def secrets_in(config: Any, name: str = "") -> Iterator[str]:
    """Yield the values in a cloud's configuration that are secret by their names."""
    if isinstance(config, dict):
        for key, value in config.items():
            yield from secrets_in(value, str(key))
    elif isinstance(config, str) and config and any(word in name.lower() for word in SECRET_NAMES):
        yield config


def _authenticate(module: AnsibleModule, connection: Connection, auth_url: str) -> None:
    from keystoneauth1 import exceptions as auth_errors

    session: Any = connection.session
    kept = KeptLogin(session, auth_url)
    timeout = module.params["api_timeout"]
    deadline = time.monotonic() + timeout
    while True:
        try:
            # authorize() would hide the cause, which decides whether to wait.
            session.invalidate()
            if not kept.use():
                session.get_token()
                if may_cache(module):
                    kept.keep()
            module.no_log_values.add(session.get_token())
            return
        except (auth_errors.Unauthorized, auth_errors.Forbidden, auth_errors.BadRequest) as error:
            _fail(
                module,
                f"Keystone at {auth_url} refuses the cloud '{module.params['cloud']}' "
                f"of {module.params['clouds_file']}: {error}. "
                "The user, project or password in that file is not the one in Keystone.",
            )
        except auth_errors.SSLError as error:
            _fail(module, f"TLS to Keystone at {auth_url} failed: {error}. Check the certificate and cacert.")
        except (auth_errors.ConnectionError, auth_errors.HttpError, auth_errors.DiscoveryFailure) as error:
            cause = error
        except auth_errors.ClientException as error:
            _fail(module, f"{module.params['clouds_file']} cannot be used to log in at {auth_url}: {error}")
        if module.check_mode:
            not_looked_at(module, f"The cloud behind Keystone at {auth_url}", cause)
        if time.monotonic() >= deadline:
            _fail(
                module,
                f"Keystone at {auth_url} did not answer within {timeout} s (api_timeout): {cause}. "
                "Check that its unit runs and that the address is the one it is reached at.",
            )
        time.sleep(POLL_SECONDS)


def _fail(module: AnsibleModule, message: str) -> NoReturn:
    module.fail_json(msg=f"{message}\n{unit_log('keystone')}")
    raise AssertionError("fail_json() ends the module")
