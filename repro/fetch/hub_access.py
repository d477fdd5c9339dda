"""Whether the hub hands out what a run will read: asked before the first stage, and told in one line."""

from __future__ import annotations

from pathlib import Path

from repro.errors import SettingError
from repro.fetch.retries import patiently, told


def ask(repo: str, kind: str, setting: str, instead: str) -> None:
    """Ask the hub whether ``repo``, a ``dataset`` or ``model`` that ``setting`` names, may be read.

    Raises :class:`SettingError` with the hub's own words where it is gated, private or away, and with what to
    do ``instead``. The commit of a gated one is told to everybody, so that knowing it says nothing.
    """
    from huggingface_hub import HfApi

    try:
        patiently(lambda: HfApi().auth_check(repo, repo_type=kind), tries=3)
    except Exception as error:  # the hub fails in a dozen types; all mean the same to the user
        raise SettingError(refusal(repo, error, setting, instead)) from None


def refusal(what: str, error: Exception, setting: str, instead: str) -> str:
    """One line with all that the hub says, and what to do about it."""
    kinds = {kind.__name__ for kind in type(error).__mro__}
    if "GatedRepoError" in kinds:
        mend = "accept its terms on its page and log in (hf auth login, or HF_TOKEN)"
    elif "RepositoryNotFoundError" in kinds:
        mend = f"check the name in {setting}, or log in (hf auth login, or HF_TOKEN) if it is private"
    else:
        mend = f"check the network and {setting}, or {instead}"
    return f"cannot read {what} from the hub ({type(error).__name__}: {told(error)}); {mend}"


def held(repo: str, commit: str) -> bool:
    """Whether the weights of a model are on this machine: they are loaded from there, and nobody is asked."""
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import LocalEntryNotFoundError

    try:
        folder = snapshot_download(repo, revision=commit, local_files_only=True)
    except LocalEntryNotFoundError:
        return False
    return any(Path(folder).glob("*.safetensors"))  # a plan fetches the configuration alone
