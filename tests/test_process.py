"""The command as a process: streams closed or full, readers that go, interruptions, pipes, and bench's own process.

What is started here imports no torch where that can be helped, so that it is quick.
"""

import contextlib
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from hired.bench import memory
from hired.bench.settings import Arm, Scene, Settings
from hired.errors import ImageError
from hired.images import load

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="streams and signals as on Linux")

LONG = """
import sys
import hired.cli.models
from hired.cli import main
hired.cli.models.run = lambda: print("family\\n" * 100_000)
sys.exit(main())
"""
"""`hired models`, which then prints more than a pipe holds."""


def shell(words: str, *arguments: object, code: str = "", **options: Any) -> subprocess.CompletedProcess[str]:
    """Runs a line of the shell, in which $H is the command, or `code` in its place."""
    start = [sys.executable, *(["-c", code] if code else ["-m", "hired.cli"])]
    places = " ".join(f'"${{{i}}}"' for i in range(1, len(start) + 1))
    line = words.replace("$H", places)
    return subprocess.run(
        ["bash", "-c", line, "bash", *start, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        errors="surrogateescape",
        **options,
    )


@pytest.mark.parametrize(
    ("words", "code"), [("$H models | head -1", LONG), ("$H --help | true", ""), ("$H | true", "")]
)
def test_a_reader_that_goes_is_no_error(words: str, code: str) -> None:
    done = shell(f"{words}; echo ${{PIPESTATUS[0]}}", code=code)
    assert (done.stdout.splitlines()[-1], done.stderr) == ("0", "")


@pytest.mark.parametrize("words", ["$H --version", "$H --help", "$H models"])
def test_a_full_disk_behind_standard_output_is_one_error(words: str) -> None:
    done = shell(f"{words} > /dev/full", code=LONG if "models" in words else "")
    assert done.returncode == 2
    assert done.stderr == "hired: cannot write to standard output: No space left on device\n"


def test_a_closed_standard_output_is_one_error() -> None:
    done = shell("$H --version >&-")
    assert done.returncode == 2
    assert done.stderr.startswith("hired: standard output is closed")
    assert done.stderr.count("\n") == 1


def test_a_closed_standard_input_is_only_missed_where_it_is_read() -> None:
    assert shell("$H --version <&-").returncode == 0
    done = shell("$H <&-", code="from hired.images import load; load('-')")
    assert "ImageError: standard input is closed: pipe a picture into it" in done.stderr


@pytest.mark.parametrize("where", ["&-", "/dev/full"])
def test_a_standard_error_that_cannot_be_written_changes_no_exit_code(where: str) -> None:
    done = shell(f"$H models more 2>{where}")
    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")
    assert shell(f"$H --version 2>{where}").returncode == 0


def test_all_streams_closed() -> None:
    assert shell("$H models more <&- >&- 2>&-").returncode == 2


def test_letters_that_the_terminal_lacks_are_written_another_way() -> None:
    code = "import hired.cli.models as m; from hired.cli import main; m.run = lambda: print('\\xe9 \\udcff'); main()"
    done = shell("PYTHONIOENCODING=ascii $H models", code=code)
    assert (done.stdout, done.stderr) == ("\\xe9 \\udcff\n", "")


INTERRUPTED = """
import os, signal, sys

class Finder:
    def find_spec(self, name, path=None, target=None):
        if name == NAME:
            sys.meta_path.remove(self)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            finally:
                if SWALLOW:
                    raise ImportError("half an import")

sys.meta_path.insert(0, Finder())
from hired.cli import main
sys.exit(main(None))
"""


@pytest.mark.parametrize(
    ("name", "swallow"),
    [
        ("hired.cli.process", False),
        ("typer", False),
        ("hired.cli.app", True),
        ("hired.cli.ask", False),
        ("PIL.Image", True),
        ("numpy", False),
    ],
)
def test_an_interruption_while_importing_is_no_traceback(name: str, swallow: bool, tmp_path: Path) -> None:
    code = INTERRUPTED.replace("NAME", repr(name)).replace("SWALLOW", str(swallow))
    done = shell("$H ask page.png What", code=code, cwd=tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (130, "", "")


def test_a_fault_of_the_library_is_one_line_and_its_traceback_can_be_had() -> None:
    code = "import sys, hired.cli.models as m; from hired.cli import main; m.run = lambda: 1 / 0; sys.exit(main())"
    done = shell("$H models", code=code)
    assert (done.returncode, done.stdout, done.stderr.count("\n")) == (2, "", 1)
    assert "ZeroDivisionError" in done.stderr
    assert "Traceback" in shell("HIRED_TRACEBACK=1 $H models", code=code).stderr


def test_a_pipe_without_a_writer_is_an_error(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ImageError, match="a pipe that nobody writes to"):
        load(tmp_path / "pipe")


def test_a_pipe_with_a_writer_is_read_to_its_end(tmp_path: Path) -> None:
    Image.new("RGB", (300, 200), (1, 2, 3)).save(tmp_path / "page.bmp")  # larger than a pipe
    done = shell(
        "$H <(sleep 0.2; head -c 100000 page.bmp; sleep 0.2; tail -c +100001 page.bmp)",
        code="import sys; from hired.images import load; print(load(sys.argv[1]).getpixel((299, 0)))",
        cwd=tmp_path,
    )
    assert (done.stdout, done.stderr) == ("(1, 2, 3)\n", "")


PARENT = """
from hired.bench import memory
started = memory.subprocess.Popen

def start(command, **options):
    process = started(command, **options)
    print(process.pid, flush=True)
    return process

memory.subprocess.Popen = start
memory._answer("{}")
"""
"""Starts the process that measures memory, and says its number."""


def gone(pid: int) -> bool:
    """Whether a process has ended, within ten seconds."""
    for _ in range(1000):
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z":
                time.sleep(0.01)
                continue
        return True
    return False


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL])
def test_the_process_that_measures_memory_ends_with_the_one_that_started_it(
    number: signal.Signals, tmp_path: Path
) -> None:
    begun = tmp_path / "begun"
    (tmp_path / "torch.py").write_text(f"import time; open({str(begun)!r}, 'w'); time.sleep(60)")
    places = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": places},
    )
    assert parent.stdout is not None
    with parent.stdout:
        pid = int(parent.stdout.readline())
        while not begun.exists():
            assert parent.poll() is None
            time.sleep(0.01)
        parent.send_signal(number)
        parent.wait(timeout=10)
        assert gone(pid)


def test_a_process_that_measures_memory_and_is_killed_at_once_is_out_of_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    started = subprocess.Popen

    def start(command: list[str], **options: Any) -> subprocess.Popen[bytes]:
        return started(
            [sys.executable, "-c", "import os; print('loaded', flush=True); os.kill(os.getpid(), 9)"], **options
        )

    monkeypatch.setattr(memory.subprocess, "Popen", start)
    assert memory.fresh(Settings(), Scene((64, 64), 1), Arm(0.2), 1) is None
