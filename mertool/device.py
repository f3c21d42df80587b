"""Choosing the device."""

from __future__ import annotations

import torch

from mertool.errors import UsageError


def pick(name: str) -> torch.device:
    """The torch device of "auto", "cpu", "cuda" or "cuda:1"; auto = a GPU where there is one.

    Raises:
        UsageError: No such device here.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError) as error:
        reason = str(error).strip().splitlines()[0]
        raise UsageError(
            f'The device "{name}" cannot be used.', reason, "Use --device auto or --device cpu."
        ) from error
    return device
