# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Run the management tool of a service as its system user, with a private configuration.

Secrets reach the tool only in files: a directory of mode 0700 below /run (memory, not disk) holds the configuration and
MariaDB's login, both of mode 0600 and owned by the system user.

The tool runs in a session of its own and writes to a file, so that a lost connection or a killed module does not
interrupt it in the middle of a change. It inherits the lock, so that the next call waits for it.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import pwd
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from ansible.module_utils.kilonova.config.urls import DatabaseUrl, oslo_escape, parse_database_url

RUN_DIRECTORY = "/run/kilonova"
POLL_SECONDS = 0.1
TOOL_PATH = "/usr/sbin:/usr/bin:/sbin:/bin"
OUTPUT_LINES = 25
# SQLAlchemy repeats the failed statement, which can be very long.
_STATEMENT = re.compile(r"\[SQL:\s*([^\n]*)\n.*?\]\n(?=\(Background|\[parameters)", re.DOTALL)
_URL_PASSWORD = re.compile(r"(://[^\s:/@]*:)[^\s@]*@")

Settings = dict[str, dict[str, str]]


class ToolError(Exception):
    """A tool that cannot be run, failed, or still runs after the timeout. ``output`` is what it wrote."""

    def __init__(self, message: str, output: str = "") -> None:
        super().__init__(message)
        self.output = output


class StillRuns(ToolError):
    """A tool that still runs after the timeout."""


class ServiceTool:
    """A lock and a private directory for one kind of work of a service's tool.

    ``work`` names the work, such as ``schema-nova_api``. ``key`` distinguishes works of one name; it may be secret.
    """

    def __init__(self, user: str, work: str, key: str, timeout: float, run_directory: str = RUN_DIRECTORY) -> None:
        self.user = user
        self.deadline = time.monotonic() + timeout
        self.timeout = timeout
        digest = hashlib.sha256(key.encode()).hexdigest()[:8]
        self.base = os.path.join(run_directory, f"{work}-{digest}")
        self.lock: int | None = None

    @contextlib.contextmanager
    def locked(self) -> Iterator[ServiceTool]:
        """Hold the lock, waiting for it up to the timeout. Raises ToolError."""
        # 0711: the system user has to reach the private directory below, but nobody has to list this one.
        os.makedirs(os.path.dirname(self.base), mode=0o711, exist_ok=True)
        self.lock = os.open(f"{self.base}.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            self._wait_for_lock(self.lock)
            yield self
        finally:
            os.close(self.lock)
            self.lock = None

    def _wait_for_lock(self, lock: int) -> None:
        while True:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            except BlockingIOError as error:
                if time.monotonic() > self.deadline:
                    raise ToolError(
                        f"an earlier run is still at work (it holds {self.base}.lock) after {self.timeout:g} s. "
                        f"See which process holds it: fuser -v {self.base}.lock"
                    ) from error
            time.sleep(POLL_SECONDS)

    def run(self, command: list[str], settings: Settings, databases: dict[str, tuple[str, str]] | None = None) -> str:
        """Run a command and return its output. Raises ToolError.

        ``{config}`` in the command is replaced by the options that name the configuration. ``databases`` maps a section
        of the configuration to (URL, form): the form ``url`` keeps the URL, ``file`` moves its login to a file to which
        the URL then refers.
        """
        if self.lock is None:
            raise RuntimeError("run() needs the lock")
        try:
            account = pwd.getpwnam(self.user)
        except KeyError as error:
            raise ToolError(f"the system user {self.user} does not exist; its package is not installed") from error
        if not shutil.which(command[0], path=TOOL_PATH):
            raise ToolError(f"{command[0]} is not installed")
        sections = {name: dict(options) for name, options in settings.items()}
        shutil.rmtree(self.base, ignore_errors=True)
        os.mkdir(self.base, 0o700)
        try:
            for section, (url, form) in (databases or {}).items():
                text = url
                if form == "file":
                    login = os.path.join(self.base, f"{section}.cnf")
                    text = url_with_login_file(url, login)
                    write_private(login, login_file(parse_database_url(url)), account.pw_uid, account.pw_gid)
                sections.setdefault(section, {})["connection"] = text
            config = os.path.join(self.base, "service.conf")
            write_private(config, render(sections), account.pw_uid, account.pw_gid)
            os.chown(self.base, account.pw_uid, account.pw_gid)
            # Without --config-dir, the tools would also read their conf.d directories in /etc.
            options = ["--config-file", config, "--config-dir", self.base]
            arguments = [word for part in command for word in (options if part == "{config}" else [part])]
            output = self._wait(arguments, account)
        except StillRuns:
            raise
        except BaseException:
            self._clean()
            raise
        self._clean()
        return output

    def _wait(self, arguments: list[str], account: pwd.struct_passwd) -> str:
        assert self.lock is not None
        flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC
        with os.fdopen(os.open(f"{self.base}.log", flags, 0o600), "r+", errors="replace") as log:
            process = subprocess.Popen(
                arguments,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.base,
                env={"PATH": TOOL_PATH, "HOME": account.pw_dir, "LANG": "C.UTF-8", "PYTHONWARNINGS": "ignore"},
                user=account.pw_uid,
                group=account.pw_gid,
                extra_groups=os.getgrouplist(self.user, account.pw_gid),
                umask=0o077,
                pass_fds=(self.lock,),
                start_new_session=True,
            )
            try:
                code = process.wait(max(0.0, self.deadline - time.monotonic()))
            except subprocess.TimeoutExpired as error:
                raise StillRuns(
                    f"{arguments[0]} still runs as process {process.pid} after {self.timeout:g} s. It was not ended, "
                    "because that could leave its work half done; the next call waits for it."
                ) from error
            log.seek(0)
            output = log.read()
        if code:
            ending = f"was ended by signal {-code}" if code < 0 else f"ended with code {code}"
            raise ToolError(f"{arguments[0]} {ending}", output)
        return output

    def _clean(self) -> None:
        shutil.rmtree(self.base, ignore_errors=True)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{self.base}.log")


def write_private(path: str, text: str, uid: int, gid: int) -> None:
    """Create a file that only its owner can read."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
        os.fchown(file.fileno(), uid, gid)


def render(settings: Settings) -> str:
    """Return the text of an oslo.config file."""
    lines = []
    for section, options in settings.items():
        lines += [f"[{section}]", *(f"{name} = {oslo_escape(value)}" for name, value in options.items())]
    return "\n".join([*lines, ""])


def login_file(url: DatabaseUrl) -> str:
    """Return an option file for PyMySQL, which removes one pair of quotes from a value and knows no escapes."""
    return f'[client]\nuser = "{url.user}"\npassword = "{url.password}"\n'


def url_with_login_file(url: str, path: str) -> str:
    """Replace the login in a URL by the name of an option file.

    Some tools pass the URL to alembic's configuration without escaping ``%`` (keystone/common/sql/upgrades.py), so that
    a quoted character in the password makes them fail with "invalid interpolation syntax".
    """
    parts = urlsplit(url)
    query = "&".join(part for part in (parts.query, f"read_default_file={quote(path)}") if part)
    return urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], parts.path, query, ""))


def secrets_of(url: str) -> set[str]:
    """Return the forms in which the passwords of a URL can appear in an output."""
    netloc = urlsplit(url).netloc
    found = set()
    for member in netloc.split(","):
        password = member.rpartition("@")[0].partition(":")[2]
        if password:
            found |= {password, unquote(password)}
    return found


def last_lines(output: str, secrets: set[str], lines: int = OUTPUT_LINES) -> str:
    """Return the end of an output, with secrets masked and long SQL statements cut."""
    output = _STATEMENT.sub(r"[SQL: \1 ...]\n", output)
    text = "\n".join(output.rstrip().splitlines()[-lines:])
    for secret in sorted(secrets, key=len, reverse=True):
        text = text.replace(secret, "***")
    return _URL_PASSWORD.sub(r"\1***@", text)
