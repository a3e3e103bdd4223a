"""Run as a program where archsmith cannot be imported: load saved folders as a user would, write what they compute.

Arguments: a folder whose subfolders each hold `model/`, `inputs.safetensors` and `auto` (the Auto class's name).
Beside them come `outputs.safetensors` (logits; `again` after save_pretrained and a second load; `cached` and
`uncached` token ids for models that generate).
"""

import sys
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file, save_file


def main(root: Path) -> None:
    for case in sorted(path for path in root.iterdir() if path.is_dir()):
        inputs = load_file(case / "inputs.safetensors")
        auto = getattr(transformers, (case / "auto").read_text())
        model = auto.from_pretrained(case / "model", trust_remote_code=True).eval()
        with torch.no_grad():
            found = {"logits": model(**inputs)[0].clone()}
            model.save_pretrained(case / "again")
            again = auto.from_pretrained(case / "again", trust_remote_code=True).eval()
            found["again"] = again(**inputs)[0].clone()
            if model.can_generate():
                prompt = {name: ids[:1] for name, ids in inputs.items() if not name.startswith("decoder")}
                for name, cache in (("cached", True), ("uncached", False)):
                    found[name] = model.generate(**prompt, max_new_tokens=12, do_sample=False, use_cache=cache)
        save_file(found, case / "outputs.safetensors")


if __name__ == "__main__":
    sys.modules["archsmith"] = None  # type: ignore[assignment]  # here, since pytest imports this file for doctests
    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    torch.set_num_threads(1)
    main(Path(sys.argv[1]))
