#!/usr/bin/env bash
# The same prices, once as float32 and once as float64, are drift beyond doubt for the Kolmogorov-Smirnov test.
#
# Expected: rounding to float32 moves 19.99 by 2e-7. A test that sees only the order of values cannot notice that.
# Seen: it notices nothing else. Equal prices stop being ties: every float32 19.99 sorts before every float64 19.99, so the
#     distance between the two distribution functions becomes the whole share of rows with such a price. 500 rows of a
#     Parquet file with a float32 column, compared with rows of the same distribution from a CSV file: p < 1e-50 instead
#     of 1.0. pandas, numpy and scipy promote silently. The rank sum test turns too; prices that float32 can represent (9.75)
#     are not affected, so whether a shop ends its prices in .99 or .75 decides over drift.
# Versions: scipy 1.17.1, pandas 2.3.3, pyarrow 25.0.1, numpy 2.4.6. Run on 2026-11-27 with Python 3.11; it takes
#     about a minute with the installation and printed:
#     9.99, 19.99, ... as double: KS p 1.0e+00, rank sum p 7.4e-01, error of a value 0.0e+00
#     9.99, 19.99, ... as float: KS p 2.5e-63, rank sum p 3.3e-22, error of a value 1.7e-06
#     9.75, 19.75, ... as double: KS p 9.5e-01, rank sum p 3.0e-01, error of a value 0.0e+00
#     9.75, 19.75, ... as float: KS p 1.0e+00, rank sum p 9.8e-01, error of a value 0.0e+00
set -euo pipefail
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
cd "$folder"
python3 -m venv venv
venv/bin/python -m pip --disable-pip-version-check install -qq scipy==1.17.1 pandas==2.3.3 pyarrow==25.0.1 numpy==2.4.6

cat > check.py <<'EOF'
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
from scipy import stats

random = np.random.default_rng(7)
SHARES = [0.4, 0.3, 0.2, 0.1]


def drawn(prices: list[float], rows: int) -> pd.DataFrame:
    return pd.DataFrame({"price": random.choice(prices, size=rows, p=SHARES)})


def compare(prices: list[float], arrow_type: pa.DataType) -> dict[str, float]:
    drawn(prices, 15_000).to_csv("reference.csv", index=False)
    new = drawn(prices, 500)
    pq.write_table(pa.Table.from_pandas(new, schema=pa.schema([("price", arrow_type)])), "new.parquet")
    a, b = pd.read_csv("reference.csv")["price"], pd.read_parquet("new.parquet")["price"]
    return {
        "KS p": stats.ks_2samp(a, b).pvalue,
        "rank sum p": stats.mannwhitneyu(a, b).pvalue,
        "error of a value": float(np.abs(np.sort(b.to_numpy(np.float64)) - np.sort(new["price"].to_numpy())).max()),
    }


print("expected: the type of the column changes no rank, so it changes no p-value by much")
print("seen:")
seen = {}
for label, prices in (("9.99, 19.99, ...", [9.99, 19.99, 29.99, 49.99]), ("9.75, 19.75, ...", [9.75, 19.75, 29.75, 49.75])):
    for arrow_type in (pa.float64(), pa.float32()):
        seen[label[:4], str(arrow_type)] = compare(prices, arrow_type)
        of = ", ".join(f"{name} {value:.1e}" for name, value in seen[label[:4], str(arrow_type)].items())
        print(f"  {label} as {arrow_type}: {of}")

odd = seen["9.99", "float"]
checks = {
    "float64 against float64 is no drift": seen["9.99", "double"]["KS p"] > 0.01,
    "float32 against float64 is drift": odd["KS p"] < 1e-50,
    "the rank sum turns as well": odd["rank sum p"] < 1e-10,
    "though no value moved by more than 2e-6": odd["error of a value"] < 2e-6,
    "prices that float32 holds exactly are no drift": seen["9.75", "float"]["KS p"] > 0.01,
}
changed = [name for name, is_so in checks.items() if not is_so]
raise SystemExit(f"changed: {changed}" if changed else None)
EOF
nice -n 5 venv/bin/python check.py
