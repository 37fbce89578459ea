"""Model files whose makers want code of theirs to run when they are loaded, or the loader to run out of memory.

Each of `HOSTILE_FILES` makes the bytes of one file; `canary` is the path that its code would create. They follow the
published proofs of concept: pickles under another name, CVE-2024-37065 and the advisories of 2025 on skops
(CVE-2025-54412: OperatorFuncNode, CVE-2025-54413: MethodNode, CVE-2025-54886: the fallback to joblib).
"""

from __future__ import annotations

import io
import itertools
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

HostileFile = Callable[[Path], bytes]
_ids = itertools.count(1)


class Payload:
    """Unpickling it creates the canary."""

    def __init__(self, canary: Path) -> None:
        self._canary = canary

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self._canary,)


# Building blocks: the nodes of skops' schema.json


def node(name: str, module: str, loader: str, **content: Any) -> dict[str, Any]:
    return {"__class__": name, "__module__": module, "__loader__": loader, "__id__": next(_ids), **content}


def plain(value: Any) -> dict[str, Any]:
    return node("str", "builtins", "JsonNode", content=json.dumps(value), is_json=True)


def sequence(kind: str, *items: Any) -> dict[str, Any]:
    return node(kind, "builtins", f"{kind.capitalize()}Node", content=list(items))


def mapping(**values: Any) -> dict[str, Any]:
    types = [node("str", "builtins", "TypeNode") for _ in values]
    return node("dict", "builtins", "DictNode", content=values, key_types=sequence("list", *types))


def function(module: str, name: str) -> dict[str, Any]:
    return node(name, module, "FunctionNode")


def classifier(**attributes: Any) -> dict[str, Any]:
    """A type that is trusted, with any attributes."""
    return node("LogisticRegression", "sklearn.linear_model._logistic", "ObjectNode", content=mapping(**attributes))


def skops_file(schema: dict[str, Any], members: dict[str, bytes] | None = None, *, protocol: int = 2) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("schema.json", json.dumps(schema | {"protocol": protocol, "_skops_version": "0.11.0"}))
        for name, data in (members or {}).items():
            archive.writestr(name, data)
    return buffer.getvalue()


def npy(array: np.ndarray[Any, Any]) -> bytes:
    buffer = io.BytesIO()
    np.save(buffer, array, allow_pickle=True)
    return buffer.getvalue()


def shell(canary: Path) -> str:
    return f"touch {canary}"


def python(canary: Path) -> str:
    return f"__import__('pathlib').Path({str(canary)!r}).touch()"


# Pickles


def raw_pickle(canary: Path) -> bytes:
    return pickle.dumps(Payload(canary))


def joblib_file(canary: Path) -> bytes:
    """CVE-2025-54886: what is no zip was handed to joblib."""
    import joblib

    buffer = io.BytesIO()
    joblib.dump({"model": Payload(canary)}, buffer, compress=3)
    return buffer.getvalue()


def pickle_behind_a_zip(canary: Path) -> bytes:
    """Begins as a pickle and ends as a zip: readable as both."""
    return raw_pickle(canary) + skops_file(plain(1), {"model.pkl": raw_pickle(canary)})


def pickled_object_array(canary: Path) -> bytes:
    members = {"coef.npy": npy(np.array([Payload(canary)], dtype=object))}
    return skops_file(classifier(coef_=node("ndarray", "numpy", "NdArrayNode", type="numpy", file="coef.npy")), members)


def pickled_sparse_matrix(canary: Path) -> bytes:
    buffer = io.BytesIO()
    np.savez(buffer, data=np.array([Payload(canary)], dtype=object), format=np.array(b"csr"), allow_pickle=True)
    matrix = node("spmatrix", "scipy.sparse._matrix", "SparseMatrixNode", type="scipy", file="m.npz")
    return skops_file(classifier(coef_=matrix), {"m.npz": buffer.getvalue()})


# Nodes that name what they should not


def system_as_constructor(canary: Path) -> bytes:
    arguments = sequence("tuple", plain(shell(canary)))
    return skops_file(node("system", "os", "ConstructorFromReduceNode", content=arguments))


def popen_as_object(canary: Path) -> bytes:
    arguments = sequence("tuple", sequence("list", plain("touch"), plain(str(canary))))
    return skops_file(classifier(solver=node("Popen", "subprocess", "ConstructorFromReduceNode", content=arguments)))


def popen_with_state(canary: Path) -> bytes:
    return skops_file(node("Popen", "subprocess", "ObjectNode", content=mapping(args=plain(["touch", str(canary)]))))


def eval_in_a_partial(canary: Path) -> bytes:
    content = {
        "func": function("builtins", "eval"),
        "args": sequence("tuple", plain(python(canary))),
        "kwds": mapping(),
        "namespace": mapping(),
    }
    return skops_file(classifier(predict_proba=node("partial", "functools", "PartialNode", content=content)))


def system_of_an_old_protocol(canary: Path) -> bytes:
    """CVE-2024-37065's shape: a function named in the content, not where it was looked for."""
    content = {"module_path": "os", "function": "system"}
    hidden = node("add", "numpy", "FunctionNode", content=content)
    return skops_file(classifier(predict_proba=hidden, C=plain(shell(canary))), protocol=0)


def operator_call_under_a_trusted_name(canary: Path) -> bytes:
    """CVE-2025-54412: audited as the trusted class that it names, built as `operator.call(eval, ...)`."""
    attributes = sequence("tuple", node("eval", "builtins", "TypeNode"), plain(python(canary)))
    return skops_file(
        node("call", "sklearn.linear_model._stochastic_gradient.SGDRegressor", "OperatorFuncNode", attrs=attributes)
    )


def operator_call(canary: Path) -> bytes:
    attributes = sequence("tuple", node("eval", "builtins", "TypeNode"), plain(python(canary)))
    return skops_file(node("call", "operator", "OperatorFuncNode", attrs=attributes))


def skops_that_loads_a_second_file(canary: Path) -> bytes:
    """The second step of CVE-2025-54412: a model that loads a worse one with its own list of trusted types."""
    inner = skops_file(node("call", "operator", "OperatorFuncNode", attrs=sequence("tuple", plain(python(canary)))))
    attributes = sequence(
        "tuple",
        node("loads", "skops.io", "TypeNode"),
        node("bytes", "builtins", "BytesNode", file="inner.skops"),
        sequence("list", plain("builtins.eval"), plain("operator.call")),
    )
    return skops_file(node("call", "operator", "OperatorFuncNode", attrs=attributes), {"inner.skops": inner})


def method_of_another_object(canary: Path) -> bytes:
    """CVE-2025-54413: the node says one trusted type, and the object whose attribute is taken is another."""
    content = {"obj": node("Popen", "subprocess", "TypeNode"), "func": "__init__"}
    method = node("LogisticRegression", "sklearn.linear_model._logistic", "MethodNode", content=content)
    return skops_file(classifier(predict_proba=method, C=plain(shell(canary))))


def method_that_reaches_globals(canary: Path) -> bytes:
    """CVE-2025-54413's walk from an estimator's method to its module's globals."""
    content = {"obj": classifier(C=plain(1.0)), "func": "fit.__globals__"}
    method = node("LogisticRegression", "sklearn.linear_model._logistic", "MethodNode", content=content)
    call = sequence("tuple", method, plain(python(canary)))
    return skops_file(classifier(predict_proba=node("call", "operator", "OperatorFuncNode", attrs=call)))


def reduce_with_another_constructor(canary: Path) -> bytes:
    """A loss function's node takes its constructor from the file."""
    reduced = {"args": sequence("tuple", plain(shell(canary)))}
    return skops_file(classifier(loss=node("system", "os", "LossNode", __reduce__=reduced, content=mapping())))


def trusted_pipeline_with_an_untrusted_step(canary: Path) -> bytes:
    transform = node(
        "FunctionTransformer",
        "sklearn.preprocessing._function_transformer",
        "ObjectNode",
        content=mapping(func=function("os", "system"), validate=plain(False)),
    )
    steps = sequence("list", sequence("tuple", plain("f"), transform), sequence("tuple", plain("c"), classifier()))
    return skops_file(node("Pipeline", "sklearn.pipeline", "ObjectNode", content=mapping(steps=steps)))


def random_generator_of_any_name(canary: Path) -> bytes:
    """The bit generator's class is a plain string in the file, and called."""
    content = {"bit_generator": mapping(bit_generator=plain("seed"), state=plain(1)), "seed_seq": mapping()}
    return skops_file(classifier(rng=node("Generator", "numpy.random", "RandomGeneratorNode", content=content)))


def dictionary_of_another_class(canary: Path) -> bytes:
    content = node("Popen", "subprocess", "DictNode", content={}, key_types=sequence("list"))
    return skops_file(classifier(C=content))


# Archives that unpack to more than they should, or elsewhere


def zip_bomb(canary: Path) -> bytes:
    return skops_file(plain(1), {"zeros.npy": bytes(50_000_000)})


def bomb_within_a_member(canary: Path) -> bytes:
    """numpy unpacks a member that is a zip itself."""
    buffer = io.BytesIO()
    np.savez_compressed(buffer, data=np.zeros(6_000_000))
    matrix = node("spmatrix", "scipy.sparse._matrix", "SparseMatrixNode", type="scipy", file="m.npz")
    return skops_file(classifier(coef_=matrix), {"m.npz": buffer.getvalue()})


def one_member_read_many_times(canary: Path) -> bytes:
    reads = [node("bytes", "builtins", "BytesNode", file="part.bin") for _ in range(100)]
    return skops_file(classifier(C=sequence("list", *reads)), {"part.bin": bytes(1_000_000)})


def endless_nesting(canary: Path) -> bytes:
    depth = 100_000
    text = '{"__class__": "list", "content": ' + "[" * depth + "]" * depth + "}"
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("schema.json", text)
    return buffer.getvalue()


def array_larger_than_memory(canary: Path) -> bytes:
    header = npy(np.zeros(1)).replace(b"(1,)", b"(4000000000000,)")[:128]
    array = node("ndarray", "numpy", "NdArrayNode", type="numpy", file="coef.npy")
    return skops_file(classifier(coef_=array), {"coef.npy": header})


def member_outside_the_archive(canary: Path) -> bytes:
    return skops_file(plain(1), {f"../../../../{canary}": b"written", str(canary): b"written"})


def no_classifier(canary: Path) -> bytes:
    return skops_file(mapping(predict_proba=plain(shell(canary))))


NOT_TRUSTED = "holds types that are not trusted: .*"

HOSTILE_FILES: dict[HostileFile, str] = {
    raw_pickle: "not a zip file",
    joblib_file: "not a zip file",
    pickle_behind_a_zip: "holds a int, which is no classifier",
    pickled_object_array: "allow_pickle=False",
    pickled_sparse_matrix: "allow_pickle=False",
    system_as_constructor: NOT_TRUSTED + r"os\.system",
    popen_as_object: NOT_TRUSTED + r"subprocess\.Popen",
    popen_with_state: NOT_TRUSTED + r"subprocess\.Popen",
    eval_in_a_partial: NOT_TRUSTED + r"builtins\.eval",
    system_of_an_old_protocol: NOT_TRUSTED + r"os\.system",
    operator_call_under_a_trusted_name: "Expected module 'operator'",
    operator_call: NOT_TRUSTED + r"operator\.call",
    skops_that_loads_a_second_file: NOT_TRUSTED + r"skops\.io\.loads",
    method_of_another_object: "Expected object of type",
    method_that_reaches_globals: NOT_TRUSTED + r"LogisticRegression\.fit\.__globals__",
    reduce_with_another_constructor: NOT_TRUSTED + r"os\.system",
    trusted_pipeline_with_an_untrusted_step: NOT_TRUSTED + r"os\.system",
    random_generator_of_any_name: NOT_TRUSTED + r"numpy\.random\.seed",
    dictionary_of_another_class: NOT_TRUSTED + r"subprocess\.Popen",
    zip_bomb: "unpacks to 50,000,[0-9]+ bytes",
    bomb_within_a_member: "unpacks to 48,[0-9,]+ bytes",
    one_member_read_many_times: "unpacks to 100,000,000 bytes",
    endless_nesting: "RecursionError",
    array_larger_than_memory: "does not load: (MemoryError|_ArrayMemoryError|ValueError)",
    member_outside_the_archive: "which is no plain file name",
    no_classifier: "holds a dict, which is no classifier",
}
"""Each with what its refusal says (a pattern), where at most 40 MB may be unpacked."""
