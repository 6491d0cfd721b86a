# /// script
# requires-python = ">=3.11"
# dependencies = ["torch==2.15.0", "transformers==5.23.0", "safetensors==0.8.0", "numpy==2.4.6"]
# ///
"""A small BERT with MLM head and TLM task head, computed by PyTorch and Hugging Face transformers in float64.

Writes `bert.safetensors` beside this file: weights, one packed batch, outputs, losses, the gradient of every parameter
and the parameters after three AdamW steps. Weights are exact in float32; whatever is computed from them is computed in
float64 and rounded to float32 once, when it is written.

Model   embeddings -> 2 post-norm layers -> MLM head (decoder tied to the word embeddings) and, on the [CLS] row x,
        task head  W_out gelu(W x + b) + b_out,  gelu in the erf form everywhere
Batch   4 sequences of lengths 17, 3, 40, 9, stored packed as T = 69 rows: sequence i owns rows
        cu_seqlens[i] .. cu_seqlens[i + 1]; M = 10 masked rows, none of them in the sequence of length 3
Loss    (rho2 * L_mlm + L_task) / (rho2 + 1), rho2 = 20; L_mlm the mean over the masked rows of the whole batch,
        L_task the mean over the sequences
AdamW   m = b1 m + (1 - b1) g,  v = b2 v + (1 - b2) g^2,
        p = p - lr * sqrt(1 - b2^t) / (1 - b1^t) * m / (sqrt(v) + eps),  then  p = p - lr * decay * p,
        decay on matrices only (not on biases, not on LayerNorm); lr is constant; every step uses the same batch

The model runs on the padded batch with an attention mask, which is how transformers is meant to be used. Nothing is
written unless the same numbers come out (1) of the sequences run one at a time without padding and without a mask,
(2) with another id in the padding, and (3) the gradient agrees with a central difference of the loss.
"""

import json
import os
from pathlib import Path

import numpy as np
import torch
from safetensors.numpy import save_file
from torch import nn
from torch.nn import functional as F
from transformers import BertConfig, BertForMaskedLM

SEED = 20220717
OUTPUT = Path(__file__).with_name("bert.safetensors")

CONFIG = dict(
    vocab_size=97,
    hidden_size=64,
    num_hidden_layers=2,
    num_attention_heads=2,
    intermediate_size=128,
    max_position_embeddings=40,
    type_vocab_size=1,
    hidden_act="gelu",
    layer_norm_eps=1e-12,
    hidden_dropout_prob=0.0,
    attention_probs_dropout_prob=0.0,
    pad_token_id=None,  # nn.Embedding's padding_idx = None: no row's gradient is set to zero
)
CLASSES = 5
RHO2 = 20.0
ADAMW = dict(lr=1e-3, beta1=0.9, beta2=0.999, eps=1e-6, weight_decay=0.01)
STEPS = 3

LENGTHS = [17, 3, 40, 9]
CLS, SEP, MASK, FIRST_WORD = 2, 3, 4, 5  # ids 0 and 1 never occur in the batch
# (sequence, position) of the masked tokens in packed order. KEPT stays as it is, REPLACED gets a random word, the
# others get [MASK]: the three cases of BERT's masking.
MASKED = [(0, 2), (0, 7), (0, 15), (2, 1), (2, 9), (2, 10), (2, 23), (2, 31), (2, 38), (3, 4)]
KEPT, REPLACED = (0, 7), (2, 23)
CLASS_LABELS = [3, 0, 4, 3]


class TaskHead(nn.Module):
    """Linear(H, H), gelu, Linear(H, C) on the [CLS] rows: (B, H) -> (B, C)."""

    def __init__(self, hidden_size, classes):
        super().__init__()
        self.dense = nn.Linear(hidden_size, hidden_size)
        self.out_proj = nn.Linear(hidden_size, classes)

    def forward(self, cls_rows):
        return self.out_proj(F.gelu(self.dense(cls_rows)))


class BertForTlm(BertForMaskedLM):
    """transformers' BertForMaskedLM and the task head, so that parameter names are Hugging Face's."""

    def __init__(self, config):
        super().__init__(config)
        self.classifier = TaskHead(config.hidden_size, CLASSES)


def build_model(dtype):
    """The model with its fixed weights, drawn in float64, rounded to float32 and then held as `dtype`."""
    model = BertForTlm(BertConfig(**CONFIG, attn_implementation="eager")).eval()
    # RandomState is the generator whose stream NumPy promises never to change.
    random = np.random.RandomState(SEED)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            draw = random.standard_normal(tuple(parameter.shape))
            if name.endswith("LayerNorm.weight"):
                values = 1.0 + 0.1 * draw
            elif name.endswith("bias"):
                values = 0.1 * draw
            else:
                values = 0.2 * draw
            parameter.copy_(torch.from_numpy(values.astype(np.float32)))
    model = model.to(dtype)
    predictions = model.cls.predictions
    assert predictions.decoder.weight is model.bert.embeddings.word_embeddings.weight, "decoder must be tied"
    assert predictions.decoder.bias is predictions.bias, "decoder bias must be tied"
    return model


def build_batch():
    """The packed batch: index arrays as they are written, all uint32."""
    random = np.random.RandomState(SEED + 1)
    cu_seqlens = np.concatenate([[0], np.cumsum(LENGTHS)])
    ids = random.randint(FIRST_WORD, CONFIG["vocab_size"], size=cu_seqlens[-1])
    ids[cu_seqlens[:-1]] = CLS
    ids[cu_seqlens[1:] - 1] = SEP
    masked_rows = np.array([cu_seqlens[sequence] + position for sequence, position in MASKED])
    masked_labels = ids[masked_rows].copy()
    for row, place in zip(masked_rows, MASKED):
        if place == REPLACED:
            ids[row] = FIRST_WORD + (ids[row] - FIRST_WORD + 11) % (CONFIG["vocab_size"] - FIRST_WORD)
        elif place != KEPT:
            ids[row] = MASK
    assert ids.min() >= CLS and np.all(np.diff(masked_rows) > 0)
    batch = {
        "input_ids": ids,
        "position_ids": np.concatenate([np.arange(length) for length in LENGTHS]),
        "cu_seqlens": cu_seqlens,
        "masked_rows": masked_rows,
        "masked_labels": masked_labels,
        "class_labels": np.array(CLASS_LABELS),
    }
    return {name: values.astype(np.uint32) for name, values in batch.items()}


def split(batch):
    """Per sequence: ids (S), positions (S), MLM labels (S) with -100 where no label is."""
    bounds = batch["cu_seqlens"].astype(np.int64)
    labels = np.full(bounds[-1], -100, dtype=np.int64)
    labels[batch["masked_rows"]] = batch["masked_labels"]
    columns = [batch["input_ids"].astype(np.int64), batch["position_ids"].astype(np.int64), labels]
    return [tuple(torch.from_numpy(c[a:b]) for c in columns) for a, b in zip(bounds[:-1], bounds[1:])]


def forward_padded(model, batch, padding_id=0):
    """One forward of the padded batch with an attention mask, MLM loss by transformers itself."""
    sequences = split(batch)

    def pad(column, value):
        rows = [sequence[column] for sequence in sequences]
        return nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    labels = pad(2, -100)
    mask = pad(0, -1) >= 0  # (B, S), true on real tokens
    out = model(
        input_ids=pad(0, padding_id),
        position_ids=pad(1, 0),
        attention_mask=mask.long(),
        labels=labels,
        output_hidden_states=True,
    )
    hidden = out.hidden_states[-1]
    class_logits = model.classifier(hidden[:, 0])
    loss_task = F.cross_entropy(class_logits, torch.tensor(CLASS_LABELS))
    return {
        "output.last_hidden_state": hidden[mask],
        "output.mlm_logits": out.logits[labels >= 0],
        "output.class_logits": class_logits,
        "loss.mlm": out.loss,
        "loss.task": loss_task,
        "loss.total": (RHO2 * out.loss + loss_task) / (RHO2 + 1.0),
    }


def forward_one_by_one(model, batch):
    """The same numbers from unpadded sequences run one at a time, with explicit loss weights."""
    hidden_rows, mlm_logits, class_logits, loss_mlm, loss_task = [], [], [], 0.0, 0.0
    for (ids, positions, labels), class_label in zip(split(batch), CLASS_LABELS):
        hidden = model.bert(input_ids=ids[None], position_ids=positions[None]).last_hidden_state[0]
        masked = labels >= 0
        hidden_rows.append(hidden)
        mlm_logits.append(model.cls(hidden[masked]))
        class_logits.append(model.classifier(hidden[:1]))
        loss_mlm += F.cross_entropy(mlm_logits[-1], labels[masked], reduction="sum") / len(MASKED)
        loss_task += F.cross_entropy(class_logits[-1], torch.tensor([class_label])) / len(LENGTHS)
    return {
        "output.last_hidden_state": torch.cat(hidden_rows),
        "output.mlm_logits": torch.cat(mlm_logits),
        "output.class_logits": torch.cat(class_logits),
        "loss.mlm": loss_mlm,
        "loss.task": loss_task,
        "loss.total": (RHO2 * loss_mlm + loss_task) / (RHO2 + 1.0),
    }


def with_gradients(model, result):
    """Outputs, losses and `grad.<name>` of the total loss, detached."""
    model.zero_grad(set_to_none=True)
    result["loss.total"].backward()
    grads = {f"grad.{name}": parameter.grad.clone() for name, parameter in model.named_parameters()}
    return {name: value.detach() for name, value in result.items()} | grads


def adamw_steps(model, batch):
    """The parameters as `adamw3.<name>` after STEPS updates, in place on `model`."""
    lr, beta1, beta2, eps, decay = ADAMW.values()
    moments = {name: (torch.zeros_like(p), torch.zeros_like(p)) for name, p in model.named_parameters()}
    for t in range(1, STEPS + 1):
        result = with_gradients(model, forward_padded(model, batch))
        with torch.no_grad():
            for name, p in model.named_parameters():
                g, (m, v) = result[f"grad.{name}"], moments[name]
                m.copy_(beta1 * m + (1.0 - beta1) * g)
                v.copy_(beta2 * v + (1.0 - beta2) * g * g)
                p -= lr * (1.0 - beta2**t) ** 0.5 / (1.0 - beta1**t) * m / (v.sqrt() + eps)
                if not name.endswith("bias") and "LayerNorm" not in name:
                    p -= lr * decay * p
    return {f"adamw3.{name}": p.detach().clone() for name, p in model.named_parameters()}


def largest_difference(got, want):
    """max |got - want| over all tensors, each relative to the largest entry of its own `want` or 1e-3, and its name.

    The floor is for tensors that are zero in exact arithmetic: the gradient of a key bias (softmax ignores a shift).
    """
    assert got.keys() == want.keys()
    errors = {}
    for name in want:
        assert got[name].shape == want[name].shape and torch.isfinite(got[name]).all(), name
        scale = max(want[name].abs().max().item(), 1e-3)
        errors[name] = (got[name].double() - want[name]).abs().max().item() / scale
    name = max(errors, key=errors.get)
    return errors[name], name


def check_by_central_difference(model, batch, result, h=1e-5):
    """The derivative along one random direction through all stored parameters, tied ones once."""
    generator = torch.Generator().manual_seed(SEED)
    directions = [torch.randn(p.shape, generator=generator, dtype=torch.float64) for p in model.parameters()]
    slope = sum((result[f"grad.{n}"] * d).sum() for (n, _), d in zip(model.named_parameters(), directions))
    with torch.no_grad():

        def loss_at(shift):
            for p, d in zip(model.parameters(), directions):
                p += shift * d
            loss = forward_padded(model, batch)["loss.total"]
            for p, d in zip(model.parameters(), directions):
                p -= shift * d
            return loss

        measured = (loss_at(h) - loss_at(-h)) / (2.0 * h)
    error = ((measured - slope) / slope).abs().item()
    print(f"gradient along a random direction {slope:.9f}, central difference {measured:.9f}: relative {error:.1e}")
    assert error < 1e-6


def main():
    torch.set_num_threads(1)  # one order of summation: the same bytes on every run
    torch.use_deterministic_algorithms(True)
    batch, model = build_batch(), build_model(torch.float64)
    weights = {name: p.detach().clone() for name, p in model.named_parameters()}
    result = with_gradients(model, forward_padded(model, batch))

    for label, other in [
        ("one sequence at a time", with_gradients(model, forward_one_by_one(model, batch))),
        ("padding id 50 for 0", with_gradients(model, forward_padded(model, batch, padding_id=50))),
    ]:
        error, name = largest_difference(other, result)
        print(f"{label}: largest relative difference {error:.1e} ({name})")
        assert error < 1e-12
    check_by_central_difference(build_model(torch.float64), batch, result)
    result |= adamw_steps(model, batch)

    single = build_model(torch.float32)
    rounded = with_gradients(single, forward_padded(single, batch)) | adamw_steps(single, batch)
    for group in ["output", "loss", "grad", "adamw3"]:
        names = [name for name in result if name.startswith(f"{group}.")]
        error, name = largest_difference({n: rounded[n] for n in names}, {n: result[n] for n in names})
        absolute = max((rounded[n].double() - result[n]).abs().max().item() for n in names)
        print(f"the same in float32, {group}: largest error {absolute:.1e}, relative {error:.1e} ({name})")

    tensors = {f"batch.{name}": values for name, values in batch.items()}
    for name, values in (weights | result).items():
        tensors[name] = np.atleast_1d(values.to(torch.float32).numpy())
    settings = CONFIG | {"num_labels": CLASSES, "rho2": RHO2, "adamw": ADAMW | {"steps": STEPS}, "seed": SEED}
    temporary = OUTPUT.with_suffix(".tmp")
    save_file(tensors, temporary, metadata={"settings": json.dumps(settings)})
    temporary.chmod(0o644)
    os.replace(temporary, OUTPUT)
    for name in sorted(tensors):
        print(f"{str(tensors[name].dtype):8} {str(list(tensors[name].shape)):10} {name}")
    print(f"{len(tensors)} tensors, {OUTPUT.stat().st_size} bytes")


if __name__ == "__main__":
    main()
