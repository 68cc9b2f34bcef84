"""What ``/convert`` can make: formats, sample rates, bit rates, and how a caller asks for them."""

import re
from dataclasses import dataclass, replace

from synapse_serving import UnprocessableField
from synapse_serving.audio_convert import Target

_TELEPHONE_TO_STUDIO = (8_000, 11_025, 12_000, 16_000, 22_050, 24_000, 32_000, 44_100, 48_000)
_LOSSLESS = (*_TELEPHONE_TO_STUDIO, 88_200, 96_000, 176_400, 192_000)
_KILO = 1_000
_MOST_CHANNELS = 8


def _kilobits(*rates: int) -> tuple[int, ...]:
    return tuple(rate * _KILO for rate in rates)


# ISO/IEC 11172-3 and 13818-3, layer III; MPEG-2.5 for the lowest three rates.
_MPEG_1 = _kilobits(32, 40, 48, 56, 64, 80, 96, 112, 128, 160, 192, 224, 256, 320)
_MPEG_2 = _kilobits(8, 16, 24, 32, 40, 48, 56, 64, 80, 96, 112, 128, 144, 160)
_MPEG_25 = _kilobits(8, 16, 24, 32, 40, 48, 56, 64)
# RFC 6716, 2.1.1 allows any rate from 6 to 510 kbit/s; these are the ones that people ask for.
_OPUS = _kilobits(8, 12, 16, 24, 32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256)


@dataclass(frozen=True, slots=True)
class Output:
    """A format.

    Attributes:
        media_type: For the Content-Type header.
        target: FFmpeg's names, and every sample rate.
        bit_rates: Those possible at each sample rate; none for lossless formats.
        default_bit_rate: Bits a second where the caller names none; every sample rate has it.
    """

    media_type: str
    target: Target
    bit_rates: dict[int, tuple[int, ...]]
    default_bit_rate: int = 0


def _mp3_bit_rates(rate: int) -> tuple[int, ...]:
    if rate >= 32_000:
        return _MPEG_1
    return _MPEG_2 if rate >= 16_000 else _MPEG_25


_OPUS_RATES = (8_000, 12_000, 16_000, 24_000, 48_000)

OUTPUTS = {
    "wav": Output(
        "audio/wav", Target("wav", "pcm_s16le", "s16", _LOSSLESS, max_channels=_MOST_CHANNELS), {}
    ),
    "mp3": Output(
        "audio/mpeg",
        Target("mp3", "libmp3lame", "s16p", _TELEPHONE_TO_STUDIO),
        {rate: _mp3_bit_rates(rate) for rate in _TELEPHONE_TO_STUDIO},
        64_000,
    ),
    "flac": Output(
        "audio/flac", Target("flac", "flac", "s16", _LOSSLESS, max_channels=_MOST_CHANNELS), {}
    ),
    "ogg": Output(
        "audio/ogg",
        Target("ogg", "libopus", "s16", _OPUS_RATES),
        dict.fromkeys(_OPUS_RATES, _OPUS),
        64_000,
    ),
}


def output(name: str) -> Output:
    """The format called ``name``.

    Raises:
        UnprocessableField: There is none.
    """
    found = OUTPUTS.get(name.strip().lower())
    if found is None:
        raise UnprocessableField(
            f"output_format: {name!r} is not known; known: {', '.join(OUTPUTS)}",
            param="output_format",
        )
    return found


def read_bit_rate(text: str) -> int:
    """Bits a second; ``128k``, ``128000`` and ``128`` are the same.

    Raises:
        UnprocessableField: It is no such number.

    >>> read_bit_rate("128k"), read_bit_rate("128000"), read_bit_rate("128")
    (128000, 128000, 128000)
    """
    match = re.fullmatch(r"(\d{1,7})(k?)", text.strip().lower())
    if match is None:
        raise UnprocessableField(
            f"bitrate: {text!r} is not a number of bits a second, such as 128k or 128000",
            param="bitrate",
        )
    number = int(match[1])
    return number * _KILO if match[2] or number < _KILO else number


def target_for(name: str, sample_rate: int | None, bitrate: str | None) -> tuple[Output, Target]:
    """What a file becomes for the fields of a caller.

    Raises:
        UnprocessableField: One of them cannot be; the message names what can.
    """
    made = output(name)
    rates = made.target.rates
    if sample_rate is not None:
        if sample_rate not in rates:
            raise UnprocessableField(
                f"sample_rate: {name} cannot have {sample_rate} Hz; it can have {_listed(rates)}",
                param="sample_rate",
            )
        rates = (sample_rate,)
    bit_rate = made.default_bit_rate
    if bitrate:
        bit_rate = read_bit_rate(bitrate)
        rates = _rates_with(made, name, rates, bit_rate)
    return made, replace(made.target, rates=rates, bit_rate=bit_rate)


def _rates_with(made: Output, name: str, rates: tuple[int, ...], bit_rate: int) -> tuple[int, ...]:
    """Those of ``rates`` at which the format can have ``bit_rate``."""
    if not made.bit_rates:
        raise UnprocessableField(
            f"bitrate: {name} is lossless and has none; leave it out", param="bitrate"
        )
    fitting = tuple(rate for rate in rates if bit_rate in made.bit_rates[rate])
    if not fitting:
        known = sorted({one for rate in rates for one in made.bit_rates[rate]})
        at = f" at {rates[0]} Hz" if len(rates) == 1 else ""
        raise UnprocessableField(
            f"bitrate: {name}{at} cannot have {bit_rate} bits a second; it can have "
            f"{_listed(known)}",
            param="bitrate",
        )
    return fitting


def _listed(numbers: "tuple[int, ...] | list[int]") -> str:
    return ", ".join(map(str, numbers))
