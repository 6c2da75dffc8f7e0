"""Pieces as a learner would write them, from their pages."""

WRITTEN = {
    "softmax": """
def softmax(scores):
    powers = (scores - scores.amax(-1, keepdim=True)).exp()
    return powers / powers.sum(-1, keepdim=True)
""",
    "cross-entropy": """
def cross_entropy(logits, targets):
    largest = logits.amax(-1, keepdim=True)
    log_sum = largest[:, 0] + (logits - largest).exp().sum(-1).log()
    return (log_sum - logits.gather(1, targets[:, None])[:, 0]).mean()
""",
    "layer-norm": """
def layer_norm(x, weight, bias, eps):
    centred = x - x.mean(-1, keepdim=True)
    y = centred / (centred.square().mean(-1, keepdim=True) + eps).sqrt() * weight
    return y if bias is None else y + bias
""",
    "attention": """
import math
import torch

def attention(q, k, v, softmax):
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    later = torch.ones(scores.shape[-2:], dtype=torch.bool).triu(1)
    return softmax(scores.masked_fill(later, -torch.inf)) @ v
""",
    "heads": """
def heads(x, qkv, out, n_head, attention):
    B, T, C = x.shape
    q, k, v = (part.view(B, T, n_head, C // n_head).transpose(1, 2) for part in (x @ qkv.T).split(C, dim=-1))
    return attention(q, k, v).transpose(1, 2).reshape(B, T, C) @ out.T
""",
    "feed-forward": """
import math

def feed_forward(x, up, down):
    h = x @ up.T
    return 0.5 * h * (1 + (math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)).tanh()) @ down.T
""",
    "block": """
def block(x, attention_norm, attention, feed_forward_norm, feed_forward):
    x = x + attention(attention_norm(x))
    return x + feed_forward(feed_forward_norm(x))
""",
    "gpt": """
import math
import torch

def gpt(ids, token_embedding, position_embedding, blocks, final_norm):
    x = token_embedding[ids] + position_embedding[: ids.shape[1]]
    for block in blocks:
        x = block(x)
    return final_norm(x) @ token_embedding.T

def initialise(parameters, n_layer):
    with torch.no_grad():
        for name, parameter in parameters.items():
            if name.endswith(("out.weight", "down.weight")):
                parameter.normal_(0.0, 0.02 / math.sqrt(2 * n_layer))
            elif parameter.dim() == 2:
                parameter.normal_(0.0, 0.02)
            elif name.endswith("bias"):
                parameter.zero_()
""",
    "loss": """
def loss(model, tokens, cross_entropy):
    return cross_entropy(model(tokens[:, :-1]).flatten(0, 1), tokens[:, 1:].flatten())
""",
    "adamw": """
def adamw(weight, gradient, m, v, step, lr, beta1, beta2, eps, decay):
    m = beta1 * m + (1 - beta1) * gradient
    v = beta2 * v + (1 - beta2) * gradient**2
    size = (v / (1 - beta2**step)).sqrt() + eps
    return weight - lr * decay * weight - lr * (m / (1 - beta1**step)) / size, m, v
""",
    "schedule": """
import math

def learning_rate(step, steps, warmup_steps, peak, low):
    if step < warmup_steps:
        return peak * (step + 1) / (warmup_steps + 1)
    s = (step - warmup_steps) / max(1, steps - warmup_steps)
    return low + (peak - low) * (1 + math.cos(math.pi * s)) / 2
""",
    "sampling": """
import torch

def probabilities(logits, temperature, top_p):
    if temperature == 0:
        return torch.zeros_like(logits).index_fill(0, logits.argmax(), 1.0)
    p = (logits / temperature).softmax(-1)
    ordered, order = p.sort(descending=True)
    stays = ordered.cumsum(-1) - ordered < top_p
    p = p * torch.zeros_like(p).index_fill(0, order[stays], 1.0)
    return p / p.sum()
""",
    "kv-cache": """
import math
import torch

def attend(q, k, v, kept):
    if kept is not None:
        k, v = torch.cat((kept[0], k), dim=-2), torch.cat((kept[1], v), dim=-2)
    T, S = q.shape[-2], k.shape[-2]
    scores = q @ k.transpose(-2, -1) / math.sqrt(q.shape[-1])
    scores = scores.masked_fill(torch.ones(T, S, dtype=torch.bool).triu(S - T + 1), -torch.inf)
    return scores.softmax(-1) @ v, (k, v)
""",
    "bpe": """
def merge(ids, pair, new):
    merged, i = [], 0
    while i < len(ids):
        if tuple(ids[i : i + 2]) == pair:
            merged.append(new)
            i += 2
        else:
            merged.append(ids[i])
            i += 1
    return merged

def encode(ids, merges):
    while pairs := [pair for pair in zip(ids, ids[1:]) if pair in merges]:
        pair = min(pairs, key=merges.get)
        ids = merge(ids, pair, merges[pair])
    return ids
""",
    "lora": """
import torch

def start(width_in, width_out, rank):
    return torch.randn(rank, width_in) / width_in**0.5, torch.zeros(width_out, rank)

def lora(x, weight, a, b, alpha):
    return x @ weight.T + alpha / a.shape[0] * (x @ a.T @ b.T)

def merged(weight, a, b, alpha):
    return weight + alpha / a.shape[0] * b @ a
""",
    "logit-lens": """
def logit_lens(streams, final_norm, unembedding):
    return (final_norm(streams) @ unembedding.T).softmax(-1)
""",
}
