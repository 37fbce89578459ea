"""KServe's InferenceRESTClient against the API: probes, tensors in JSON and in binary, errors."""

from __future__ import annotations

import asyncio
import json
import sys

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest, RESTConfig

asked = json.load(sys.stdin)
model, rows, url, headers = asked["model"], asked["rows"], asked["url"], {"X-API-Key": asked["key"]}


def request(*, binary: bool, **changes: float) -> InferRequest:
    inputs = []
    for name in rows[0]:
        values = [row[name] for row in (row | changes for row in rows)]
        whole = name == "restarts"
        tensor = InferInput(name, [len(rows)], "INT64" if whole else "FP64", None if binary else values)
        if binary:
            array = np.array(values, np.int64 if whole else np.float64)
            tensor.set_data_from_numpy(array, binary_data=True)
        inputs.append(tensor)
    parameters = {"binary_data_output": True} if binary else None
    return InferRequest(model_name=model, infer_inputs=inputs, parameters=parameters)


async def main() -> None:
    async with InferenceRESTClient(RESTConfig(protocol="v2", retries=0)) as client:

        async def probabilities(*, binary: bool) -> list[float]:
            answer = await client.infer(url, request(binary=binary), model_name=model, headers=dict(headers))
            outputs = {output.name: output.as_numpy().tolist() for output in answer.outputs}
            assert len(set(outputs["prediction_id"])) == len(rows)
            return outputs["probability"]

        async def error(name: str, **changes: float) -> str:
            try:
                await client.infer(url, request(binary=False, **changes), model_name=name, headers=dict(headers))
            except httpx.HTTPStatusError as raised:
                return str(raised)
            raise AssertionError("no error")

        found = {
            "ready": [
                await client.is_server_live(url),
                await client.is_server_ready(url),
                await client.is_model_ready(url, model),
                await client.is_model_ready(url, "churn"),
            ],
            "probabilities": {
                "JSON": await probabilities(binary=False),
                "binary": await probabilities(binary=True),
            },
            "errors": {"wrong value": await error(model, restarts=-1), "unknown model": await error("churn")},
        }
    json.dump(found, sys.stdout)


asyncio.run(main())
