"""Verdicts on a paper's claims as predictions: how they are written, sealed, and scored when the check ends."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from llmlab.core.errors import LabError, UsageError
from llmlab.core.kinds import PAPERS
from llmlab.data.papers import NOT_SUPPORTED, SUPPORTED, VERDICTS, read_paper
from llmlab.notebook.entries import DONE, OPEN, statements
from llmlab.notebook.predictions import format_prediction, parse_check_prediction, parse_prediction
from llmlab.notebook.quantities import claim_quantity
from llmlab.notebook.words import outcome_sentence
from llmlab.studies.lab_notebook import lab_notebook
from llmlab.studies.launcher import make_folder
from llmlab.studies.papers.checks import CheckRequest, plan_check, quantities_of_check
from llmlab.studies.papers.records import CheckResult, PapersCriterion, Statistic, Verdict, write_result
from llmlab.studies.plans.records import CheckFolder, TrialStatus

PAPER = "bayesian-geometry"
TESTED = ["calibration", "keys"]


def parsed(line: str) -> str:
    return str(parse_check_prediction(line, read_paper(PAPER), TESTED))


def begun(outputs: Path, *lines: str, name: str = "tunnel") -> CheckFolder:
    """A check that waits for its first run, with these predictions."""
    paper = read_paper(PAPER)
    record = plan_check(CheckRequest(paper, "minutes", outputs, TESTED, name=name))
    predictions = [parse_check_prediction(line, paper, TESTED).as_dict() for line in lines]
    folder = CheckFolder(outputs / PAPERS / name)
    make_folder(folder, replace(record, predictions=predictions))
    return folder


def judged(folder: CheckFolder, state: str = "finished", **verdicts: str) -> CheckFolder:
    """It has come so far, with these verdicts."""
    made = [
        Verdict(claim, verdict, Statistic("error", 0.1), "", 1, [1], PapersCriterion(None, ""), "")
        for claim, verdict in verdicts.items()
    ]
    write_result(folder.results_json, CheckResult(PAPER, "minutes", made, "", [1], {}, {}, 1.0))
    trials = {trial.name: TrialStatus(state) for trial in folder.record().trials}
    folder.write_status(replace(folder.recorded_status(), state=state, trials=trials))
    return folder


def test_a_verdict_is_read_in_any_spelling_and_written_so_that_it_is_read_back() -> None:
    assert parsed("calibration=supported@70%") == "claim:bayesian-geometry/calibration=supported@70%"
    for spelling in ("not supported@60%", " Not-Supported @ 0.6", "not_supported@60"):
        assert parsed(f"keys={spelling}") == "claim:bayesian-geometry/keys=not supported@60%"
    assert parsed("keys=inconclusive") == "claim:bayesian-geometry/keys=inconclusive"
    for line in ("keys=not supported@60%", "keys=supported", "text=It fails@70%", "It fails@70%"):
        prediction = parse_check_prediction(line, read_paper(PAPER), TESTED)
        assert parse_prediction(format_prediction(prediction)) == prediction
        assert parsed(format_prediction(prediction)) == str(prediction)


def test_an_unknown_claim_or_verdict_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="Did you mean calibration"):
        parsed("calibratoin=supported@70%")
    with pytest.raises(UsageError, match="Did you mean supported"):
        parsed("keys=suported@70%")
    with pytest.raises(UsageError, match="does not test 'manifold'"):
        parsed("manifold=supported@70%")
    with pytest.raises(UsageError, match="no claim 'val_loss'"):
        parsed("val_loss=1..2@70%")
    with pytest.raises(UsageError, match="has no claim 'claim:grokking/late'"):
        parsed("claim:grokking/late=supported@70%")
    with pytest.raises(UsageError, match="names no claim"):
        parse_prediction("claim:keys=supported@70%")


def test_a_verdict_is_predicted_of_a_check_alone(outputs: Path) -> None:
    folder = begun(outputs)
    with pytest.raises(UsageError, match="cannot be predicted of a check of a paper"):
        make_folder(
            CheckFolder(outputs / PAPERS / "other"),
            replace(folder.record(), id="other", predictions=[parse_prediction("val_loss=1..2@70%").as_dict()]),
        )
    assert not (outputs / PAPERS / "other").exists()


def test_a_claim_is_shown_by_its_title_and_a_paper_that_is_gone_by_its_name() -> None:
    keys = claim_quantity("claim:bayesian-geometry/keys")
    assert (keys.title, keys.label, keys.choices) == (read_paper(PAPER).claim("keys").title, "keys", VERDICTS)
    assert claim_quantity("claim:no-such-paper/keys").title == "the claim keys of no-such-paper"


def test_a_check_asks_for_the_claims_that_it_tests(outputs: Path) -> None:
    names = [quantity.name for quantity in quantities_of_check(begun(outputs).record())]
    assert names == ["claim:bayesian-geometry/calibration", "claim:bayesian-geometry/keys"]


@pytest.mark.parametrize(
    ("said", "came", "bits"),
    [
        ("supported@70%", SUPPORTED, -math.log2(0.7)),
        ("supported@70%", NOT_SUPPORTED, -math.log2(0.15)),  # what is left is spread over the two others
        ("not supported@60%", NOT_SUPPORTED, -math.log2(0.6)),
        ("inconclusive@50%", SUPPORTED, -math.log2(0.25)),
    ],
)
def test_surprise_is_minus_log2_of_what_was_given_to_the_verdict(
    outputs: Path, said: str, came: str, bits: float
) -> None:
    judged(begun(outputs, f"keys={said}"), keys=came)
    (entry,) = lab_notebook(outputs).refresh().entries
    (line,) = entry.lines()
    assert line.score is not None
    assert (line.score.outcome, line.score.right) == (came, said.startswith(came))
    assert line.score.surprise == pytest.approx(bits)
    (statement,) = statements([entry])
    assert statement.brier == pytest.approx((statement.confidence - statement.right) ** 2)


def test_an_entry_waits_for_the_end_of_its_check(outputs: Path) -> None:
    folder, book = begun(outputs, "calibration=supported@70%", "keys=not supported@60%"), lab_notebook(outputs)
    (entry,) = book.refresh().entries
    assert (entry.subject, entry.about, entry.state) == ("check", "tunnel", OPEN)
    assert entry.title.endswith("does it hold here?")
    with pytest.raises(LabError, match="cannot be scored yet"):
        book.score(entry)
    for state in ("running", "stopped", "failed"):
        judged(folder, state, calibration=SUPPORTED, keys=SUPPORTED)
        assert book.refresh().entries == [entry]
    judged(folder, calibration=SUPPORTED, keys=NOT_SUPPORTED)
    contents = book.refresh()
    assert contents.fresh == [entry.id]
    (entry,) = contents.entries
    assert (entry.state, entry.result) == (DONE, "calibration supported; keys not supported.")
    assert [outcome_sentence(line) for line in entry.lines()] == [
        "You predicted calibration: supported, 70 % sure. The outcome was supported: right.",
        "You predicted keys: not supported, 60 % sure. The outcome was not supported: right.",
    ]
    judged(folder, calibration=NOT_SUPPORTED, keys=SUPPORTED)  # what was scored stays
    assert book.refresh().entries == [entry]


def test_a_claim_without_a_verdict_has_no_score(outputs: Path) -> None:
    judged(begun(outputs, "calibration=supported@70%", "keys=supported@60%"), keys=SUPPORTED)
    first, second = lab_notebook(outputs).refresh().entries[0].lines()
    assert first.score is None
    assert outcome_sentence(first).endswith("The result does not tell what came of it.")
    assert second.score is not None


def test_a_prediction_that_was_changed_after_the_start_is_a_miss(outputs: Path) -> None:
    changes: tuple[dict[str, object], ...] = (
        {},
        {"choice": NOT_SUPPORTED},
        {"confidence": 0.99},
        {"quantity": "claim:bayesian-geometry/calibration"},
    )
    for place, change in enumerate(changes):
        folder = begun(outputs, "keys=supported@60%", name=f"check-{place}")
        (locked,) = folder.record().predictions
        folder.write_record(replace(folder.record(), predictions=[locked | change]))
        judged(folder, keys=SUPPORTED, calibration=SUPPORTED)
    entries = {entry.about: entry for entry in lab_notebook(outputs).refresh().entries}
    for place, change in enumerate(changes):
        entry = entries[f"check-{place}"]
        assert [bool(line.altered) for line in entry.lines()] == [bool(change)]
        assert [(one.right, one.altered) for one in statements([entry])] == [(not change, bool(change))]


def test_a_damaged_verdict_is_a_sentence_and_takes_nothing_from_others(outputs: Path) -> None:
    broken, sound = begun(outputs, "keys=supported@60%"), begun(outputs, "keys=supported@60%", name="sound")
    judged(sound, keys=SUPPORTED)
    judged(broken, keys=SUPPORTED)
    whole = broken.results_json.read_bytes()
    values = json.loads(whole)
    values["verdicts"][0]["verdict"] = "perhaps"
    for damage in (b"", b"{", json.dumps(values).encode(), b'{"paper": 3}'):
        broken.results_json.write_bytes(damage)
        contents = lab_notebook(outputs).refresh()
        (sentence,) = contents.damaged
        assert sentence.startswith("tunnel: ")
        assert "holds no verdicts" in sentence
        assert {entry.about: entry.scored_at is not None for entry in contents.entries} == {
            "tunnel": False,
            "sound": True,
        }
    broken.results_json.write_bytes(whole)
    assert lab_notebook(outputs).refresh().damaged == []
    assert all(entry.scored_at for entry in lab_notebook(outputs).refresh().entries)


def test_a_verdict_of_another_paper_scores_nothing(outputs: Path) -> None:
    folder = judged(begun(outputs, "keys=supported@60%"), keys=SUPPORTED)
    values = json.loads(folder.results_json.read_bytes())
    folder.results_json.write_text(json.dumps(values | {"paper": "grokking"}))
    (line,) = lab_notebook(outputs).refresh().entries[0].lines()
    assert line.score is None
