# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""Test the output of a run: its parts, and Ansible itself with and without a terminal."""

from __future__ import annotations

import fcntl
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from plugins.callback import progress
from plugins.callback.progress import Clock, Run

PROJECT = Path(__file__).resolve().parents[4]

# ---------------------------------------------------------------- text


@pytest.mark.parametrize(("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (3723, "62:03")])
def test_duration(seconds: float, text: str) -> None:
    assert progress.duration(seconds) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "under 10 s left"),
        (31, "about 40 s left"),
        (99, "about 100 s left"),
        (100, "about 2 min left"),
        (225, "about 4 min left"),
    ],
)
def test_time_left(seconds: float, text: str) -> None:
    assert progress.time_left(seconds) == text


TIMES = "2:31, about 4 min left"
TASK = "keystone : Create the database schema"


@pytest.mark.parametrize(
    ("width", "hosts", "line"),
    [
        (119, ["ctl1"], f"{TIMES} | Deploy the control plane | {TASK} | ctl1"),
        (79, ["ctl1"], f"{TIMES} | {TASK} | ctl1"),
        (79, ["a", "b", "c", "d"], f"{TIMES} | {TASK} | 4 hosts"),
        (59, ["ctl1"], f"{TIMES} | keystone : Create the database ..."),
        (2, ["ctl1"], ".."),
    ],
)
def test_room_goes_to_the_task_first(width: int, hosts: list[str], line: str) -> None:
    assert progress.layout(width, TIMES, "Deploy the control plane", TASK, hosts) == line


def test_layout_without_a_task() -> None:
    assert progress.layout(79, "0:03", "Deploy the control plane", "", []) == "0:03 | Deploy the control plane"
    assert progress.layout(22, "0:03", "Deploy the control plane", "", []) == "0:03"


# ---------------------------------------------------------------- the time that is left


def tasks(seconds: float, changed: bool, count: int = 40) -> Run:
    """Return a run in which every other task takes long and may change something."""
    return {
        f"task {number} #1": (seconds if number % 2 else 0.5, changed and bool(number % 2)) for number in range(count)
    }


DEPLOYMENT = tasks(20.0, True)
UNCHANGED = tasks(1.0, False)


def part(run: Run, start: int, end: int | None = None) -> Run:
    return dict(list(run.items())[start:end])


def total(run: Run) -> float:
    return sum(seconds for seconds, _ in run.values())


def left(records: list[Run], done: Run, task: str = "", running: float = 0.0) -> float | None:
    """Return the estimate after some tasks, while another one is running."""
    now = 0.0
    clock = Clock(records, now=lambda: now)
    for name, (seconds, changed) in done.items():
        clock.begin(name.removesuffix(" #1"))
        clock.changed = changed
        now += seconds
    if task:
        clock.begin(task.removesuffix(" #1"))
        now += running
    else:
        clock.end()
    return clock.left()


def test_no_time_without_a_record() -> None:
    assert left([], part(DEPLOYMENT, 0, 5), "task 5 #1") is None


def test_the_record_tells_the_time_left() -> None:
    expected = 15 + total(part(DEPLOYMENT, 12))
    assert left([DEPLOYMENT], part(DEPLOYMENT, 0, 11), "task 11 #1", 5) == pytest.approx(expected)
    # Between two tasks.
    assert left([DEPLOYMENT], part(DEPLOYMENT, 0, 12)) == pytest.approx(total(part(DEPLOYMENT, 12)))


def test_a_run_with_changes_is_no_guide_before_a_change() -> None:
    assert left([DEPLOYMENT], {}, "task 0 #1") is None
    assert left([DEPLOYMENT], part(DEPLOYMENT, 0, 1), "task 1 #1") is None
    assert left([DEPLOYMENT], part(DEPLOYMENT, 0, 2), "task 2 #1") is not None


@pytest.mark.parametrize("records", [[DEPLOYMENT, UNCHANGED], [UNCHANGED, DEPLOYMENT]])
@pytest.mark.parametrize("run", [DEPLOYMENT, UNCHANGED])
def test_the_guide_is_the_run_that_is_alike(records: list[Run], run: Run) -> None:
    assert left(records, part(run, 0, 8)) == pytest.approx(total(part(run, 8)))


def test_a_continued_deployment_is_recognised() -> None:
    done = part(UNCHANGED, 0, 20) | part(DEPLOYMENT, 20, 26)
    assert left([UNCHANGED, DEPLOYMENT], done) == pytest.approx(total(part(DEPLOYMENT, 26)))


def test_a_single_change_goes_on_like_a_run_without_changes() -> None:
    done = part(UNCHANGED, 0, 11) | {"task 11 #1": (5.0, True)} | part(UNCHANGED, 12, 20)
    assert left([DEPLOYMENT, UNCHANGED], done) == pytest.approx(total(part(UNCHANGED, 20)))


def test_no_time_for_a_run_unlike_all_records() -> None:
    other = {f"new task {number} #1": (1.0, True) for number in range(5)}
    assert left([DEPLOYMENT, UNCHANGED], other) is None


def test_no_time_while_a_task_takes_much_longer_than_before() -> None:
    done = part(DEPLOYMENT, 0, 11)
    assert left([DEPLOYMENT], done, "task 11 #1", 69) == pytest.approx(total(part(DEPLOYMENT, 12)))
    assert left([DEPLOYMENT], done, "task 11 #1", 71) is None
    assert left([DEPLOYMENT], done, "new", 10) == pytest.approx(total(part(DEPLOYMENT, 11)))
    assert left([DEPLOYMENT], done, "new", 31) is None


def test_tasks_of_the_same_name_are_told_apart() -> None:
    now = 100.0
    clock = Clock(now=lambda: now)
    for changed in (True, False):
        clock.begin("play | task")
        clock.changed = changed
        now += 1.5
    clock.end()
    clock.end()
    assert clock.done == {"play | task #1": (1.5, True), "play | task #2": (1.5, False)}
    assert clock.elapsed() == 3.0


def test_a_new_run_replaces_those_like_it() -> None:
    slower = {task: (seconds * 1.2, changed) for task, (seconds, changed) in DEPLOYMENT.items()}
    assert progress.merged([UNCHANGED, DEPLOYMENT], slower) == [slower, UNCHANGED]
    assert progress.merged([DEPLOYMENT], UNCHANGED) == [UNCHANGED, DEPLOYMENT]
    # Half a run is not like the whole run.
    half = part(UNCHANGED, 0, 20)
    assert progress.merged([UNCHANGED], half) == [half, UNCHANGED]
    kinds: list[Run] = [{f"task {number} #1": (1.0, False)} for number in range(9)]
    assert progress.merged(kinds[1:], kinds[0]) == kinds[: progress.KEPT_RUNS]


def test_records_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directory" / "site.json"
    progress.write(path, [DEPLOYMENT, UNCHANGED])
    read = progress.read(path)
    assert read == [DEPLOYMENT, UNCHANGED] and list(read[0]) == list(DEPLOYMENT)


@pytest.mark.parametrize(
    "text",
    ["", "{", "3", "null", '{"runs": 3}', "[3]", '[{"task": [1.0]}]', '[{"task": ["soon", false]}]', "\udcff"],
)
def test_a_damaged_record_is_ignored_and_replaced(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert progress.read(path) == []
    progress.write(path, [UNCHANGED])
    assert progress.read(path) == [UNCHANGED]


def test_a_record_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    assert progress.read(tmp_path / "missing.json") == []
    (tmp_path / "file").write_text("")
    progress.write(tmp_path / "file" / "site.json", [UNCHANGED])
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


# ---------------------------------------------------------------- Ansible itself

# Warns, fails, changes, and waits for a file, as it is told. An action plugin: a module's Python takes longer to start
# than all that is looked at here.
ACTION = """
import os, time
from ansible.plugins.action import ActionBase

class ActionModule(ActionBase):
    _supports_check_mode = True

    def run(self, tmp=None, task_vars=None):
        want = self._task.args
        if "file" in want:
            open(want["file"] + ".waiting", "w").close()
        while "file" in want and not os.path.exists(want["file"]):
            time.sleep(0.02)
        result = {"changed": bool(want.get("changed"))}
        if result["changed"]:
            result["diff"] = {"before": "old\\n", "after": "new\\n"}
        if "warning" in want:
            result["warnings"] = [want["warning"]]
        if "failure" in want:
            result |= {"failed": True, "msg": want["failure"], "stderr": "the last line\\n"}
        return result
"""
PLAYBOOK = """
- name: First play
  hosts: all
  gather_facts: false
  tasks:
    - name: Say something
      ansible.builtin.debug: {msg: [one, two]}
    - name: Say more
      ansible.builtin.debug: {msg: "item {{ item }}"}
      loop: [1, 2]
    - name: Change nothing
      act: {warning: beware}
    - name: Change something
      act: {changed: true}
      notify: React
    - name: Change some items
      act: {changed: "{{ item > 1 }}"}
      loop: [1, 2, 3]
    - name: Skip
      act: {changed: true}
      when: false
    - name: Keep a secret
      act: {failure: s3cret}
      no_log: true
      ignore_errors: true
    - name: Fail for some items
      act: {failure: "{{ 'hidden by no_log' if item == 2 else omit }}"}
      loop: [1, 2]
      no_log: true
      ignore_errors: true
    - name: Repair
      block:
        - name: Break at first
          act: {failure: "first\\nsecond"}
      rescue:
        - name: Repaired
          act: {}
    - name: Try again
      act: {}
      register: result
      until: result.attempts > 1
      retries: 3
      delay: 0
  handlers:
    - name: React
      act: {changed: true}

- name: Nobody's play
  hosts: nobody
  gather_facts: false

- name: Second play
  hosts: all
  gather_facts: false
  tasks:
    - name: Break one host
      act: {failure: "a reason\\nlog line one\\nlog line two"}
      when: inventory_hostname == 'b'
"""
ENVIRONMENT = {
    "ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg"),
    "ANSIBLE_LOCALHOST_WARNING": "0",
    "TERM": "xterm-256color",
    "LC_ALL": "C.UTF-8",
}
UNWANTED = re.compile(r"ANSIBLE_|KILONOVA_|(NO_COLOR|FORCE_COLOR|PYTHONUNBUFFERED|COLUMNS|TERM)$")
COLUMNS = 100
TIMEOUT = 120


@pytest.fixture
def site(tmp_path: Path) -> Path:
    """A directory with two hosts, which are this computer."""
    (tmp_path / "action_plugins").mkdir()
    (tmp_path / "action_plugins" / "act.py").write_text(ACTION)
    python = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (tmp_path / "hosts").write_text(f"a {python}\nb {python}\n")
    (tmp_path / "play.yml").write_text(PLAYBOOK)
    return tmp_path


def environment(site: Path, **more: str) -> dict[str, str]:
    """Variables for Ansible, without those of whoever runs the tests."""
    inherited = {name: value for name, value in os.environ.items() if not UNWANTED.match(name)}
    return inherited | ENVIRONMENT | {"KILONOVA_PROGRESS_PROFILES": str(site / "profiles")} | more


def command(*arguments: str) -> list[str]:
    # One host after the other, so that all runs print the same.
    return [sys.executable, "-m", "ansible", "playbook", "-i", "hosts", "--forks=1", *arguments, "play.yml"]


def run_piped(site: Path, *arguments: str, **more: str) -> tuple[str, str]:
    """Run the playbook without a terminal. Returns what it printed to each stream."""
    done = subprocess.run(
        command(*arguments),
        cwd=site,
        env=environment(site, **more),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        timeout=TIMEOUT,
    )
    return done.stdout, done.stderr


class Terminal:
    """A terminal in which the playbook runs."""

    def __init__(self, site: Path, *arguments: str, **more: str) -> None:
        columns, variables = int(more.pop("columns", str(COLUMNS))), environment(site, **more)
        self.output = ""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, columns, 0, 0))
                os.chdir(site)
                os.execve(sys.executable, command(*arguments), variables)
            finally:
                os._exit(127)

    def read(self, seconds: float) -> bool:
        """Read what is printed within so many seconds. Returns whether there will be more."""
        if select.select([self.file], [], [], seconds)[0]:
            try:
                self.output += os.read(self.file, 65536).decode()
            except OSError:
                return False
        return True

    def expect(self, pattern: str, start: int = 0) -> int:
        """Read until a pattern is met. Returns where it ends."""
        deadline = time.monotonic() + TIMEOUT
        while not (match := re.compile(pattern, re.S).search(self.output, start)):
            more = self.read(1)
            assert more and time.monotonic() < deadline, f"{pattern} is not in {self.output[start:]}"
        return match.end()

    def wait_for(self, path: Path) -> None:
        """Read until there is a file."""
        deadline = time.monotonic() + TIMEOUT
        while not path.exists():
            assert self.read(0.1) and time.monotonic() < deadline, self.output

    def type(self, text: str) -> None:
        os.write(self.file, text.encode())

    def finish(self) -> int:
        """Read to the end. Returns the exit code."""
        deadline = time.monotonic() + TIMEOUT
        while self.read(1):
            assert time.monotonic() < deadline, self.output
        return os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])

    @property
    def frames(self) -> list[str]:
        """Each progress line that was drawn."""
        return [line for line in re.findall(r"\r([^\r\n\x1b]*)\x1b\[K", self.output) if line]

    @property
    def screen(self) -> list[str]:
        """What is to be seen in the end, without colours. Lines are as long as they were written."""
        lines, column = [""], 0
        for token in re.findall(r"\x1b\[[0-9;]*m|\x1b\[(?:\x1b\[)?K|\x1b\[(?=\r)|.", self.output, re.S):
            if token == "\r":
                column = 0
            elif token == "\n":
                lines.append("")
                # The terminal's driver sends a carriage return with it.
                column = 0
            elif token.endswith("K") and token != "K":
                lines[-1] = lines[-1][:column]
            elif not token.startswith("\x1b"):
                lines[-1] = lines[-1][:column].ljust(column) + token + lines[-1][column + 1 :]
                column += 1
        return lines


@contextmanager
def terminal(site: Path, *arguments: str, **more: str) -> Iterator[Terminal]:
    running = Terminal(site, *arguments, **more)
    try:
        yield running
    finally:
        try:
            # Not reaped yet, if it did not end by itself: then the number is still its own.
            if os.waitpid(running.pid, os.WNOHANG)[0] == 0:
                os.kill(running.pid, signal.SIGKILL)
                os.waitpid(running.pid, 0)
        except ChildProcessError:
            pass
        os.close(running.file)


def run_in_terminal(site: Path, *arguments: str, **more: str) -> Terminal:
    with terminal(site, *arguments, **more) as running:
        running.finish()
    return running


def test_output_without_a_terminal_is_the_default_callbacks(site: Path) -> None:
    ours = run_piped(site, "--diff")
    assert ours == run_piped(site, "--diff", ANSIBLE_STDOUT_CALLBACK="default")
    assert "TASK [Change something] ***" in ours[0] and "ok=10   changed=3 " in ours[0] and "\x1b" not in ours[0]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [([], {"KILONOVA_PLAIN_OUTPUT": "1"}), (["-v"], {})],
    ids=["asked for", "verbose"],
)
def test_plain_output_on_a_terminal_is_the_default_callbacks(
    site: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    ours = run_in_terminal(site, *arguments, **variables)
    assert ours.output == run_in_terminal(site, *arguments, **variables | {"ANSIBLE_STDOUT_CALLBACK": "default"}).output
    assert "TASK [Change something] ***" in ours.output and ours.frames == []


@pytest.mark.parametrize(
    ("terminal", "kind", "verbosity", "plain", "line"),
    [
        (True, "xterm", 0, False, True),
        (False, "xterm", 0, False, False),
        (True, "dumb", 0, False, False),
        (True, "xterm", 1, False, False),
        (True, "xterm", 0, True, False),
    ],
)
def test_a_line_needs_a_terminal_and_a_user_who_did_not_ask_for_more(
    monkeypatch: pytest.MonkeyPatch, terminal: bool, kind: str, verbosity: int, plain: bool, line: bool
) -> None:
    monkeypatch.setattr(progress.sys, "stdout", SimpleNamespace(isatty=lambda: terminal))
    monkeypatch.setattr(progress.context, "CLIARGS", {})
    monkeypatch.setenv("TERM", kind)
    callback: Any = SimpleNamespace(get_option=lambda name: plain, _display=SimpleNamespace(verbosity=verbosity))
    assert progress.CallbackModule.wants_line(callback) == line


def test_output_on_a_terminal(site: Path) -> None:
    running = run_in_terminal(site)
    plain = run_piped(site)[0]
    text = "\n".join(re.sub(r" \*{3,}$", "", line) for line in running.screen)
    # Messages, failures and the recap are the default callback's.
    for name in ("Say something", "Say more", "Break at first", "Break one host"):
        block = re.search(rf"^TASK \[{name}\].*?(?=^\n|\Z)", plain, re.M | re.S)
        assert block and re.sub(r" \*{3,}$", "", block[0].strip(), flags=re.M) in text
    assert "TASK [Keep a secret]\ntask path: " in text and "censored: " in text and text.count("...ignoring") == 4
    recap = re.search(r"^a  .*^b  .*?\n", plain, re.M | re.S)
    assert recap and recap[0] in text
    assert "a reason\n        log line one\n        log line two\n    stderr: |-\n        the last line\n" in text
    assert text.count("[WARNING]: beware") == 1
    # Everything else is one line.
    assert "  changed: Change something: a, b\n  changed: Change some items: a, b\n" in text
    assert "  changed: React: a, b\n" in text
    assert re.search(r"^First play: 20 ok, 6 changed, 2 failed, 0:\d\d\n", text, re.M)
    assert re.search(r"^Second play: 1 failed, 0:\d\d\n", text, re.M)
    hidden = ("Change nothing\n", "Skip", "Repaired", "RETRYING", "s3cret", "hidden by", "Nobody", "PLAY [", " | ")
    assert [words for words in hidden if words in text] == []
    assert "DEPRECATION" not in text
    assert text.index("PLAY RECAP") < text.index("HOSTS THAT FAILED")
    assert any(re.fullmatch(r"0:\d\d \| First play \| Change nothing \| a", frame) for frame in running.frames)
    assert running.output.isascii() and max(map(len, running.frames)) < COLUMNS
    # Failed runs are not recorded.
    assert not (site / "profiles").exists()


def test_a_narrow_terminal_shows_the_task_and_differences_above_it(site: Path) -> None:
    running = run_in_terminal(site, "--diff", "--limit=a", columns="26")
    assert any("| Change something" in frame for frame in running.frames)
    assert max(map(len, running.frames)) < 26
    diff = r"TASK \[Change something\] \*+\n--- before\n\+\+\+ after\n@@ -1 \+1 @@\n-old\n\+new\n"
    assert re.search(diff + r"\n  changed: Change something: a\n", "\n".join(running.screen))


def test_output_on_a_terminal_without_colours_in_json(site: Path) -> None:
    running = run_in_terminal(site, NO_COLOR="1", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert running.frames and not re.search(r"\x1b\[[0-9;]*m", running.output)
    text = "\n".join(running.screen)
    assert 'fatal: [b]: FAILED! => {"changed": false, "msg": "a reason\\nlog line one\\nlog line two"' in text
    assert f"task path: {site}/play.yml:" in text


def test_options_of_the_default_callback(site: Path) -> None:
    running = run_in_terminal(site, ANSIBLE_DISPLAY_SKIPPED_HOSTS="1", ANSIBLE_SHOW_TASK_PATH_ON_FAILURE="0")
    text = "\n".join(running.screen)
    assert "TASK [Break one host]" in text and "task path:" not in text
    # Not with the line, which would have nothing above it but unchanged tasks.
    assert "TASK [Change nothing]" not in text


def test_check_mode_is_marked(site: Path) -> None:
    running = run_in_terminal(site, "--check", "--limit=a")
    text = "\n".join(running.screen)
    assert "  would change: Change something: a\n" in text
    assert all(frame.startswith("CHECK MODE | ") for frame in running.frames)


LONG = """
- name: A play
  hosts: all
  gather_facts: false
  tasks:
    - name: Change it
      act: {changed: true}
    - name: Take long
      act: {file: "{{ playbook_dir }}/go"}
"""


def test_the_line_moves_while_a_task_runs_and_on_a_long_way(site: Path) -> None:
    (site / "play.yml").write_text(LONG)
    (site / "go").touch()
    run_piped(site)
    (site / "go").unlink()
    (profile,) = (site / "profiles").glob("play-*.json")
    (record,) = json.loads(profile.read_text())
    change, long = record
    assert (change, record[change][1]) == ("A play | Change it #1", True)
    assert (long, record[long][1]) == ("A play | Take long #1", False)
    record[long][0] = 240.0
    profile.write_text(json.dumps([record]))
    with terminal(site) as running:
        end = running.expect(r"\r0:0(\d), about 4 min left \| A play \| Take long \| a\x1b\[K")
        # Three more seconds in one task.
        for _ in range(3):
            end = running.expect(r"\r0:0\d, about 4 min left \| A play \| Take long \| a\x1b\[K", end)
        assert len({frame.partition(",")[0] for frame in running.frames if "Take long" in frame}) >= 3
        (site / "go").touch()
        assert running.finish() == 0
    assert [line for line in running.screen if line][:2] == ["  changed: Change it: a, b", running.screen[1]]
    assert re.fullmatch(r"A play: 4 ok, 2 changed, 0:\d\d", running.screen[1])


def test_partial_runs_are_not_recorded(site: Path) -> None:
    (site / "play.yml").write_text(LONG)
    (site / "go").touch()
    run_piped(site, "--start-at-task=Take long")
    assert not (site / "profiles").exists()
    run_piped(site, "--limit=a")
    run_piped(site, "--check")
    assert len(list((site / "profiles").iterdir())) == 2


def test_an_interrupt_leaves_the_changes_and_no_line(site: Path) -> None:
    # The first host is done at once.
    name = "{{ 'hosts' if inventory_hostname == 'a' else 'go' }}"
    task = f'    - name: Change it\n      act: {{changed: true, file: "{{{{ playbook_dir }}}}/{name}"}}\n'
    (site / "play.yml").write_text("- name: A play\n  hosts: all\n  gather_facts: false\n  tasks:\n" + task)
    with terminal(site) as running:
        # Not earlier: Python loses an interrupt that comes just when Ansible forks.
        running.wait_for(site / "go.waiting")
        running.expect(r"\| Change it \| b\x1b")
        running.type("\x03")
        assert running.finish() != 0
    # "^C" is the terminal's echo; the line that it was appended to is gone.
    assert sorted(line for line in running.screen if line) == [
        "  changed: Change it: a",
        "[ERROR]: User interrupted execution",
    ]


ASKING = """
- name: A play
  hosts: all
  gather_facts: false
  vars_prompt:
    - {name: answer, prompt: Your answer, private: false}
  tasks:
    - name: Repeat it
      ansible.builtin.debug: {msg: "answer={{ answer }}"}
    - name: Ask again
      ansible.builtin.pause: {prompt: Once more}
      register: asked
    - name: Repeat that
      ansible.builtin.debug: {msg: "again={{ asked.user_input }}"}
    - name: Wait
      ansible.builtin.pause: {seconds: 1}
- name: Second play
  hosts: all
  gather_facts: false
  vars_prompt:
    - {name: secret, prompt: Your secret}
  tasks:
    - name: Compare
      ansible.builtin.debug: {msg: "{{ secret | length }}"}
"""


def test_no_line_while_something_is_asked(site: Path) -> None:
    (site / "play.yml").write_text(ASKING)
    with terminal(site, "--limit=a") as running:

        def answer(prompt: str, text: str) -> None:
            end = running.expect(prompt)
            # Longer than two redraws, and at least one of them in another second.
            deadline = time.monotonic() + 1.5
            while time.monotonic() < deadline:
                running.read(0.1)
            assert running.output[end:].strip("\r\n") == ""
            running.type(text)

        answer("Your answer: ", "yes\n")
        answer("Once more:", "no\r")
        answer("Your secret: ", "123\n")
        assert running.finish() == 0
    text = "\n".join(running.screen)
    assert text.startswith("Your answer: yes\n")
    for message in ("answer=yes", "again=no", "3"):
        assert f"    msg: {message}\n" in text
    assert " | " not in text
    assert any("Repeat that" in frame for frame in running.frames)


def test_many_hosts(site: Path) -> None:
    python = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (site / "hosts").write_text("".join(f"host{number:02} {python}\n" for number in range(12)))
    tasks = "".join(
        f"    - name: Task {number}\n      act: {{warning: w{number}, changed: true}}\n" for number in range(4)
    )
    (site / "play.yml").write_text("- name: A play\n  hosts: all\n  gather_facts: false\n  tasks:\n" + tasks)
    running = run_in_terminal(site, "--forks=12", NO_COLOR="1")
    expected = [
        line for number in range(4) for line in (f"[WARNING]: w{number}", f"  changed: Task {number}: 12 hosts")
    ]
    assert running.screen[:8] == expected
    assert re.fullmatch(r"A play: 48 ok, 48 changed, 0:\d\d", running.screen[8])


def test_profile_tasks_works_beside_it(site: Path) -> None:
    (site / "play.yml").write_text(LONG)
    (site / "go").touch()
    variables = {
        "ANSIBLE_CALLBACKS_ENABLED": "ansible.posix.profile_tasks",
        "PROFILE_TASKS_TASK_OUTPUT_LIMIT": "all",
        "PROFILE_TASKS_SORT_ORDER": "none",
        "NO_COLOR": "1",
    }

    def names(output: str) -> list[str]:
        return re.findall(r"^(\w[\w ]+) -+ \d+\.\d\ds$", output.rpartition("TASKS RECAP")[2].replace("\r", ""), re.M)

    assert names(run_piped(site, **variables)[0]) == ["Change it", "Take long"]
    assert names("\n".join(run_in_terminal(site, **variables).screen)) == ["Change it", "Take long"]


def test_documentation() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "ansible", "doc", "-t", "callback", "--json", "progress"],
        cwd=PROJECT,
        env=os.environ | {"ANSIBLE_CONFIG": str(PROJECT / "ansible.cfg")},
        capture_output=True,
        text=True,
        check=True,
    )
    options: dict[str, Any] = json.loads(done.stdout)["progress"]["doc"]["options"]
    assert {"plain", "profiles", "display_skipped_hosts", "result_format"} <= set(options)
    (page,) = (PROJECT / "docs").glob("**/output.md")
    for name in ("plain", "profiles"):
        assert options[name]["env"][0]["name"] in page.read_text()
