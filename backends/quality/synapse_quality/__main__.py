"""``python -m synapse_quality``: measure the model servers on real audio and print the figures."""

import sys

import numpy as np

from . import measure
from .measure import Servers


def _transcription(servers: Servers) -> str:
    heard = measure.transcription(servers)
    return (
        f"{heard.sentences} sentences, {heard.words} words, {heard.errors} wrong | "
        f"word error rate {heard.rate:.3f}"
    )


def _verification(servers: Servers) -> str:
    verified = measure.verification(servers)
    rate, threshold = verified.equal_error
    return (
        f"{len(verified.same)} same pairs (cosine {min(verified.same):.2f} to "
        f"{max(verified.same):.2f}), {len(verified.different)} different "
        f"({min(verified.different):.2f} to {max(verified.different):.2f}) | equal error rate "
        f"{rate:.1%} at {threshold:.2f}; {verified.wrong} wrong at the server's "
        f"{verified.threshold:g}"
    )


def _diarization(servers: Servers) -> str:
    results = measure.diarization(servers)
    texts = []
    for given in (False, True):
        chosen = [result for result in results if result.given is given]
        right = sum(result.right for result in chosen)
        error = np.mean([result.error for result in chosen])
        how = "num_speakers given" if given else "not given"
        texts.append(f"{how}: {right} of {len(chosen)} right, error {error:.1%}")
    return f"{measure.MIXES} mixes of 1 to 3 speakers | {'; '.join(texts)}"


def _denoising(servers: Servers) -> str:
    results = measure.denoising(servers)
    texts = []
    for kind in ("white", "babble"):
        chosen = [result for result in results if result.noise == kind]
        gain = np.mean([result.after - result.before for result in chosen])
        texts.append(f"{kind} {gain:+.1f} dB")
    gain = np.mean([result.after - result.before for result in results])
    late = max(abs(result.late) for result in results) * 1000
    before = np.mean([result.before for result in results])
    return (
        f"{len(results)} clips at {before:.1f} dB | gain {gain:.1f} dB ({', '.join(texts)}); "
        f"delay at most {late:.1f} ms"
    )


def _cleaned(servers: Servers) -> str:
    plain = measure.transcription(servers)
    cleaned = measure.transcription_of_cleaned(servers)
    return (
        f"{cleaned.sentences} clean sentences, cleaned | word error rate {cleaned.rate:.3f}, "
        f"{cleaned.rate - plain.rate:+.3f} to before"
    )


def _conversion(servers: Servers) -> str:
    results = measure.conversion(servers)
    worst = max(abs(result.after - result.before) for result in results) * 1000
    formats = ", ".join(measure.FORMATS)
    return f"{len(results)} conversions between {formats} | duration changed by {worst:.0f} ms"


MEASUREMENTS = {
    "Piper, heard by Whisper tiny.en": _transcription,
    "Speaker verification": _verification,
    "Diarization": _diarization,
    "Noise removal": _denoising,
    "Noise removal on clean speech": _cleaned,
    "Conversion": _conversion,
}


def main() -> int:
    """Print a line of a Markdown table a measurement; returns the exit code."""
    print("| what | measured on | result |\n| --- | --- | --- |")  # noqa: T201 - a report
    with measure.servers() as running:
        for name, work in MEASUREMENTS.items():
            print(f"| {name} | {work(running)} |", flush=True)  # noqa: T201 - a report
    return 0


if __name__ == "__main__":
    sys.exit(main())
