"""What a training starts from: a model (a local folder, ``owner/name`` of the hub, which
``owner/name@revision`` pins, or the run's proxy), or the branch point of another training.
"""

from __future__ import annotations

from pathlib import Path

from repro.errors import SettingError, require
from repro.fetch.hub_commits import hub_revision
from repro.pretrained import config, load_tokenizer, on_hub
from repro.proxy.stage import checked_folder, tensors
from repro.store.cached import content_digests

PROXY = "proxy"  # model.init_from: the model that this run scores with


def folder(init_from: str) -> Path:
    """The model's folder, downloaded where it is on the hub: safetensors only, no code that came with it is
    run.
    """
    from repro.proxy.stage import checked_folder, download

    hub = on_hub(init_from)
    return checked_folder(Path(init_from), "model.init_from") if hub is None else download(*hub)


def identity(init_from: str, patterns: list[str]) -> dict[str, str]:
    """What tells one source from another: the commit of a model of the hub, the content of the named files of
    a folder.
    """
    hub = on_hub(init_from)
    if hub is None:
        return folder_identity(Path(init_from), patterns)
    return {"repo": hub[0], "revision": hub_revision(*hub, "model")}


def check(init_from: str) -> None:
    """Refuse, before hours are spent, a folder that cannot be continued.

    Raises :class:`SettingError`. The proxy is checked when it is loaded to find its heads, a model of the hub
    where all of them are (:mod:`repro.plan.checks`).
    """
    if init_from == PROXY or on_hub(init_from) is not None:
        return
    place = checked_folder(Path(init_from), "model.init_from")
    try:
        entries = len(load_tokenizer(place, local_files_only=True))
    except Exception as error:  # whatever a foreign folder provokes in the library is the folder's fault
        reason = str(error).strip().split("\n")[0]
        raise SettingError(f"model.init_from={init_from}: its tokenizer cannot be read ({reason})") from None
    held = {
        name: shape for path in place.glob("*.safetensors") for name, shape in (tensors(path) or {}).items()
    }
    names = [name for name in held if name.endswith(("embed_tokens.weight", "embed_in.weight", "wte.weight"))]
    rows = held[names[0]][0] if names else config(init_from).get("vocab_size")
    require(
        rows is None or entries <= rows,
        f"model.init_from={init_from}: its tokenizer has {entries:,} entries and its model embeds {rows:,}:"
        " they do not belong together; put the model's own tokenizer into the folder",
    )


def folder_identity(folder: Path, patterns: list[str]) -> dict[str, str]:
    """sha256 of the named files of a model folder, remembered by size and time of change
    (``repro.fetch.assets``).
    """
    found = sorted({path for pattern in patterns for path in folder.glob(pattern) if path.is_file()})
    return dict(zip([path.name for path in found], content_digests(found), strict=True))


def branch_point(artifact: Path) -> Path:
    """The checkpoint before the decay that a pretrain artifact holds (train.branch_at_decay)."""
    found = sorted(artifact.glob("branch/step-*/manifest.json"))
    require(
        len(found) == 1,
        f"train.branch_from={artifact} holds no branch point; name a finished pretrain artifact trained with "
        "train.branch_at_decay=true",
    )
    return found[0].parent
