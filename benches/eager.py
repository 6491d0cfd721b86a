"""What PyTorch's eager mode costs the host for one training step of BERT-base: operators a step x the cost of one.

    python3 benches/eager.py            # needs torch, no GPU

Operators are counted where they are dispatched (TorchDispatchMode), on the meta device, so that no arithmetic runs: forward, backward
and AdamW of a masked language model, 12 layers of 768, 32 sequences of 128 tokens, logits of the masked rows. The cost of one is
that of an addition of two numbers on the CPU, with and without the autograd graph.
"""

import time

import torch
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

LAYERS, WIDTH, HEADS, VOCABULARY, BATCH, LENGTH = 12, 768, 12, 30522, 32, 128
MASKED = BATCH * LENGTH * 15 // 100


class Layer(nn.Module):
    def __init__(self):
        super().__init__()
        self.q, self.k, self.v, self.o = (nn.Linear(WIDTH, WIDTH) for _ in range(4))
        self.inner, self.outer = nn.Linear(WIDTH, 4 * WIDTH), nn.Linear(4 * WIDTH, WIDTH)
        self.norms = nn.ModuleList(nn.LayerNorm(WIDTH, eps=1e-12) for _ in range(2))
        self.drop = nn.Dropout(0.1)

    def forward(self, x):
        heads = lambda y: y.view(BATCH, LENGTH, HEADS, WIDTH // HEADS).transpose(1, 2)
        q, k, v = heads(self.q(x)), heads(self.k(x)), heads(self.v(x))
        scores = torch.matmul(q, k.transpose(-1, -2)) / (WIDTH // HEADS) ** 0.5
        mixed = torch.matmul(self.drop(torch.softmax(scores, -1)), v).transpose(1, 2).reshape(BATCH, LENGTH, WIDTH)
        x = self.norms[0](x + self.drop(self.o(mixed)))
        return self.norms[1](x + self.drop(self.outer(F.gelu(self.inner(x)))))


class Model(nn.Module):
    def __init__(self):
        super().__init__()
        self.word, self.position = nn.Embedding(VOCABULARY, WIDTH), nn.Embedding(512, WIDTH)
        self.segment = nn.Embedding(2, WIDTH)
        self.norm, self.drop = nn.LayerNorm(WIDTH, eps=1e-12), nn.Dropout(0.1)
        self.layers = nn.ModuleList(Layer() for _ in range(LAYERS))
        self.transform, self.head_norm = nn.Linear(WIDTH, WIDTH), nn.LayerNorm(WIDTH, eps=1e-12)
        self.bias = nn.Parameter(torch.zeros(VOCABULARY))

    def forward(self, ids, positions, segments, rows, labels):
        x = self.drop(self.norm(self.word(ids) + self.position(positions) + self.segment(segments)))
        for layer in self.layers:
            x = layer(x)
        x = x.view(-1, WIDTH).index_select(0, rows)
        x = self.head_norm(F.gelu(self.transform(x)))
        return F.cross_entropy(F.linear(x, self.word.weight, self.bias), labels)


class Count(TorchDispatchMode):
    operators = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        Count.operators += 1
        return func(*args, **(kwargs or {}))


# Operators of AdamW over lists of all parameters, as torch.optim.AdamW(foreach=True) writes it down.
OVER_LISTS = 8


def adamw(parameters, moments):
    """The update tensor by tensor, as torch.optim.AdamW writes it down, without its bookkeeping."""
    for p, m, v in zip(parameters, *moments):
        p.mul_(1 - 1e-6)
        m.mul_(0.9).add_(p.grad, alpha=0.1)
        v.mul_(0.999).addcmul_(p.grad, p.grad, value=0.001)
        p.addcdiv_(m, v.sqrt().add_(1e-6), value=-1e-4)


def count():
    """Operators of forward and backward, and of the update."""
    model = Model().to("meta")
    parameters = list(model.parameters())
    moments = [[torch.zeros_like(p) for p in parameters] for _ in range(2)]
    index = lambda *shape: torch.zeros(*shape, dtype=torch.long, device="meta")
    inputs = [index(BATCH, LENGTH) for _ in range(3)] + [index(MASKED), index(MASKED)]
    with Count():
        model(*inputs).backward()
        passes = Count.operators
        with torch.no_grad():
            adamw(parameters, moments)
    return passes, Count.operators - passes


def dispatch(graph):
    """Microseconds of one addition; the best of some thousands at a time."""
    a, b, best = torch.ones(1, requires_grad=graph), torch.ones(1), float("inf")
    for _ in range(20):
        start = time.perf_counter()
        for _ in range(5000):
            a + b
        best = min(best, (time.perf_counter() - start) / 5000)
    return 1e6 * best


torch.set_num_threads(1)
passes, update = count()
plain, recorded = dispatch(False), dispatch(True)
print(f"torch {torch.__version__}")
print(f"operators a step: {passes} of forward and backward, {update} of AdamW tensor by tensor ({OVER_LISTS} over lists)")
print(f"an operator: {plain:.2f} us, {recorded:.2f} us with the graph")
for name, operators in [("tensor by tensor", passes + update), ("over lists", passes + OVER_LISTS)]:
    print(f"a step, AdamW {name}: {operators * plain:.0f} to {operators * recorded:.0f} us of the host")
