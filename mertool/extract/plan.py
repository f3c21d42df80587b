"""What an extraction is made of: profiles, extractors, settings."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from mertool.config import resolve, settings_of
from mertool.errors import UsageError, did_you_mean
from mertool.extract.worker import StreamPlan
from mertool.registry import registry
from mertool.transcripts.asr import Config as AsrConfig

MODALITIES = ("text", "audio", "vision")

# Named sets of extractors. "offline" needs no download; "paper" is nearer to what papers use, and
# fails where a part of it is missing: nothing takes its place silently.
PROFILES: dict[str, dict[str, str]] = {
    "offline": {"text": "minilm", "audio": "covarep", "vision": "facemesh"},
    "paper": {"text": "bert", "audio": "covarep", "vision": "pyfeat"},
}
RECOGNISERS = {"offline": "pocketsphinx", "paper": "whisper"}


def plan_streams(
    profile: str, chosen: dict[str, str | None], settings: Sequence[str], asr: bool = False
) -> tuple[list[StreamPlan], AsrConfig | None]:
    """Settle which extractor, with which config, makes each stream.

    Args:
        profile: Named set of extractors.
        chosen: {modality: extractor, "none", or None = the profile's}.
        settings: "audio.channel=first" and the like.
        asr: Speech is to be recognised.

    Returns:
        A plan per stream; the recogniser's settings, with an engine, where `asr`.

    Raises:
        UsageError: An unknown profile, extractor or setting, or no stream is left.
        PluginError: An extractor cannot be imported.
    """
    if profile not in PROFILES:
        raise UsageError(
            f'There is no profile "{profile}".',
            did_you_mean(profile, PROFILES),
            "--profile offline, or --profile paper",
        )
    names = {m: chosen.get(m) or PROFILES[profile].get(m, "none") for m in MODALITIES}
    names = {m: name for m, name in names.items() if name != "none"}
    if not names:
        raise UsageError(
            "Every stream is switched off.", "--text none --audio none --vision none", "Keep one."
        )
    configs: dict[str, Any] = {"asr": AsrConfig} if asr else {}
    for modality, name in names.items():
        entry = registry().get("extractor", name)
        if entry.facts.get("modality") != modality:
            known = registry().names("extractor", modality=modality)
            raise UsageError(
                f'"{name}" is no extractor for {modality}.',
                f"--{modality} {name}",
                did_you_mean(name, known),
            )
        cls = registry().load("extractor", name)
        configs[modality] = settings_of(cls, f'the extractor "{name}"')
    configs = resolve(configs, settings)
    plans = [
        StreamPlan(name, registry().get("extractor", name).owner, m, configs[m])
        for m, name in names.items()
    ]
    if not asr:
        return plans, None
    engine = configs["asr"].engine or RECOGNISERS[profile]
    return plans, replace(configs["asr"], engine=engine)
