"""Write the files of this folder: small networks as TransformerLens saves them, and its own logits on every input.

    python tests/files/make.py tests/files            with transformer_lens 2.x (HookedTransformer), or 4.x (TransformerBridge)

`NAME.safetensors` is the state_dict, `NAME.json` the configuration; `logits-VERSION.safetensors` holds the logits at the last
position, in float64 rounded to float32, of all inputs in order.
"""

import json
import sys
from pathlib import Path

import torch
import transformer_lens
from safetensors.torch import save_file

BASE = dict(n_layers=1, d_model=8, n_ctx=3, d_head=8, n_heads=1, d_vocab=10, act_fn="relu", attn_only=True, normalization_type=None, seed=0)
HEADS = dict(n_heads=2, d_head=4)
HOOKED = {
    "plain": {}, "biases": {}, "two-heads": HEADS, "narrow": dict(n_heads=2, d_head=3), "ln": dict(normalization_type="LN"),
    "ln-pre": dict(normalization_type="LNPre"), "rms": dict(normalization_type="RMS"), "rms-pre": dict(normalization_type="RMSPre"),
    "mlp-relu": dict(attn_only=False, d_mlp=16), "mlp-gelu": dict(attn_only=False, d_mlp=16, act_fn="gelu", normalization_type="LN", **HEADS),
    "mlp-gelu-new": dict(attn_only=False, d_mlp=16, act_fn="gelu_new", normalization_type="LNPre", **HEADS),
    "two-layers": dict(n_layers=2, attn_only=False, d_mlp=12, normalization_type="LN", **HEADS),
    "three-layers-both-ways": dict(n_layers=3, attention_dir="bidirectional", **HEADS),
    "closing": dict(d_vocab=11, d_vocab_out=10, n_ctx=4), "no-scale": dict(use_attn_scale=False),
}
BRIDGED = {"bridge": {}, "bridge-heads": HEADS, "bridge-mlp": dict(attn_only=False, d_mlp=16, normalization_type="LN", act_fn="gelu_new", **HEADS)}


def build(settings: dict):
    if transformer_lens.__dict__.get("HookedTransformer"):
        from transformer_lens import HookedTransformer, HookedTransformerConfig
        return HookedTransformer(HookedTransformerConfig(**BASE | settings, device="cpu"))
    from transformer_lens.model_bridge import TransformerBridge
    return TransformerBridge.boot_native(BASE | settings)


def main(folder: Path) -> None:
    logits, old = {}, bool(transformer_lens.__dict__.get("HookedTransformer"))
    for name, settings in (HOOKED if old else BRIDGED).items():
        model, g = build(settings), torch.Generator().manual_seed(0)
        for key, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=g)
            bias = key.endswith((".b", "bias")) or ".b_" in key
            if not (name == "plain" and bias):
                parameter.data = 0.3 * noise if bias else 1 + 0.2 * noise if ".ln" in key or "ln_final" in key else 0.5 * noise
        free = torch.cartesian_prod(*[torch.arange(10)] * 3)
        tokens = torch.cat([free, torch.full((1000, 1), 10)], 1) if name == "closing" else free
        save_file({key: x.contiguous() for key, x in model.state_dict().items()}, folder / f"{name}.safetensors")
        said = model.cfg.to_dict() if hasattr(model.cfg, "to_dict") else vars(model.cfg)
        plain = {key: value for key, value in said.items() if isinstance(value, (int, float, str, bool, type(None)))}
        (folder / f"{name}.json").write_text(json.dumps(plain) + "\n")
        with torch.no_grad():
            logits[name] = model.to(torch.float64)(tokens)[:, -1].float()
    save_file(logits, folder / f"logits-{'2' if old else '4'}.safetensors")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
