"""Muon against what its iteration does to singular values, written out with an SVD, and against PyTorch's own."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from pretraining import QUICK, TINY, job, naive_stream, workspace
from safetensors.torch import load_file
from transformers import AutoTokenizer

from repro.errors import SettingError
from repro.pretrain import loop, stage
from repro.pretrain.engine import parameter_groups
from repro.pretrain.model import build
from repro.pretrain.muon import Muon, orthogonalise
from repro.pretrain.schedule import learning_rate
from repro.pretrain.settings import Train
from repro.store import Stage
from repro.tracking import Tracking, read_rows

SHAPES = [(6, 6), (4, 9), (9, 4)]


def by_svd(matrix):
    """The quintic of Jordan et al., five times on each singular value, in float64."""
    u, s, vh = torch.linalg.svd(matrix.double(), full_matrices=False)
    s = s / matrix.double().norm()
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    return u @ torch.diag(s) @ vh


def textbook(weight, gradient, momentum, rate, decay, beta):
    """One update of one matrix; returns weight and momentum."""
    momentum = beta * momentum + (1 - beta) * gradient
    direction = by_svd((1 - beta) * gradient + beta * momentum)
    rows, columns = weight.shape
    return weight * (1 - rate * decay) - rate * max(1.0, rows / columns) ** 0.5 * direction, momentum


@pytest.mark.parametrize("shape", SHAPES)
def test_singular_values_follow_the_polynomial(shape):
    matrices = torch.randn(3, *shape, generator=torch.Generator().manual_seed(0))
    found = orthogonalise(matrices, torch.float32)
    for matrix, got in zip(matrices, found, strict=True):
        torch.testing.assert_close(got.double(), by_svd(matrix), atol=2e-5, rtol=0)
        values = torch.linalg.svdvals(got)
        assert 0.6 < values.min() and values.max() < 1.3
    half = orthogonalise(matrices, torch.bfloat16)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, found, atol=5e-2, rtol=0)
    assert torch.equal(orthogonalise(torch.zeros(1, *shape), torch.float32), torch.zeros(1, *shape))


def own(parameters, shape, rate=0.1):
    group = {"params": parameters, "shape": shape, "dtype": "float32", "momentum": 0.9, "weight_decay": 0.2}
    return Muon([group], lr=rate, betas=(0.9, 0.95), fused=True)


@pytest.mark.parametrize("shape", SHAPES)
def test_updates_are_the_textbooks_and_pytorchs(shape):
    generator = torch.Generator().manual_seed(1)
    start = [torch.randn(shape, generator=generator) for _ in range(2)]
    gradients = [[torch.randn(shape, generator=generator) for _ in start] for _ in range(3)]
    ours, theirs = ([torch.nn.Parameter(w.clone()) for w in start] for _ in range(2))
    optimizer = own(ours, shape)
    reference = torch.optim.Muon(theirs, lr=0.1, momentum=0.9, weight_decay=0.2)
    expected, momenta = [w.double() for w in start], [torch.zeros(shape).double() for _ in start]
    for step in gradients:
        for i, gradient in enumerate(step):
            ours[i].grad, theirs[i].grad = gradient.clone(), gradient.clone()
            expected[i], momenta[i] = textbook(expected[i], gradient.double(), momenta[i], 0.1, 0.2, 0.9)
        optimizer.step()
        reference.step()
    for got, other, right in zip(ours, theirs, expected, strict=True):
        torch.testing.assert_close(got.detach().double(), right, atol=2e-5, rtol=0)
        torch.testing.assert_close(got, other, atol=3e-2, rtol=0)  # bfloat16 inside


def test_matrices_laid_flat_with_padding_are_found_again():
    """As ZeRO 1 keeps a group on one device."""
    shape, generator = (4, 9), torch.Generator().manual_seed(2)
    start = torch.randn(3, *shape, generator=generator)
    apart = [torch.nn.Parameter(w.clone()) for w in start]
    flat = torch.nn.Parameter(torch.cat([start.flatten(), torch.zeros(5)]))
    two = own(apart, shape), own([flat], shape)
    for _ in range(2):
        gradient = torch.randn(3, *shape, generator=generator)
        for p, g in zip(apart, gradient, strict=True):
            p.grad = g.clone()
        flat.grad = torch.cat([gradient.flatten(), torch.zeros(5)])
        for optimizer in two:
            optimizer.step()
    assert torch.equal(flat[:-5].view(3, *shape), torch.stack(list(apart))) and not flat[-5:].any()


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    torch.set_num_threads(1)
    return workspace(tmp_path_factory.mktemp("muon"))


def plain_loop(paths, train, seed, end_token):
    """Muon by SVD for all but embeddings and norms, PyTorch's AdamW for those; returns losses and network."""
    network = build(TINY, train.context, end_token, seed)
    ids = torch.tensor(naive_stream(paths, seed, 4)[0])
    named = dict(network.named_parameters())
    matrices = {name: p for name, p in named.items() if "proj" in name}
    momenta = {name: torch.zeros(p.shape).double() for name, p in matrices.items()}
    groups = [{"params": [named["model.embed_tokens.weight"]], "weight_decay": train.weight_decay}]
    groups.append({"params": [p for name, p in named.items() if "norm" in name], "weight_decay": 0.0})
    optimizer = torch.optim.AdamW(groups, lr=1.0, betas=(train.beta1, train.beta2))
    n, curve = train.batch_sequences * train.context, []
    for step in range(train.steps):
        x = ids[step * n : (step + 1) * n].view(train.batch_sequences, train.context)
        y = ids[step * n + 1 : (step + 1) * n + 1].view_as(x)
        loss = -torch.log_softmax(network(input_ids=x).logits, -1).gather(-1, y.unsqueeze(-1)).mean()
        network.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), train.clip)
        share = learning_rate(train, step) / train.learning_rate
        for group in optimizer.param_groups:
            group["lr"] = share * train.learning_rate
        optimizer.step()
        for name, p in matrices.items():
            rate = share * train.muon_learning_rate
            weight, momenta[name] = textbook(
                p.detach().double(),
                p.grad.double(),
                momenta[name],
                rate,
                train.weight_decay,
                train.muon_momentum,
            )
            p.data.copy_(weight)
        curve.append(loss.item())
    return curve, network


@pytest.mark.parametrize("zero_stage,dtype", [(0, "float32"), (2, "float32"), (0, "bfloat16")])
def test_losses_and_weights_equal_a_plain_loop(paths, tmp_path, zero_stage, dtype):
    own = {
        "optimizer": "muon",
        "learning_rate": 1e-2,
        "muon_learning_rate": 0.05,
        "warmup": 0.25,
        "decay": 0.5,
    }
    this = job(paths, tmp_path, zero_stage=zero_stage, dtype=dtype, seed=5, clip=0.5, **own)
    assert loop.train(this)["logits_difference"] <= 1e-5
    end = AutoTokenizer.from_pretrained(tmp_path / "model").eos_token_id
    expected, network = plain_loop(paths, this.train, 5, end)
    found = [row["loss"] for row in read_rows(tmp_path / "loss.jsonl")]
    exact = dtype == "float32"
    np.testing.assert_allclose(found, expected, atol=1e-4 if exact else 5e-2, rtol=0)
    assert expected[-1] < expected[0] - 0.3
    trained = load_file(tmp_path / "model" / "model.safetensors")
    for name, parameter in network.named_parameters():
        if exact:
            torch.testing.assert_close(trained[name], parameter.detach(), atol=1e-3, rtol=0)


def test_embeddings_head_and_norms_are_left_to_adamw():
    network = build(replace(TINY, tie_embeddings=False), 64, 0, seed=0)
    groups = parameter_groups(network, Train(**QUICK, optimizer="muon"))
    names = {id(p): name for name, p in network.named_parameters()}
    of_muon = {names[id(p)] for group in groups if "shape" in group for p in group["params"]}
    others = {names[id(p)] for group in groups if "shape" not in group for p in group["params"]}
    assert of_muon == {name for name in names.values() if "proj" in name} and not of_muon & others
    assert {"lm_head.weight", "model.embed_tokens.weight", "model.norm.weight"} <= others
    assert len(of_muon | others) == len(names)
    assert not any("shape" in group for group in parameter_groups(network, Train(**QUICK)))


@pytest.mark.parametrize(
    "split", [{"zero_stage": 3}, {"processes": 2, "zero_stage": 1}, {"processes": 2, "dtype": "bfloat16"}]
)
def test_split_matrices_are_refused(split):
    with pytest.raises(
        SettingError, match=r"train.optimizer=muon needs whole matrices.*set train.zero_stage=0"
    ) as refused:
        Train(**QUICK | {"micro_batch": 4, "optimizer": "muon"} | split)
    assert "\n" not in str(refused.value)
    Train(**QUICK | {"micro_batch": 4} | split)
    with pytest.raises(SettingError, match=r"did you mean 'muon'"):
        Train(**QUICK, optimizer="mun")


def test_settings_of_muon_enter_the_fingerprint_with_muon_only():
    nothing = Stage("tokens", "x", {}, lambda _: None)

    def of(**train):
        return stage.stage(TINY, Train(**QUICK, **train), 0, nothing, nothing, Tracking(), "g", "a")

    assert of().fingerprint == of(muon_learning_rate=0.5, muon_momentum=0.1).fingerprint
    assert "muon" not in json.dumps(of().settings) and "optimizer" not in of().settings["train"]
    prints = [
        of(optimizer="muon", **own).fingerprint
        for own in ({}, {"muon_learning_rate": 0.5}, {"muon_momentum": 0.1})
    ]
    assert len({of().fingerprint, *prints}) == 4
    assert math.isclose(Train(**QUICK).muon_learning_rate, 0.02)
