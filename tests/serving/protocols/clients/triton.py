"""tritonclient.http against the API: probes, metadata, every way to send and ask, retries, errors."""

from __future__ import annotations

import json
import sys

import numpy as np
import tritonclient.http as triton

NUMPY = {"FP64": np.float64, "FP32": np.float32, "INT64": np.int64, "INT32": np.int32, "BYTES": np.object_}

asked = json.load(sys.stdin)
model, rows, headers = asked["model"], asked["rows"], {"X-API-Key": asked["key"]}
names = list(rows[0])
client = triton.InferenceServerClient(asked["url"].removeprefix("http://"))


def tensor(
    name: str, values: list, datatype: str, *, binary: bool, shape: list[int] | None = None
) -> triton.InferInput:
    array = np.array(values, NUMPY[datatype]).reshape(shape or [len(values)])
    return triton.InferInput(name, list(array.shape), datatype).set_data_from_numpy(array, binary_data=binary)


def columns(*, binary: bool) -> list[triton.InferInput]:
    whole = "restarts"
    values = {name: [np.nan if row[name] is None else row[name] for row in rows] for name in names}
    return [tensor(name, values[name], "INT64" if name == whole else "FP64", binary=binary) for name in names]


def matrix(datatype: str) -> list[triton.InferInput]:
    values = [[np.nan if value is None else value for value in row.values()] for row in rows]
    return [tensor("input-0", values, datatype, binary=True, shape=[len(rows), len(names)])]


def infer(inputs: list[triton.InferInput], **options: object) -> triton.InferResult:
    return client.infer(model, inputs, headers=dict(headers), **options)


def probabilities(result: triton.InferResult) -> list[float]:
    return result.as_numpy("probability").tolist()


def error(call: object, *arguments: object, **options: object) -> list[str]:
    try:
        call(*arguments, **options)
    except triton.InferenceServerException as raised:
        return [raised.status(), raised.message()]
    raise AssertionError("no error")


in_json = [triton.InferRequestedOutput(name, binary_data=False) for name in ("probability", "prediction_id")]
ids = [tensor("prediction_id", [row_id.encode() for row_id in asked["ids"]], "BYTES", binary=True)]
first = infer(columns(binary=True) + ids, request_id="42", parameters={"request_source": "triton"})
again = infer(columns(binary=True) + ids, model_version="1", parameters={"request_source": "triton"})
json.dump(
    {
        "ready": [
            client.is_server_live(),
            client.is_server_ready(),
            client.is_model_ready(model),
            client.is_model_ready(model, "1"),
            client.is_model_ready("churn"),
        ],
        "server": client.get_server_metadata()["name"],
        "inputs": [one["name"] for one in client.get_model_metadata(model, headers=headers)["inputs"]],
        "probabilities": {
            "binary columns": probabilities(first),
            "JSON columns": probabilities(infer(columns(binary=False))),
            "JSON outputs": probabilities(infer(columns(binary=False), outputs=in_json)),
            "matrix": probabilities(infer(matrix("FP64"))),
            "asynchronous": probabilities(
                client.async_infer(model, matrix("FP64"), headers=dict(headers)).get_result()
            ),
        },
        "single precision": probabilities(infer(matrix("FP32"))),
        "request id": first.get_response()["id"],
        "ids": [one.decode() for one in first.as_numpy("prediction_id").tolist()],
        "retried": probabilities(again),
        "versions": first.as_numpy("model_version").tolist(),
        "errors": {
            "unknown input": error(infer, [tensor("colour", [1.0], "FP64", binary=True)]),
            "wrong value": error(
                infer, [*columns(binary=True)[:-1], tensor("restarts", [-1] * len(rows), "INT64", binary=True)]
            ),
            "unknown model": error(client.infer, "churn", columns(binary=True), headers=dict(headers)),
            "no key": error(client.infer, model, columns(binary=True)),
            "no key for metadata": error(client.get_model_metadata, model),
            "compressed": error(infer, columns(binary=True), request_compression_algorithm="gzip"),
        },
    },
    sys.stdout,
)
