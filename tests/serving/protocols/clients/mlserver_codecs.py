"""MLServer's codecs and types over HTTP, and its batch client, `mlserver infer`, against the API."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import pandas as pd
import requests
from mlserver.codecs import NumpyRequestCodec, PandasCodec
from mlserver.types import InferenceRequest, InferenceResponse

asked = json.load(sys.stdin)
model, rows, url, headers = asked["model"], asked["rows"], asked["url"], {"X-API-Key": asked["key"]}
frame = pd.DataFrame(rows)


def post(request: InferenceRequest) -> requests.Response:
    return requests.post(f"{url}/v2/models/{model}/infer", json=request.model_dump(), headers=headers, timeout=60)


def probabilities(request: InferenceRequest) -> list[float]:
    answer = post(request)
    assert answer.status_code == 200, answer.text
    decoded = PandasCodec.decode_response(InferenceResponse.model_validate(answer.json()))
    assert decoded["prediction_id"].is_unique
    return decoded["probability"].tolist()


def batch_infer(*, binary: bool) -> tuple[list[float], list[str]]:
    """Every row as a request of its own, which `mlserver infer` puts together in batches of two, and one that is wrong."""
    requests_ = [PandasCodec.encode_request(frame.iloc[[i]], use_bytes=False) for i in range(len(frame))]
    with tempfile.TemporaryDirectory() as folder:
        source, target = Path(folder, "in"), Path(folder, "out")
        source.write_text("".join(f"{request.model_dump_json()}\n" for request in requests_))
        command = [Path(sys.executable).with_name("mlserver"), "infer", "-u", url.removeprefix("http://"), "-m", model]
        options = ["-i", source, "-o", target, "-s", "2", "-w", "1", "-r", "1", "-H", f"X-API-Key: {asked['key']}"]
        subprocess.run([*command, *options, *(["-b"] if binary else [])], check=True, capture_output=True, timeout=100)
        lines = sorted(
            map(json.loads, target.read_text().splitlines()), key=lambda line: line["parameters"]["batch_index"]
        )
    errors = [line["error"]["msg"] for line in lines if "error" in line]
    outputs = [{one["name"]: one["data"] for one in line["outputs"]} for line in lines if "error" not in line]
    return [output["probability"][0] for output in outputs], errors


wrong = post(PandasCodec.encode_request(frame.assign(restarts=-1), use_bytes=False))
json.dump(
    {
        "probabilities": {
            "frame": probabilities(PandasCodec.encode_request(frame, use_bytes=False)),
            "array": probabilities(NumpyRequestCodec.encode_request(frame.to_numpy(np.float64))),
            "infer": batch_infer(binary=False)[0],
            "infer in binary": batch_infer(binary=True)[0],
        },
        "errors": {"wrong value": [wrong.status_code, wrong.json()["error"]]},
    },
    sys.stdout,
)
