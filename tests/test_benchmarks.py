"""Each benchmark still runs: here in its smallest form, which measures nothing."""

from __future__ import annotations

import importlib
import json
import os
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import tiny_models
from fork_server import BENCHMARKS

pytestmark = pytest.mark.slow

# Arguments of the smallest form of each file of that folder. MODEL stands for the folder of a tiny model, PEER for that
# of nanoGPT's model.py, which the variable NANOGPT names where there is one.
SMALLEST = {
    "event_cost": "--seconds 0.3",
    "exercise_mistakes": "softmax",
    "family_folders": "--families llama",
    "finetune_estimate": "--model MODEL --cases scratch-lora --steps 3 --rows 1",
    "gui_all": "gui_first_token --model MODEL --rounds 1 gui_inspection --tokens 80 --rounds 1 "
    "gui_long_run --lines 3000 gui_palette --runs 10 gui_redraw --points 1000 --rounds 1 "
    "gui_responsiveness --seconds 0.2",
    "half_precision": "steps --cases 'baby, batch 1' --seconds 0.1",
    "inspection_cost": "--model MODEL --tokens 16 --rounds 1 --passes 1 --threads 1",
    "model_loads": "--loads 2 --inspect",
    "mystery_tells": "--seeds 1 --faults frozen --threads 1 --set train.steps=2 model.n_embd=24 samples.tokens=4",
    "pretrain_estimate": "--cases baby",
    "random_kills": "--kills 1 --steps 10 --longest 0.1",
    "shards": "--megabytes 0.1",
    "speedrun": "--peer PEER --seeds 1 --share 0.002 --threads 1",
    "spin_choice": "--neighbours 0 --rounds 1 --seconds 0.1 --spins 1000 --threads 1",
    "training_speed": "--configs baby --rounds 1 --seconds 0.1 --threads 1",
    "writing_speed": "--model MODEL --length 32 --rounds 1 --tokens 4 --threads 1 --width 24",
}


PROGRAMS = [path for path in sorted(BENCHMARKS.glob("*.py")) if "__main__" in path.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "path", [path for path in PROGRAMS if path.stem not in SMALLEST["gui_all"].split()], ids=lambda path: path.stem
)
def test_a_benchmark_runs_to_its_end(path: Path, tmp_path: Path, outputs: Path) -> None:
    assert path.stem in SMALLEST, "Say here with which arguments it takes a few seconds at most."
    words = shlex.split(SMALLEST[path.stem])
    if "PEER" in words:
        if "NANOGPT" not in os.environ:
            pytest.skip("NANOGPT names no folder with nanoGPT's model.py")
        words[words.index("PEER")] = os.environ["NANOGPT"]
    if "MODEL" in words:
        words[words.index("MODEL")] = str(tiny_models.save(tiny_models.llama(), tmp_path / "model"))
    environment = {**os.environ, "TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, str(path), *words], env=environment, capture_output=True, text=True, timeout=200, check=False
    )
    # 1: it missed a bar, which says nothing in this form.
    assert done.returncode in (0, 1), done.stderr
    assert "Traceback" not in done.stderr, done.stderr
    assert done.stdout


def test_results_of_a_race_are_those_of_its_track(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(BENCHMARKS))
    speedrun = importlib.import_module("speedrun")
    one = {"who": "ours", "seed": 1, "loss": 1.9, "parameters": 1, "tokens": 1}
    lines = [{"seconds": 1.0}, {"seconds": 2.0, "track": "gpt2"}, {"seconds": 3.0, "track": "letters"}]
    (file := tmp_path / "race.jsonl").write_text("".join(json.dumps(one | line) + "\n" for line in lines))
    found = {track: [result.seconds for result in speedrun.kept(file, track)] for track in speedrun.TRACKS}
    assert found == {"letters": [1.0, 3.0], "gpt2": [2.0]}
