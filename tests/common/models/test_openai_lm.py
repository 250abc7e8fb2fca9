"""The HTTP backend against a small server of the test's own: retries, failures in one line, what is sent."""

import json
import threading
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from common.experiments.errors import UserError
from common.models.language_model import Sampling, request_seed
from common.models.openai_lm import OpenAILM


class Server:
    """Answers with what `reply(body, count)` returns: (status, body); remembers what was asked."""

    def __init__(self) -> None:
        self.asked: list[dict] = []
        self.keys: list[str] = []
        self.at_once = self.most_at_once = 0
        self.reply: Callable[[dict, int], tuple[int, dict]] = lambda body, count: (200, completion("fine"))
        server = self
        lock = threading.Lock()

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self):
                self.send(200, {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "someone"}]})

            def do_POST(self):
                body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
                with lock:
                    server.asked.append(body | {"path": self.path})
                    server.keys.append(self.headers["Authorization"])
                    count = len(server.asked)
                    server.at_once += 1
                    server.most_at_once = max(server.most_at_once, server.at_once)
                status, answer = server.reply(body, count)
                with lock:
                    server.at_once -= 1
                self.send(status, answer)

            def send(self, status, answer):
                content = json.dumps(answer).encode()
                self.send_response(status)
                self.send_header("Content-Type", "application/json")
                self.send_header("Content-Length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def log_message(self, *arguments):
                pass

        class Http(ThreadingHTTPServer):
            def handle_error(self, request, client_address):
                """Clients that drop a request are part of these tests."""

        self.http = Http(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.url = f"http://127.0.0.1:{self.http.server_port}/v1"
        threading.Thread(target=self.http.serve_forever, args=(0.05,), daemon=True).start()


def completion(text, reason="stop", **choice):
    usage = {"prompt_tokens": 3, "completion_tokens": 2, "total_tokens": 5}
    choices = [{"index": 0, "text": text, "finish_reason": reason, "logprobs": None, **choice}]
    return {"id": "1", "object": "text_completion", "created": 0, "model": "m", "choices": choices, "usage": usage}


def failure(message):
    return {"error": {"message": message, "type": "x", "code": 0}}


@pytest.fixture
def server():
    server = Server()
    yield server
    server.http.shutdown()
    server.http.server_close()


def test_a_busy_server_is_asked_again_with_a_pause(server):
    server.reply = lambda body, count: (429, failure("busy")) if count <= 2 else (200, completion("at last"))
    begin = time.monotonic()
    [found] = OpenAILM(server.url, "m", retries=2).generate(["a"], Sampling())
    assert (found.text, found.prompt_tokens, found.completion_tokens) == ("at last", 3, 2)
    assert found.token_ids is None
    assert len(server.asked) == 3
    assert time.monotonic() - begin > 0.8  # pauses of about 0.5 and 1 s, up to a quarter shorter


@pytest.mark.parametrize(
    ("status", "message", "expected"),
    [
        (429, "busy", "answers 429: busy"),
        (500, "two\nlines", "answers 500: two lines"),
        (404, "no such model", "answers 404: no such model"),
        (401, "bad key", r"refuses the key in \$OPENAI_API_KEY: bad key"),
        (400, "maximum context length is 8 tokens, you asked for 9", "refuses prompt 0: maximum context length is 8"),
    ],
)
def test_a_failure_that_stays_is_one_line(server, status, message, expected):
    server.reply = lambda body, count: (status, failure(message))
    with pytest.raises(UserError, match=expected) as error:
        OpenAILM(server.url, "m", retries=1).generate(["a"], Sampling())
    assert len(str(error.value).splitlines()) == 1
    assert len(server.asked) == (2 if status in (429, 500) else 1)  # what will not change is not asked again


def test_a_prompt_that_fails_is_named_and_the_rest_dropped(server):
    def reply(body, count):
        if body["prompt"] == "7":
            return 400, failure("too long")
        time.sleep(0.3)
        return 200, completion("fine")

    server.reply = reply
    with pytest.raises(UserError, match="refuses prompt 7: too long"):
        OpenAILM(server.url, "m", concurrency=4).generate([str(i) for i in range(400)], Sampling())
    assert len(server.asked) < 100


def test_a_slow_server_is_given_up(server):
    server.reply = lambda body, count: (time.sleep(1.5), (200, completion("late")))[1]
    with pytest.raises(UserError, match=r"gave no answer in 0\.2 s"):
        OpenAILM(server.url, "m", timeout=0.2, retries=0).generate(["a"], Sampling())


def test_no_server_is_said_with_the_way_out(server):
    port = server.http.server_port
    server.http.server_close()
    with pytest.raises(UserError, match=f"no server answers at http://127.0.0.1:{port}/v1: start one, .*vllm serve m"):
        OpenAILM(f"http://127.0.0.1:{port}/v1", "m")


def test_at_most_so_many_requests_at_once_and_answers_in_order(server):
    def reply(body, count):
        time.sleep(0.02 if int(body["prompt"]) % 2 else 0.001)
        return 200, completion(body["prompt"])

    server.reply = reply
    found = OpenAILM(server.url, "m", concurrency=3).generate([str(i) for i in range(60)], Sampling())
    assert [c.text for c in found] == [str(i) for i in range(60)]
    assert 2 <= server.most_at_once <= 3


def test_what_is_sent(server, monkeypatch):
    monkeypatch.setenv("MY_KEY", "secret")
    lm = OpenAILM(server.url, "m", key_variable="MY_KEY")
    sampling = Sampling(max_tokens=7, temperature=0.5, top_p=0.9, seed=3, stop=("b", "bcd"))
    lm.generate(["lone \ud800"], sampling)
    [sent] = server.asked
    assert server.keys == ["Bearer secret"]
    assert "secret" not in repr(vars(lm))
    assert sent == {
        "path": "/v1/completions",
        "model": "m",
        "prompt": "lone ?",
        "max_tokens": 7,
        "temperature": 0.5,
        "top_p": 0.9,
        "seed": request_seed(3, "lone \ud800"),
        "stop": ["bcd", "b"],
    }


def test_a_form_is_tried_for_and_its_failure_is_marked(server):
    server.reply = lambda body, count: (200, completion("42" if count == 3 else "forty-two"))
    lm = OpenAILM(server.url, "m")
    [found] = lm.generate(["a"], Sampling(regex=r"\d+"))
    assert (found.text, found.finish_reason) == ("42", "stop")
    assert (found.discarded_prompt_tokens, found.discarded_completion_tokens) == (6, 4)
    first, *later = server.asked
    assert first["temperature"] == 0
    assert {sent["temperature"] for sent in later} == {1.0}
    assert len({sent["seed"] for sent in server.asked}) == 3
    [never] = lm.generate(["a"], Sampling(regex="x"))
    assert (never.text, never.finish_reason, never.discarded_prompt_tokens) == ("forty-two", "invalid", 9)


def test_scores_of_an_echoing_server_are_those_of_the_continuation(server):
    echoed = {
        "tokens": ["A", "da", " m", "et"],
        "text_offset": [0, 1, 3, 5],
        "token_logprobs": [None, -1.0, -2.0, -3.0],
    }
    server.reply = lambda body, count: (200, completion("Ada met", "length", logprobs=echoed))
    [score] = OpenAILM(server.url, "m").score(["Ada"], [" met"])
    assert (score.log_probs, score.prompt_tokens, score.total) == ((-2.0, -3.0), 2, -5.0)


def test_a_server_that_does_not_echo_cannot_score(server):
    with pytest.raises(UserError, match="gives no log-probabilities of a prompt"):
        OpenAILM(server.url, "m").score(["Ada"], [" met"])


def test_a_strange_end_is_not_taken_for_an_answer(server):
    server.reply = lambda body, count: (200, completion("", "content_filter"))
    with pytest.raises(UserError, match="content_filter"):
        OpenAILM(server.url, "m").generate(["a"], Sampling())
