"""Tiny CLIP models with random weights and a tokenizer of a few words, as folders."""

import json
from pathlib import Path

import torch
import transformers

WORDS = ("cat", "dog", "photo", "a", "the", "of", "sky", "rust", "spot", "background")
DEPTH, WIDTH, JOINT, PATCH = 4, 32, 24, 8


def make_clip(folder: Path, seed: int = 0) -> Path:
    """A whole CLIP model of four blocks, patch 8, 48 pixels, 24 joint dimensions."""
    tower = {"intermediate_size": 48, "num_hidden_layers": DEPTH, "num_attention_heads": 2, "hidden_size": WIDTH}
    vocabulary = _vocabulary()
    torch.manual_seed(seed)
    end = vocabulary["<|endoftext|>"]
    config = transformers.CLIPConfig(
        vision_config=tower | {"image_size": 48, "patch_size": PATCH},
        text_config=tower
        | {"vocab_size": len(vocabulary), "max_position_embeddings": 77}
        | {"bos_token_id": end - 1, "eos_token_id": end, "pad_token_id": end},
        projection_dim=JOINT,
    )
    model = transformers.CLIPModel(config)
    with torch.no_grad():  # fresh weights are so small that all pictures would look alike
        for parameter in model.parameters():
            parameter.add_(0.05 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    (folder / "vocab.json").write_text(json.dumps(vocabulary))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(_merges()) + "\n")
    return folder


def make_heads(path: Path, width: int = WIDTH, **changes: torch.Tensor | None) -> dict[str, torch.Tensor]:
    """A checkpoint of heads with random weights; `changes` replace tensors, None removes one."""
    generator = torch.Generator().manual_seed(1)
    state = {
        "obj_proj.weight": torch.randn(256, width, 3, 3, generator=generator),
        "obj_proj.bias": torch.randn(256, generator=generator),
        "bkg_decoder.weight": torch.randn(1, width, 1, 1, generator=generator) * 4,
        "bkg_decoder.bias": torch.zeros(1),
    }
    for name, value in changes.items():
        state.pop(name, None)
        if value is not None:
            state[name] = value
    torch.save(state, path)
    return state


def make_dinoiser(folder: Path) -> Path:
    """A whole CLIP model with heads beside it."""
    make_clip(folder)
    make_heads(folder / "last.pt")
    return folder


def _merges() -> list[str]:
    """Byte pairs that build each word, letter after letter."""
    merges = []
    for word in WORDS:
        built, *rest = [*word[:-1], word[-1] + "</w>"]
        for letter in rest:
            merges.append(f"{built} {letter}")
            built += letter
    return list(dict.fromkeys(merges))


def _vocabulary() -> dict[str, int]:
    letters = [chr(c) for c in range(33, 127)]
    tokens = [*letters, *(letter + "</w>" for letter in letters), *(pair.replace(" ", "") for pair in _merges())]
    tokens = [*dict.fromkeys(tokens), "<|startoftext|>", "<|endoftext|>"]
    return {token: number for number, token in enumerate(tokens)}
