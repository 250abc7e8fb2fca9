"""The example of the README runs and finds what it says."""

import re

from common.experiments.fingerprint import ROOT


def test_the_example_works(tmp_path, monkeypatch):
    monkeypatch.setenv("REPRO_CACHE", str(tmp_path))
    [block] = re.findall(r"^```python\n(.*?)^```", (ROOT / "common/retrievers/README.md").read_text(), re.M | re.S)
    assert len([line for line in block.splitlines() if line and not line.startswith(("from", "import"))]) <= 20
    names: dict = {}
    exec(compile(block, "README.md", "exec"), names)
    assert names["where"][0] == "n4" and names["who"][0] == "n3"
    assert names["latest"] == ["n3"]
    assert names["memory"].ids == ["n2", "n3", "n4"]
