"""What the SDK's log says of what really ran: lines as people have published them."""

from __future__ import annotations

import pytest

from hefkit.workshop.dfc.log import Asked, RunLog, judge

TO_0 = (
    "[warning] Reducing optimization level to 0 (the accuracy won't be optimized and compression won't be used) because"
)
NO_GPU = f"{TO_0} there's no available GPU"
FEW_AND_NO_GPU = f"{TO_0} there's less data than the recommended amount (1024), and there's no available GPU"
FEW = "[warning] Reducing optimization level to 1 because there's less data than recommended (1024)"
# DFC 3.33, level 2
TUNED = """\
[info] Starting Model Optimization
[info] Model received quantization params from the hn
[info] MatmulDecompose skipped
[info] Starting Mixed Precision
[info] Model Optimization Algorithm Mixed Precision is done (completion time is 00:00:00.44)
[info] Starting Statistics Collector
[info] Using dataset with 1024 entries for calibration
[info] Model Optimization Algorithm Statistics Collector is done (completion time is 00:00:45.40)
[info] Finetune encoding skipped
[info] Bias Correction skipped
[info] Adaround skipped
[info] Starting Quantization-Aware Fine-Tuning
[info] Using dataset with 1024 entries for finetune
Epoch 1/4
[info] Model Optimization Algorithm Quantization-Aware Fine-Tuning is done (completion time is 00:09:16.74)
[info] Starting Layer Noise Analysis
[info] Model Optimization Algorithm Layer Noise Analysis is done (completion time is 00:01:07.61)
[info] Output layers signal-to-noise ratio (SNR): measures the quantization noise (higher is better)
[info] \tnet/output_layer1 SNR:\t9.179 dB
[info] Model Optimization is done
[info] Applying selected partition to 7 contexts...
"""
# an older release: other names of the same passes
OLD = """\
[info] Using default optimization level of 2
[info] Starting Stats Collector
[info] Using dataset with 64 entries for calibration
[info] Stats Collector is done (completion time is 00:00:16.59)
[info] Bias Correction skipped
[info] Starting Fine Tune
[warning] Dataset is larger than expected size. Increasing the algorithm dataset size might improve the results
[info] Using dataset with 4000 entries for finetune
"""


def heard(text: str) -> RunLog:
    """A log, line by line."""
    log = RunLog()
    for line in text.splitlines():
        log.feed(line)
    return log


def test_a_healthy_run() -> None:
    """Passes, pictures and noise, and nothing to complain of."""
    log = heard(TUNED)

    assert log.entries == {"calibration": 1024, "finetune": 1024}
    assert log.done == ["statistics", "finetune", "noise_analysis"]
    assert log.skipped == ["bias_correction", "adaround"]
    assert log.snr_db == {"net/output_layer1": 9.179}
    assert judge(log, Asked(level=2, pictures=1024, finetune=1024)) == ([], [])


def test_an_older_release() -> None:
    """The same facts under the names of 3.2x."""
    log = heard(OLD)

    assert (log.default_level, log.entries) == (2, {"calibration": 64, "finetune": 4000})
    assert log.started == ["statistics", "finetune"] and log.warnings[0].startswith("Dataset is larger")


LEVEL_0 = "[info] Starting Statistics Collector\n[info] Using dataset with 64 entries for calibration\n"
SKIPPED = LEVEL_0 + "[info] Adaround skipped\n[info] Quantization-Aware Fine-Tuning skipped\n"
SHORT = LEVEL_0 + (
    "[warning] Quantization-Aware Fine-Tuning: Dataset didn't have enough data for dataset_size of 1024\n"
    "[info] Starting Quantization-Aware Fine-Tuning\n[info] Using dataset with 512 entries for finetune\n"
)
ASKED_0, ASKED_2 = Asked(level=0, pictures=64), Asked(level=2, pictures=64, finetune=64)
# name: (log, what was asked, what ruins the model, what must be known)
VERDICTS = {
    "level 0 as asked": (LEVEL_0, ASKED_0, "", ""),
    "level 0 for want of a card": (f"{LEVEL_0}{NO_GPU}", ASKED_2, "", "from 2 to 0 because it found no graphics card"),
    "level 0, few pictures": (f"{LEVEL_0}{FEW_AND_NO_GPU}", ASKED_2, "", "from 2 to 0"),
    "level 0 said of level 0": (f"{LEVEL_0}{NO_GPU}", ASKED_0, "", ""),
    "level 1 on bins": (
        f"{LEVEL_0}{FEW}", Asked(2, 64), "level 1 is known to give all boxes one size", "",
    ),
    "level 1 from an implicit level": (
        f"{LEVEL_0}{FEW}", Asked(level=None, pictures=64), "from its default to 1", "",
    ),
    "level 1, as newer releases say it": (
        f"{LEVEL_0}[warning] Reducing optimization level to 1 (the accuracy won't be optimized) because "
        "there's less data than the recommended amount (1024)", Asked(level=2, pictures=64), "from 2 to 1", "",
    ),
    "no normalization": (
        f"{LEVEL_0}[info] The calibration set seems to not be normalized, because the values range is [(0.0, 255.0)]",
        ASKED_0, "found no normalization in the script (pictures of [(0.0, 255.0)])", "",
    ),
    "normalised twice": (
        f"{LEVEL_0}[warning] The expected calibration set should be [0, 255] when using an in-net normalization layer, "
        "but the range received is [(0.0, 1.0)].", ASKED_0, "normalised twice", "",
    ),
    "half of the bits": (
        f"{LEVEL_0}[warning] Reducing output bits of net/conv54 by 5 bits (More than half)", ASKED_0, "",
        "more than half of the bits of the output of net/conv54",
    ),
    "noise as strong as the signal": (
        f"{LEVEL_0}[info] \tnet/output_layer3 SNR:\t0.482 dB", ASKED_0, "", "an SNR of 0.5 dB at net/output_layer3",
    ),
    "fewer pictures than a pass asks for": (
        f"{LEVEL_0}[warning] Adaround: Dataset didn't have enough data for dataset_size of 256", ASKED_0, "",
        "a pass of the SDK had fewer pictures than it asks for",
    ),
    "4 bit": (
        f"{LEVEL_0}[info] Assigning 4bit weights to layer net/conv5", ASKED_0, "1 layer in 4 bit (net/conv5", "",
    ),
    "4 bit as asked": (
        f"{LEVEL_0}[info] Assigning 4bit weights to layer net/conv5", Asked(0, 64, four_bit=True), "", "",
    ),
    "fewer pictures": (LEVEL_0, Asked(level=0, pictures=100), "", "calibrated with 64 of 100 pictures"),
    "fine-tuning skipped": (SKIPPED, ASKED_2, "", "the script asks for fine-tuning, and the SDK skipped it"),
    "fine-tuning never begun": (LEVEL_0, ASKED_2, "", "the script asks for fine-tuning, and the SDK skipped it"),
    "fine-tuning on fewer": (SHORT, Asked(2, 64, finetune=1024), "", "fine-tuned with 512 of 1024 pictures"),
    "AdaRound skipped": (SKIPPED, Asked(level=4, pictures=64), "", "level 4 asks for AdaRound"),
    "AdaRound on fewer": (
        f"{LEVEL_0}[info] Starting Adaround\n[info] Using dataset with 64 entries for Adaround",
        Asked(4, 64, adaround=256), "", "AdaRound used 64 of 256 pictures",
    ),
    "4 bit, and not a word more": ("[info] Assigning 4bit weights to layer net/conv5", ASKED_0, "in 4 bit", ""),
    "silence": ("", ASKED_2, "", "hefkit understands no line of the SDK's log"),
}  # fmt: skip


@pytest.mark.parametrize("text, asked, ruined, known", VERDICTS.values(), ids=VERDICTS.keys())
def test_the_log_against_what_was_asked(text: str, asked: Asked, ruined: str, known: str) -> None:
    """What would ruin the model is an error, every other difference is told, and nothing else is."""
    errors, warnings = judge(heard(text), asked)

    assert [ruined in e for e in errors] == ([True] if ruined else [])
    assert any(known in w for w in warnings) if known else warnings == []


def test_a_record_is_judged_as_the_log_was() -> None:
    """A HAR that is resumed months later: what ruined it is still known, and records of older hefkits are read."""
    log = heard(
        f"{LEVEL_0}[info] The calibration set seems to not be normalized, because the values range is [0, 1]\n"
        "[info] \tnet/output_layer1 SNR:\t0.1 dB\n[warning] Reducing output bits of net/a by 5 bits (More than half)\n"
    )
    old = {
        k: v for k, v in heard(LEVEL_0).to_json().items() if k not in ("not_normalized", "layers_fewer_bits", "snr_db")
    }

    assert judge(RunLog.from_json(log.to_json()), ASKED_0) == judge(log, ASKED_0)
    assert judge(RunLog.from_json(old), ASKED_0) == ([], [])


def test_a_harmless_error_is_not_reported() -> None:
    """The latency estimate of the compiler fails in runs whose HEF is good."""
    log = heard("[error] Error has occured during the layer latency calculation\n[error] another\n")

    assert log.errors == ["another"]


def test_the_report_is_bounded() -> None:
    """A log that repeats itself a million times does not fill the report."""
    log = RunLog()
    for i in range(10_000):
        log.feed(f"[warning] number {i}")
        log.feed("[warning] the same")

    assert len(log.to_json()["sdk_warnings"]) == 40
