# Copyright the Kilonova authors
# SPDX-License-Identifier: Apache-2.0
"""The output of a run: its parts, and Ansible itself with and without a terminal."""

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
from typing import Any

import pytest

from plugins.callback import progress
from plugins.callback.progress import Change, Guide, Recorder, Step, Tally, estimate

PROJECT = Path(__file__).resolve().parents[4]

# ---------------------------------------------------------------- text


@pytest.mark.parametrize(
    ("seconds", "text"), [(0, "0:00"), (59.9, "0:59"), (60, "1:00"), (754, "12:34"), (3723, "1:02:03")]
)
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
        (3590, "about 1 h 0 min left"),
        (4000, "about 1 h 7 min left"),
    ],
)
def test_time_left(seconds: float, text: str) -> None:
    assert progress.time_left(seconds) == text


@pytest.mark.parametrize(
    ("text", "width", "kept"),
    [
        ("abcdefgh", 8, "abcdefgh"),
        ("abcdefgh", 7, "abcd..."),
        ("abcdefgh", 3, "abc"),
        ("計算機計算", 9, "計算機..."),
        ("ab", 0, ""),
    ],
)
def test_cut(text: str, width: int, kept: str) -> None:
    assert progress.cut(text, width) == kept


def test_some_hosts() -> None:
    assert progress.some(["a", "b", "c"]) == "a, b, c"
    assert progress.some(["a", "b", "c", "d", "e"]) == "5 hosts: a, b and 3 more"


def test_progress_line() -> None:
    line = progress.progress(100, 151, 225, "Deploy the control plane", "keystone : Create it", ["ctl1"])
    assert line == "2:31, about 4 min left | Deploy the control plane | keystone : Create it | ctl1"
    assert progress.progress(80, 0, None, "", "", []) == "0:00"
    assert progress.progress(80, 5, None, "Play", "", [], check=True) == "CHECK MODE | 0:05 | Play"


def test_progress_line_shares_the_room_between_play_and_task() -> None:
    play = "Check everything that can be known before anything is changed"
    line = progress.progress(79, 3, None, play, "preflight : Check the host and its variables", ["ctl1", "cmp1"])
    assert line == "0:03 | Check everythin... | preflight : Check the host and its ... | ctl1, cmp1"
    many = progress.progress(79, 3, None, play, "task", [f"compute{number}.example.org" for number in range(20)])
    assert many == "0:03 | Check everything that can be known before anything ... | task | 20 hosts"


@pytest.mark.parametrize("width", [0, 1, 5, 20, 40, 79, 200])
@pytest.mark.parametrize("task", ["", "short", "計算" * 50, "two\nlines\x1b[2J\r" * 9])
def test_progress_line_fits(width: int, task: str) -> None:
    line = progress.progress(width, 151, 225, "A play " * 9, task, ["host" * 9, "b", "c", "d"], check=True)
    assert progress.cells(line) <= width
    assert line.isprintable()


def test_finished_play() -> None:
    tally = Tally("Prepare the\nhosts", False, started=10.0, hosts={"b", "a"}, ok=7, changed=2)
    assert tally.line(83.5) == "Prepare the hosts: a, b: 7 ok, 2 changed, 1:13"
    tally.failed = tally.unreachable = 1
    assert tally.line(10) == "Prepare the hosts: a, b: 7 ok, 2 changed, 1 failed, 1 unreachable, 0:00"
    assert Tally("Play", True, 0.0, {"a"}, 1).line(1) == "Play [CHECK MODE]: a: 1 ok, 0 changed, 0:01"
    assert Tally("Play", False, 0.0).line(1) is None
    assert Tally("Play", False, 0.0, matched=False).line(1) == "Play: no hosts matched"


def test_changed_task() -> None:
    assert Change("role : Write", False, {"b", "a"}).line() == "  changed: role : Write: a, b"
    assert Change("Write", True, {"a"}, 2, 3).line() == "  would change: Write: a (2 of 3 items)"


# ---------------------------------------------------------------- what is expected


def steps(seconds: float, changed: bool, count: int = 40) -> list[Step]:
    """A run of so many tasks, of which every other one changes something."""
    return progress.run(
        (f"play {number // 10}", f"task {number}", seconds if number % 2 else 0.3, changed and bool(number % 2))
        for number in range(count)
    )


DEPLOYMENT = steps(20.0, True)
UNCHANGED = steps(0.5, False)


def expected(records: list[list[Step]], done: list[Step], current: Step | None = None) -> float | None:
    guides = [Guide(record) for record in records]
    for step in done:
        for guide in guides:
            guide.follow(step)
    return estimate(guides, current)


def started(step: Step, seconds: float) -> Step:
    return step._replace(seconds=seconds)


def total(run: list[Step]) -> float:
    return sum(step.seconds for step in run)


def test_nothing_is_expected_without_a_record() -> None:
    assert expected([], DEPLOYMENT[:5], DEPLOYMENT[5]) is None


def test_the_record_tells_what_is_left() -> None:
    current = started(DEPLOYMENT[11], 5.0)
    assert expected([DEPLOYMENT], DEPLOYMENT[:11], current) == pytest.approx(15 + total(DEPLOYMENT[12:]))
    # Between two tasks.
    assert expected([DEPLOYMENT], DEPLOYMENT[:12]) == pytest.approx(total(DEPLOYMENT[12:]))


def test_a_deployment_is_no_guide_before_something_changed() -> None:
    assert expected([DEPLOYMENT], [], started(DEPLOYMENT[0], 0.1)) is None
    assert expected([DEPLOYMENT], DEPLOYMENT[:2], DEPLOYMENT[2]) is not None


@pytest.mark.parametrize("records", [[DEPLOYMENT, UNCHANGED], [UNCHANGED, DEPLOYMENT]])
def test_two_kinds_of_runs_do_not_spoil_each_other(records: list[list[Step]]) -> None:
    # At first it can be either.
    assert expected(records, [], started(UNCHANGED[0], 0.1)) is None
    assert expected(records, UNCHANGED[:1], started(UNCHANGED[1], 0.1)) is None
    for run in (DEPLOYMENT, UNCHANGED):
        assert expected(records, run[:8]) == pytest.approx(total(run[8:]))


def test_a_continued_deployment() -> None:
    records = [UNCHANGED, DEPLOYMENT]
    long, short = steps(20.0, True, 200), steps(0.5, False, 200)
    records = [short, long]
    continued = short[:80] + long[80:]
    assert expected(records, continued[:80]) == pytest.approx(total(short[80:]))
    # What changes tells against the one, what was unchanged before against the other.
    assert expected(records, continued[:110]) is None
    assert expected(records, continued[:170]) == pytest.approx(total(long[170:]))


def test_a_run_like_none_before() -> None:
    other = progress.run(("play", f"new task {number}", 1.0, False) for number in range(5))
    assert expected([DEPLOYMENT, UNCHANGED], other) is None


def test_a_task_that_takes_much_longer_than_ever() -> None:
    known = DEPLOYMENT[11]
    assert expected([DEPLOYMENT], DEPLOYMENT[:11], started(known, 60)) == pytest.approx(total(DEPLOYMENT[12:]))
    assert expected([DEPLOYMENT], DEPLOYMENT[:11], started(known, 75)) is None


def test_a_new_task_among_known_ones() -> None:
    new = Step("play 1", "new", 0, 10.0, False)
    assert expected([DEPLOYMENT], DEPLOYMENT[:11], new) == pytest.approx(total(DEPLOYMENT[11:]))
    assert expected([DEPLOYMENT], DEPLOYMENT[:11], started(new, 31)) is None


def test_records_that_agree() -> None:
    slower = [step._replace(seconds=step.seconds * 1.2) for step in DEPLOYMENT]
    assert expected([slower, DEPLOYMENT], DEPLOYMENT[:10]) == pytest.approx(total(slower[10:]))


def test_tasks_of_the_same_name_are_told_apart() -> None:
    run = progress.run([("play", "task", 1.0, False), ("play", "task", 2.0, False), ("other", "task", 3.0, False)])
    assert [step.number for step in run] == [0, 1, 0]
    assert expected([run], run[:1], started(run[1], 0.5)) == pytest.approx(4.5)


def test_recorder() -> None:
    now = 100.0
    recorder = Recorder([UNCHANGED], clock=lambda: now)
    recorder.play = "play 0"
    recorder.begin("task 0")
    now = 100.5
    assert recorder.current == Step("play 0", "task 0", 0, 0.5, False)
    recorder.changed = True
    recorder.begin("task 0")
    now = 103.0
    recorder.end()
    recorder.end()
    assert recorder.steps == [Step("play 0", "task 0", 0, 0.5, True), Step("play 0", "task 0", 1, 2.5, False)]
    assert recorder.elapsed == 3.0
    assert recorder.guides[0].difference == 1.0


# ---------------------------------------------------------------- records


def test_a_new_record_takes_the_place_of_its_kind() -> None:
    slower = [step._replace(seconds=step.seconds * 1.2) for step in DEPLOYMENT]
    assert progress.merged([UNCHANGED, DEPLOYMENT], slower) == [slower, UNCHANGED]
    assert progress.merged([DEPLOYMENT], UNCHANGED) == [UNCHANGED, DEPLOYMENT]
    # Half of a run is not like the whole, in neither direction.
    assert progress.merged([UNCHANGED], UNCHANGED[:20]) == [UNCHANGED[:20], UNCHANGED]
    kinds = [progress.run([("play", f"task {number}", 1.0, False)]) for number in range(9)]
    assert progress.merged(kinds[1:], kinds[0]) == kinds[: progress.KEPT_RUNS]


def test_records_are_read_as_written(tmp_path: Path) -> None:
    path = tmp_path / "new" / "directory" / "site.json"
    progress.write(path, {"playbook": "site.yml"}, [DEPLOYMENT, UNCHANGED])
    assert progress.read(path) == [DEPLOYMENT, UNCHANGED]
    assert [entry.name for entry in path.parent.iterdir()] == ["site.json"]
    assert json.loads(path.read_text())["playbook"] == "site.yml"
    assert path.stat().st_size < 40 * len(DEPLOYMENT + UNCHANGED)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"runs": 3}',
        '{"runs": [[["play", [["task", "soon", 0]]]]]}',
        '{"runs": [[["play", [["task", NaN, 0]]]]]}',
        '{"runs": [[["play", [["task", -1, 0]]]]]}',
        '{"runs": [[["play", [["task"]]]]]}',
        "\udcff",
    ],
)
def test_a_file_that_is_no_record(tmp_path: Path, text: str) -> None:
    path = tmp_path / "site.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    assert progress.read(path) == []
    progress.write(path, {}, [UNCHANGED])
    assert progress.read(path) == [UNCHANGED]


def test_a_record_that_cannot_be_written_is_no_failure(tmp_path: Path) -> None:
    assert progress.read(tmp_path / "missing.json") == []
    (tmp_path / "file").write_text("")
    progress.write(tmp_path / "file" / "site.json", {}, [UNCHANGED])
    # The name is taken by a directory: the new file must not be left behind.
    (tmp_path / "site.json" / "sub").mkdir(parents=True)
    progress.write(tmp_path / "site.json", {}, [UNCHANGED])
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "site.json"]


def test_the_oldest_records_are_forgotten(tmp_path: Path) -> None:
    for number in range(progress.KEPT_PROFILES + 2):
        path = tmp_path / f"{number}.json"
        progress.write(path, {}, [])
        os.utime(path, (number, number))
    progress.write(tmp_path / "new.json", {}, [])
    kept = {path.stem for path in tmp_path.iterdir()}
    assert kept == {"new", *map(str, range(3, progress.KEPT_PROFILES + 2))}


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
    - name: Include
      ansible.builtin.include_tasks: more.yml
    - name: Repair
      block:
        - name: Break at first
          act: {failure: "first\\nsecond"}
      rescue:
        - name: Repaired
          act: {}
    # On one host: Ansible tells of the second one's attempts before or after the first one's result.
    - name: Try again
      when: inventory_hostname == 'a'
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
    (tmp_path / "more.yml").write_text("- name: Included\n  act: {changed: true}\n")
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
        variables = environment(site, **{"KILONOVA_PROGRESS_REFRESH": "0.1"} | more)
        self.output = ""
        self.pid, self.file = pty.fork()
        if self.pid == 0:
            try:
                fcntl.ioctl(0, termios.TIOCSWINSZ, struct.pack("HHHH", 40, COLUMNS, 0, 0))
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
    assert "TASK [Change something] ***" in ours[0] and "ok=11   changed=4 " in ours[0] and "\x1b" not in ours[0]


@pytest.mark.parametrize(
    ("arguments", "variables"),
    [([], {"KILONOVA_PLAIN_OUTPUT": "1"}), (["-v"], {}), ([], {"TERM": "dumb"})],
    ids=["asked for", "verbose", "dumb"],
)
def test_plain_output_on_a_terminal_is_the_default_callbacks(
    site: Path, arguments: list[str], variables: dict[str, str]
) -> None:
    ours = run_in_terminal(site, *arguments, **variables)
    assert ours.output == run_in_terminal(site, *arguments, **variables | {"ANSIBLE_STDOUT_CALLBACK": "default"}).output
    assert "TASK [Change something] ***" in ours.output and ours.frames == []


def test_output_on_a_terminal(site: Path) -> None:
    running = run_in_terminal(site, "--diff")
    plain = run_piped(site)[0]
    text = "\n".join(re.sub(r" \*{3,}$", "", line) for line in running.screen)
    # Messages, failures and the recap are the default callback's.
    for name in ("Say something", "Say more", "Break at first", "Break one host"):
        block = re.search(rf"^TASK \[{name}\].*?(?=^\n|\Z)", plain, re.M | re.S)
        assert block and re.sub(r" \*{3,}$", "", block[0].strip(), flags=re.M) in text
    assert "TASK [Keep a secret]\ntask path: " in text and "censored: " in text and text.count("...ignoring") == 2
    recap = re.search(r"^a  .*^b  .*?\n", plain, re.M | re.S)
    assert recap and recap[0] in text
    assert "a reason\n        log line one\n        log line two\n    stderr: |-\n        the last line\n" in text
    assert text.count("[WARNING]: beware") == 1
    # Everything else is one line each.
    diff = "--- before\n+++ after\n@@ -1 +1 @@\n-old\n+new\n\n"
    both = f"  a:\n{diff}  b:\n{diff}"
    assert f"  changed: Change something: a, b\n{both}  changed: Change some items: a, b (4 of 6 items)\n  a:" in text
    assert f"  changed: Included: a, b\n{both}" in text and f"  changed: React: a, b\n{both}" in text
    assert re.search(
        r"^First play: a, b: 19 ok, 8 changed, 2 failed, 0:\d\d\nNobody's play: no hosts matched\n", text, re.M
    )
    assert re.search(r"^Second play: b: 0 ok, 0 changed, 1 failed, 0:\d\d\n", text, re.M)
    for hidden in ("Change nothing\n", "Skip", "Repaired", "included:", "RETRYING", "s3cret", "PLAY [", " | "):
        assert hidden not in text
    assert text.index("PLAY RECAP") < text.index("HOSTS THAT FAILED")
    assert any(re.fullmatch(r"0:\d\d \| First play \| Change nothing \| a", frame) for frame in running.frames)
    # Ansible may start the second host before it has told of the first one's last attempt.
    again = re.compile(r"0:\d\d \| First play \| Try again \(3 retries left\) \| a(, b)?")
    assert any(again.fullmatch(frame) for frame in running.frames)
    assert running.output.isascii() and max(map(len, running.frames)) < COLUMNS


def test_output_on_a_terminal_without_colours_in_json(site: Path) -> None:
    running = run_in_terminal(site, NO_COLOR="1", ANSIBLE_CALLBACK_RESULT_FORMAT="json")
    assert running.frames and not re.search(r"\x1b\[[0-9;]*m", running.output)
    text = "\n".join(running.screen)
    assert 'fatal: [b]: FAILED! => {"changed": false, "msg": "a reason\\nlog line one\\nlog line two"' in text
    assert f"task path: {site}/play.yml:" in text


def test_options_of_the_default_callback(site: Path) -> None:
    running = run_in_terminal(site, ANSIBLE_DISPLAY_SKIPPED_HOSTS="1", ANSIBLE_SHOW_TASK_PATH_ON_FAILURE="0")
    text = "\n".join(running.screen)
    assert "TASK [Skip]" in text and "skipping: [a]\nskipping: [b]\n" in text
    assert "task path:" not in text
    assert "TASK [Change nothing]" not in text


def test_check_mode_is_marked(site: Path) -> None:
    running = run_in_terminal(site, "--check")
    text = "\n".join(running.screen)
    assert text.startswith("\nDRY RUN ***")
    assert "  would change: Change something: a, b\n" in text
    assert "\nFirst play [CHECK MODE]: a, b: " in text
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
    record = json.loads(profile.read_text())
    assert record["hosts"] == ["a", "b"] and record["playbook"] == str(site / "play.yml")
    ((_, tasks),) = record["runs"][0]
    assert [(name, changed) for name, _, changed in tasks] == [("Change it", 1), ("Take long", 0)]
    tasks[1][1] = 240.0
    profile.write_text(json.dumps(record))
    with terminal(site, KILONOVA_PROGRESS_REFRESH="1") as running:
        end = running.expect(r"\r0:0(\d), about 4 min left \| A play \| Take long \| a\x1b\[K")
        # Three more seconds in one task.
        for _ in range(3):
            end = running.expect(r"\r0:0\d, about 4 min left \| A play \| Take long \| a\x1b\[K", end)
        assert len({frame.partition(",")[0] for frame in running.frames if "Take long" in frame}) >= 3
        (site / "go").touch()
        assert running.finish() == 0
    assert [line for line in running.screen if line][:2] == ["  changed: Change it: a, b", running.screen[1]]
    assert re.fullmatch(r"A play: a, b: 4 ok, 2 changed, 0:\d\d", running.screen[1])


def test_failed_and_partial_runs_are_not_recorded(site: Path) -> None:
    run_piped(site)
    assert not (site / "profiles").exists()
    (site / "play.yml").write_text(LONG)
    (site / "go").touch()
    run_piped(site, "--start-at-task=Take long")
    assert not (site / "profiles").exists()
    run_piped(site, "--limit=a")
    run_piped(site, "--check")
    assert len(list((site / "profiles").iterdir())) == 2


def test_an_interrupt_leaves_no_line_behind(site: Path) -> None:
    (site / "play.yml").write_text(LONG)
    with terminal(site, KILONOVA_PROGRESS_REFRESH="0.01") as running:
        # Not earlier: Python loses an interrupt that comes just when Ansible forks.
        running.wait_for(site / "go.waiting")
        running.type("\x03")
        assert running.finish() != 0
    # "^C" is the terminal's echo; the line that it was appended to is gone.
    assert [line for line in running.screen if line] == [
        "  changed: Change it: a, b",
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
    with terminal(site, "--limit=a", KILONOVA_PROGRESS_REFRESH="0.02") as running:

        def answer(prompt: str, text: str) -> None:
            end = running.expect(prompt)
            # Many times the time between two redraws.
            deadline = time.monotonic() + 0.5
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
    assert any("Wait" in frame for frame in running.frames)


def test_many_hosts_with_quick_redraws(site: Path) -> None:
    python = f"ansible_connection=local ansible_python_interpreter={sys.executable}"
    (site / "hosts").write_text("".join(f"host{number:02} {python}\n" for number in range(12)))
    tasks = "".join(
        f"    - name: Task {number}\n      act: {{warning: w{number}, changed: true}}\n" for number in range(4)
    )
    (site / "play.yml").write_text("- name: A play\n  hosts: all\n  gather_facts: false\n  tasks:\n" + tasks)
    running = run_in_terminal(site, "--forks=12", KILONOVA_PROGRESS_REFRESH="0.01", NO_COLOR="1")
    hosts = "12 hosts: host00, host01 and 10 more"
    expected = [line for number in range(4) for line in (f"[WARNING]: w{number}", f"  changed: Task {number}: {hosts}")]
    assert running.screen[:8] == expected
    assert re.fullmatch(rf"A play: {hosts}: 48 ok, 48 changed, 0:\d\d", running.screen[8])


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
    assert {"plain", "refresh", "profiles", "display_skipped_hosts", "result_format"} <= set(options)
    text = (PROJECT / "docs" / "operate" / "output.md").read_text()
    for name in ("plain", "refresh", "profiles"):
        assert options[name]["env"][0]["name"] in text
