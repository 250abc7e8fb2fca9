"""Servers that a process starts for itself, with a program in the place of vLLM: they come up, are used, and end."""

import json
import os
import signal
import subprocess
import sys
import textwrap
import time
import urllib.error
import urllib.request
from dataclasses import replace
from pathlib import Path

import pytest

from common.experiments.errors import UserError
from common.models import serving
from common.models.build import build
from common.models.openai_lm import OpenAILM
from common.models.settings import SHIPPED, LanguageModelSettings

PROGRAM = '''#!{python}
"""Lists one model to whoever has the key; has a child, as vLLM has; `trouble` says what goes wrong."""
import http.server, json, os, pathlib, signal, subprocess, sys
option = lambda name: sys.argv[sys.argv.index(f"--{{name}}") + 1]
here = pathlib.Path(__file__).parent
child = subprocess.Popen(["sleep", "1000"])
signal.signal(signal.SIGTERM, lambda *_: (child.kill(), os._exit(0)))  # as vLLM ends what it started
with open(here / "starts", "a") as starts:
    starts.write(json.dumps({{"pid": os.getpid(), "child": child.pid, "arguments": sys.argv[1:]}}) + "\\n")
trouble = (here / "trouble").read_text()
if trouble == "dies":
    sys.exit("line one\\nValueError: no such architecture")
if trouble == "port":
    (here / "trouble").write_text("")
    sys.exit("OSError: [Errno 98] Address already in use")
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        known = self.headers["Authorization"] == "Bearer " + os.environ["VLLM_API_KEY"]
        self.send_response(200 if known else 401)
        self.end_headers()
        entry = {{"id": option("served-model-name"), "object": "model", "created": 0, "owned_by": "vllm"}}
        self.wfile.write(json.dumps({{"object": "list", "data": [entry | {{"max_model_len": 77}}]}}).encode())
if trouble == "silent":
    import time; time.sleep(1000)
http.server.HTTPServer((option("host"), int(option("port"))), Handler).serve_forever()
'''
MODEL = LanguageModelSettings("microlm", backend="served", context=512, memory=0.25)


@pytest.fixture
def program(tmp_path, monkeypatch):
    """Folder of a `vllm` that comes first on PATH."""
    path = tmp_path / "bin" / "vllm"
    path.parent.mkdir()
    path.write_text(PROGRAM.format(python=sys.executable))
    path.chmod(0o755)
    (path.parent / "trouble").touch()
    monkeypatch.setenv("PATH", f"{path.parent}:{os.environ['PATH']}")
    monkeypatch.setattr(serving, "LOOK", 0.05)
    yield path.parent
    serving.end_all()


def starts(program: Path) -> list[dict]:
    return [json.loads(line) for line in (program / "starts").read_text().splitlines()]


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except FileNotFoundError:
        return False


def kill(pid: int) -> None:
    """End a process outright and wait until it has."""
    os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + 60
    while alive(pid) and time.monotonic() < deadline:
        time.sleep(0.02)


def ended(program: Path, timeout: float = 60) -> bool:
    """Whether all servers and their children end in time."""
    pids = [start[name] for start in starts(program) for name in ("pid", "child")]
    deadline = time.monotonic() + timeout
    while any(map(alive, pids)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return not any(map(alive, pids))


def test_a_server_lives_as_long_as_its_block_and_answers_to_our_key_alone(program):
    with serving.served(MODEL) as url:
        assert url.startswith("http://127.0.0.1:")
        lm = OpenAILM(url, "microlm", key_variable=serving.KEY)
        assert (lm.vllm, lm.context) == (True, 77)
        lm.close()
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(f"{url}/models")
        assert alive(starts(program)[0]["child"])
    assert ended(program)


def test_vllm_is_told_what_the_settings_say(program, monkeypatch):
    with serving.served(MODEL):
        pass
    found = starts(program)[0]["arguments"]
    assert found[:2] == ["serve", str(SHIPPED["microlm"])]
    told = dict(zip(found[2::2], found[3::2], strict=False))
    assert (told["--max-model-len"], told["--kv-cache-memory-bytes"], told["--dtype"]) == (
        "512",
        "250000000",
        "float32",
    )
    assert json.loads(told["--compilation-config"]) == {"custom_ops": ["-rotary_embedding"]}  # LFM2 on a CPU
    assert told["--generation-config"] == "vllm" and "--enforce-eager" in found
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    on_gpus = serving.options(replace(MODEL, context=0, memory=0.0, gpus=2), SHIPPED["microlm"])
    assert on_gpus[on_gpus.index("--tensor-parallel-size") + 1] == "2"
    assert not {"--max-model-len", "--kv-cache-memory-bytes", "--compilation-config", "--enforce-eager"} & {*on_gpus}


def test_models_of_one_cell_share_a_server_until_the_cell_ends(program):
    one, other = build(MODEL), build(replace(MODEL, concurrency=3))
    assert len(starts(program)) == 1 and one.revision.startswith("sha256:") and other.context == 77
    assert build(replace(MODEL, context=256)).url != one.url
    serving.end_all()
    assert ended(program)
    build(MODEL)
    assert len(starts(program)) == 3


def test_a_server_that_died_is_started_again_and_its_end_is_shown(program, capfd):
    first = build(MODEL)
    kill(starts(program)[0]["pid"])
    second = build(MODEL)
    assert "ended by itself: SIGKILL" in capfd.readouterr().err
    assert first.url != second.url and len(starts(program)) == 2
    kill(starts(program)[1]["pid"])
    serving.end_all()
    assert "ended by itself: SIGKILL" in capfd.readouterr().err
    assert ended(program)


def test_a_server_that_does_not_come_up_shows_its_last_lines(program):
    (program / "trouble").write_text("dies")
    with pytest.raises(RuntimeError, match=r"did not come up: exit code 1\n(.*\n)*ValueError: no such architecture"):
        serving.start(MODEL)
    (program / "trouble").write_text("silent")
    with pytest.raises(RuntimeError, match=r"did not answer in 1 s"):
        serving.start(MODEL, patience=1)
    assert ended(program)


def test_a_port_that_is_taken_meanwhile_is_given_up_for_another(program, monkeypatch):
    (program / "trouble").write_text("port")
    with serving.served(MODEL) as url:
        assert len(starts(program)) == 2
        port = int(url.removesuffix("/v1").rsplit(":", 1)[1])
        ports, find = [port], serving._free_port
        monkeypatch.setattr(serving, "_free_port", lambda: ports.pop() if ports else find())
        monkeypatch.setenv(serving.KEY, "of another process")
        with serving.served(MODEL) as other:
            assert other != url
    assert ended(program)


def test_no_server_outlives_us(program):
    """A process that is killed outright."""
    code = """
        import os
        from common.models import serving
        from common.models.settings import LanguageModelSettings
        serving.url_of(LanguageModelSettings("microlm", backend="served"))
        os.kill(os.getpid(), 9)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(code)], timeout=200)
    assert len(starts(program)) == 1
    assert ended(program)


def test_the_log_is_kept_where_it_is_wanted(program, tmp_path):
    (program / "trouble").write_text("dies")
    with pytest.raises(RuntimeError):
        serving.start(MODEL, tmp_path / "server.log")
    assert "no such architecture" in (tmp_path / "server.log").read_text()


def test_without_vllm_one_line_says_how_to_get_it(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(sys, "prefix", str(tmp_path / "venv"))
    with pytest.raises(UserError, match="no vLLM here to serve 'microlm': pip install"):
        build(MODEL)


def test_an_unknown_model_is_found_before_a_server_is_started(program):
    with pytest.raises(UserError, match="'nobody/nothing' is not on this machine"):
        build(replace(MODEL, name="nobody/nothing"))
    assert not (program / "starts").exists()
