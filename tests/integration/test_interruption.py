"""Crashes, Ctrl-C, kill -9, two commands at once, full and read-only disks: nothing is lost, nothing runs twice."""

import os
import random
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

from tests.conftest import PATIENCE, Checkout, make_checkout

pytestmark = pytest.mark.integration

SLOW = ["settings.seconds=0.05", "settings.shared=true", "--seeds", "6"]  # 12 cells of a quarter of a second


def make(path: Path) -> Checkout:
    made = make_checkout(path)
    (made.root / "configs" / "tracking" / "local.yaml").write_text('uri: "off"\n')
    return made


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory):
    """Figures of a table that nothing interrupted."""
    checkout = make(tmp_path_factory.mktemp("undisturbed") / "checkout")
    assert checkout.table(*SLOW).returncode == 0
    return checkout.results()


def starts(checkout: Checkout) -> dict[str, int]:
    """Key -> how often the cell's run function was entered."""
    return {cell.name: len((cell / "started.log").read_text().split()) for cell in checkout.cells if
            (cell / "started.log").exists()}  # fmt: skip


def wait_for_cells(checkout: Checkout, count: int, timeout: float = PATIENCE) -> None:
    deadline = time.monotonic() + timeout
    while len(checkout.results()) < count:
        assert time.monotonic() < deadline, f"{len(checkout.results())} of {count} cells after {timeout} s"
        time.sleep(0.02)


def no_process_left(checkout: Checkout) -> bool:
    """Workers of the checkout's commands end with them."""
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if str(checkout.root) not in _working_folders():
            return True
        time.sleep(0.1)
    return False


def _working_folders() -> set[str]:
    """Working folders of all live workers on this machine."""
    found = set()
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"common.experiments.worker" in (process / "cmdline").read_bytes():
                found.add(os.readlink(process / "cwd"))
        except OSError:
            continue
    return found


def test_kill_nine_at_five_random_moments_then_the_same_figures_to_the_bit(tmp_path, undisturbed):
    rng = random.Random(0)
    checkout = make(tmp_path / "checkout")
    finished: dict[str, int] = {}
    for _ in range(5):
        process = checkout.start("table", "lab/main", *SLOW)
        wait_for_cells(checkout, min(11, len(checkout.results()) + 1))
        time.sleep(rng.uniform(0.0, 0.4))
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        assert no_process_left(checkout)
        counts = starts(checkout)
        for key in finished:
            assert counts[key] == finished[key], "a finished cell was run again"
        finished = {key: counts[key] for key in checkout.results()}
    done = checkout.table(*SLOW)
    assert done.returncode == 0, done.stdout + done.stderr
    assert checkout.results() == undisturbed
    counts = starts(checkout)
    assert all(counts[key] == finished[key] for key in finished)
    pieces = [path for path in (checkout.root / "runs/lab/artifacts").glob("start-*") if path.is_dir()]
    assert len([path for path in pieces if not path.name.endswith(".partial")]) == 2


def test_ctrl_c_says_one_line_and_the_same_command_goes_on(tmp_path, undisturbed):
    checkout = make(tmp_path / "checkout")
    checkout.hold(3)
    process = checkout.start("table", "lab/main", *SLOW)
    wait_for_cells(checkout, 3)
    os.kill(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode != 0
    assert len(err.splitlines()) == 1 and "of 12 cells done; the same command goes on from there" in err
    assert no_process_left(checkout)
    checkout.release()
    kept = checkout.results()
    assert "12 cells" in checkout.repro("status").stdout
    again = checkout.table(*SLOW)
    assert f"{len(kept)} of 12 cells done" in again.stdout
    assert checkout.results() == undisturbed


def test_two_tables_at_once_share_the_work(tmp_path, undisturbed):
    checkout = make(tmp_path / "checkout")
    both = [checkout.start("table", "lab/main", *SLOW) for _ in range(2)]
    ends = [process.communicate(timeout=PATIENCE) for process in both]
    assert [process.returncode for process in both] == [0, 0], ends
    assert checkout.results() == undisturbed
    assert set(starts(checkout).values()) == {1}


def test_a_second_command_takes_over_the_cells_of_a_killed_one(tmp_path, undisturbed):
    checkout = make(tmp_path / "checkout")
    checkout.hold(3)
    first = checkout.start("table", "lab/main", *SLOW)
    wait_for_cells(checkout, 1)
    second = checkout.start("table", "lab/main", *SLOW)
    wait_for_cells(checkout, 3)
    os.killpg(first.pid, signal.SIGKILL)
    checkout.release()
    out, err = second.communicate(timeout=PATIENCE)
    assert second.returncode == 0, out + err
    assert checkout.results() == undisturbed


def test_a_changed_source_file_never_mixes_old_and_new_code(tmp_path, undisturbed):
    checkout = make(tmp_path / "checkout")
    checkout.hold(1)
    process = checkout.start("table", "lab/main", "--workers", "1", *SLOW)
    wait_for_cells(checkout, 1)
    run = checkout.root / "projects/lab/run.py"
    run.write_text(run.read_text().replace("rng.normal() +", "2 * rng.normal() +"))
    checkout.release()
    process.communicate(timeout=PATIENCE)  # its worker holds the old code
    old = checkout.results()
    assert old == {key: undisturbed[key] for key in old}
    assert checkout.table(*SLOW).returncode == 0
    new = {key: metrics for key, metrics in checkout.results().items() if key not in old}
    assert len(new) == 12
    assert not {metrics["score"] for metrics in new.values()} & {metrics["score"] for metrics in undisturbed.values()}


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="mounting a small tmpfs needs root")
def test_a_full_disk_is_one_clear_line_and_loses_nothing(tmp_path, undisturbed):
    checkout = make(tmp_path / "checkout")
    small = checkout.root / "runs"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        done = checkout.table(*SLOW)
        assert done.returncode != 0
        text = done.stdout + done.stderr
        assert "No space left on device" in text and "Traceback" not in text
        kept = checkout.results()
        for key, metrics in kept.items():
            assert metrics == undisturbed[key]
        subprocess.run(["mount", "-o", "remount,size=20m", small], check=True)
        again = checkout.table(*SLOW)
        assert again.returncode == 0, again.stdout + again.stderr
        assert checkout.results() == undisturbed
    finally:
        subprocess.run(["umount", small], check=True)


@pytest.mark.skipif(os.geteuid() != 0 or shutil.which("mount") is None, reason="a read-only mount needs root")
def test_a_read_only_folder_is_one_clear_line(tmp_path):
    checkout = make(tmp_path / "checkout")
    small = checkout.root / "runs"
    small.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "ro", "tmpfs", small], capture_output=True).returncode:
        pytest.skip("this machine does not allow mounts")
    try:
        done = checkout.table(*SLOW)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1 and "Read-only file system" in done.stderr
    finally:
        subprocess.run(["umount", small], check=True)
