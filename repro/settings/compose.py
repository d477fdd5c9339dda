"""Settings of YAML groups and of the command line.

Precedence, low to high: defaults of the schemas, the YAML of each group option
(``configs/<group>/<option>.yaml``), the scale's values, the experiment's values, dotted overrides of the
command line. Options are chosen by ``defaults:`` of the scale, then of the experiment, then by
``group=option`` on the command line.

An experiment's YAML may write many arms as a ``grid:`` (``repro/settings/arms.py``) and hold values of its
own for one scale under ``scales: {NAME: {...}}``, which come last of the YAML.

An *arm* names an option of ``configs/select`` and one of ``configs/mixture``. On the command line such a name
comes before dotted values below it, wherever it stands: ``exp.arms.treatment.select.params.path=FILE
exp.arms.treatment.select=imported``.
"""

from __future__ import annotations

from dataclasses import fields
from pathlib import Path
from typing import Any, cast

from repro import kinds, places, secrecy
from repro.device import choose
from repro.errors import SettingError, first_line, nearest, one_of, require
from repro.settings import arms, effect, overrides, question, registration, typed
from repro.settings.files import option_file, option_name, options, read_option
from repro.settings.root import GROUPS, Settings, as_dict
from repro.settings.words import container


def compose(arguments: list[str], planning: bool = False) -> Settings:
    """Settings from ``exp=NAME group=option key.path=value ...``; raises :class:`SettingError` in one line.

    An option is a name or a YAML file of one's own (``exp=my/idea.yaml``). ``include=FOLDER`` adds a folder
    of such options, and of selectors and detectors, for this process and all that it starts.
    ``exp.arms.NAME=null`` drops an arm and its contrasts; an arm that is given whole,
    ``exp.arms.NAME={select: ...}``, is replaced whole.

    A dtype of ``auto`` is resolved for this machine, with ``planning`` for the hardware that the scale names.
    """
    from omegaconf import OmegaConf

    chosen, dotted = _told_apart(arguments)
    conf = _of_files(chosen)
    written = list(conf.exp.arms)
    registered = registration.stated(kinds.expanded(container(conf)))
    conf, dotted = overrides.laid_over(conf, dotted)
    plain = container(conf)
    if plain["exp"]["only"]:
        plain["exp"]["only"] += [name for name in plain["exp"]["arms"] if name not in written]
    if (own := kinds.expanded(plain)) is not plain:
        written, dotted = list(own["exp"]["arms"]), [d for d in dotted if not d.startswith("exp.arms.")]
        conf = OmegaConf.merge(OmegaConf.structured(Settings), own)
    try:
        settings = cast(Settings, OmegaConf.to_object(conf))
    except SettingError:
        raise
    except Exception as error:
        raise SettingError(first_line(error)) from None
    require(
        bool(settings.exp.arms),
        f"exp={chosen['exp']} has no arms; name one with exp.arms.<name>.select=OPTION",
    )
    overrides.check(settings.exp)
    secrecy.check(as_dict(settings))
    arms.pick(settings.exp, written, dotted)
    settings.exp.registered = registered
    keys = {argument.partition("=")[0] for argument in dotted}
    if "exp.smallest_effect" not in keys and settings.exp.endpoint != registered["endpoint"]:
        settings.exp.smallest_effect = None  # the file's is of its own endpoint, in that one's unit
    effect.check(settings, dotted)
    settings.exp.question = question.filled(settings)
    _resolve_dtypes(settings, planning)
    return settings


def _told_apart(arguments: list[str]) -> tuple[dict[str, str], list[str]]:
    """Chosen options by group, with an experiment and a scale; and the dotted arguments."""
    for argument in [a for a in arguments if a.startswith("include=")]:
        folder = argument.removeprefix("include=")
        require(Path(folder).expanduser().is_dir(), f"{argument}: there is no such folder")
        places.include(folder)
    chosen, dotted = {"scale": "laptop"}, []
    given: dict[str, str] = {}
    top = {f.name for f in fields(Settings)}
    for argument in [a for a in arguments if not a.startswith("include=")]:
        key, separator, value = argument.partition("=")
        require(bool(separator), f"{argument!r} is not a setting; write group=option or key.path=value")
        require(value.strip() != "???", f"{argument}: ??? says that a value is missing; give one")
        require(
            not value or given.setdefault(key, value) == value,
            f"{key}={given.get(key)} and {argument}: one of them would have no effect",
        )
        if key in (*GROUPS, "exp", "scale"):
            chosen[key] = value
        elif "." in key or key in ("work", "device"):
            dotted.append(argument)
        else:
            require(
                key not in top,
                f"{argument} is no setting: {key} is a group of them; did you mean {key}.<key>={value}?",
            )
            raise SettingError(f"unknown setting {key!r}; did you mean {nearest(key, top)}?")
    require(bool(chosen.get("exp")), f"name an experiment: exp=NAME with one of {', '.join(options('exp'))}")
    return chosen, dotted


def _of_files(chosen: dict[str, str]) -> Any:
    """What the YAML of the chosen options says, as a config of OmegaConf."""
    from omegaconf import OmegaConf

    scale, exp = read_option("scale", chosen["scale"]), read_option("exp", chosen["exp"])
    scale_name, scale_file = option_name(chosen["scale"]), option_file("scale", chosen["scale"])
    exp_name, exp_file = option_name(chosen["exp"]), option_file("exp", chosen["exp"])
    defaults = {**scale.pop("defaults", {}), **exp.pop("defaults", {})}
    typed.check_keys(f"configs defaults of scale={scale_name}, exp={chosen['exp']}", defaults, Settings)
    for group in defaults:
        require(
            group in GROUPS,
            f"configs defaults of scale={scale_name}, exp={chosen['exp']}: {group} names no group of options,"
            f" and a file includes no other; valid: {', '.join(GROUPS)}",
        )
    conf = OmegaConf.structured(Settings)
    for group in GROUPS:
        option = chosen.get(group, defaults.get(group))
        if option is not None:
            conf = typed.overlay(conf, option_file(group, option), {group: read_option(group, option)})
    conf = typed.overlay(conf, scale_file, scale | {"scale": scale_name})
    at_scales = exp.pop("scales", {})
    for name in at_scales:
        one_of(f"{exp_file}: scales", name, options("scale"))
    own_exp = exp.get("exp", {})
    require(isinstance(own_exp, dict), f"{exp_file}: exp must hold settings (key: value), not {own_exp!r}")
    own = {"exp": {"name": exp_name, **arms.expand(exp.pop("exp", {}), exp_file)}, **exp}
    conf = overrides.with_options(typed.overlay(conf, exp_file, own))
    here, known = at_scales.get(scale_name, {}), list(conf.exp.arms)
    for name in here.get("exp", {}).get("arms", {}):
        require(
            name in known,
            f"{exp_file}, scales.{scale_name}: no arm {name!r}; did you mean {nearest(name, known)}?",
        )
    conf = overrides.with_options(typed.overlay(conf, f"{exp_file}, scales.{scale_name}", here))
    for group in GROUPS:  # once more: what is chosen by hand wins over what scale and experiment set
        if group in chosen:
            own = {group: read_option(group, chosen[group])}
            conf = typed.overlay(conf, f"{group}={chosen[group]}", own)
    return conf


def _resolve_dtypes(settings: Settings, planning: bool) -> None:
    """No dtype is ``auto`` any more, those that arms override included."""
    own = [override for arm in settings.exp.arms.values() for override in (arm.proxy, arm.train)]
    groups = [vars(settings.proxy), vars(settings.train), *own]
    if auto := [group for group in groups if group.get("dtype") == "auto"]:
        # nothing is measured for what says its dtype
        dtype = choose(settings.device, settings.hardware if planning else None).dtype
        for group in auto:
            group["dtype"] = dtype
