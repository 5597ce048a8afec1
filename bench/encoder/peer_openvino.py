"""Make a model's int8 export as sentence-transformers does it for its OpenVINO backend, into MODEL/openvino.

    E/bin/python bench/encoder/peer_openvino.py MODEL

E is made from bench/env/sentence_transformers_openvino.txt. Static quantisation, as its documentation recommends for
processors, with its defaults; it is calibrated on source text of the Python standard library, where its own function
takes sentences from the hub, which is out of reach and farther from code.
"""

from __future__ import annotations

import sys
import sysconfig
from pathlib import Path
from tempfile import TemporaryDirectory

from datasets import Dataset
from optimum.intel import OVConfig, OVQuantizationConfig, OVQuantizer
from sentence_transformers import SentenceTransformer

SIZE = 750
"""Characters of a calibration text."""


def main() -> None:
    folder = Path(sys.argv[1])
    model = SentenceTransformer(str(folder), device="cpu", backend="openvino", model_kwargs={"export": True})
    files = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    config = OVConfig(quantization_config=OVQuantizationConfig())
    texts = [file.read_text("utf-8", "replace")[:SIZE] for file in files][: config.quantization_config.num_samples]
    length = min(384, model.max_seq_length)
    rows = model.tokenizer(texts, padding="max_length", max_length=length, truncation=True)
    quantizer = OVQuantizer.from_pretrained(model[0].auto_model)
    with TemporaryDirectory(dir=folder) as made:  # which gets another config.json, and the graph in a folder of its own
        quantizer.quantize(Dataset.from_dict(dict(rows)), save_directory=made, ov_config=config)
        (Path(made) / "openvino").rename(folder / "openvino")


if __name__ == "__main__":
    main()
