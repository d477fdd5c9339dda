"""Sending a published folder to the hub."""

from __future__ import annotations

import re
from pathlib import Path

from repro.errors import SettingError, require
from repro.fetch.retries import patiently, told
from repro.publish.dataset import HEADS, KEPT, SCORES

# Of an earlier publication into the same repository: its shards would be read as well.
OURS = [f"{folder}/*" for folder in (KEPT, SCORES, HEADS)]


def name_of(given: str) -> str:
    """``owner/name``; a :class:`SettingError` for anything else."""
    require(
        bool(re.fullmatch(r"[\w][\w.-]*/[\w][\w.-]*", given)),
        f"--push {given}: a repository of the hub is named owner/name",
    )
    return given


def push(folder: Path, repo: str, kind: str, private: bool) -> str:
    """Create the repository where it is absent and commit the folder as one; returns its address.

    ``kind``: "dataset" or "model". Raises :class:`SettingError` with the hub's own words, and where a
    repository that is public would get what was to be private.
    """
    from huggingface_hub import HfApi

    api = HfApi()
    try:
        url = patiently(lambda: api.create_repo(repo, repo_type=kind, private=private, exist_ok=True))
        there = patiently(lambda: api.repo_info(repo, repo_type=kind))
        require(
            bool(there.private) or not private,
            f"{repo} is public, and nothing was sent; say --no-private, or name another repository",
        )
        patiently(
            lambda: api.upload_folder(
                repo_id=repo,
                folder_path=folder,
                repo_type=kind,
                commit_message="Published by repro publish",
                delete_patterns=OURS,
            )
        )
    except SettingError:
        raise
    except Exception as error:  # the hub fails in a dozen types; all mean the same to the user
        raise SettingError(
            f"{repo} was not sent to the hub ({type(error).__name__}: {told(error)}); log in (hf auth"
            " login, or"
            f" HF_TOKEN with write access), and run the same command again: the folder {folder} is whole"
        ) from None
    return str(url)
