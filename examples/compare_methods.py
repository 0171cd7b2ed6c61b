"""Compare three methods on handwritten digits, then evaluate the codes of the best one once more.

Run it from any folder: `python compare_methods.py`. It takes about half a minute on two cores and leaves its
records in `results/runs`, where `hashbench table`, `plot` and `report` find them, too.
"""

import numpy as np

import hashbench

runs = hashbench.run_experiment(
    {
        "methods": ["lsh", "pcah", "itq"],
        "datasets": ["digits"],
        "bits": [16, 32],
        "seeds": [0, 1],
    }
)

# A row for each run; a metric is the expectation over all orders of items at equal distance.
means = runs.pivot_table(index="method", columns="bits", values="mAP@all").round(3)
print(means)

best = runs.loc[runs["mAP@all"].idxmax()]
print(f"best: {best['label']}, {best['bits']} bits, seed {best['seed']}: {best['mAP@all']:.3f}")

# The codes are plain arrays, and the evaluator takes those of any program; here, without half of the bits.
codes = np.load(f"{best['folder']}/codes.npz")
query, database = (
    np.unpackbits(codes[name].view(np.uint8), axis=1, bitorder="little")[:, : best["bits"] // 2]
    for name in ("query_codes", "database_codes")
)
half = hashbench.evaluate(query, database, codes["query_labels"], codes["database_labels"], k="all")
lowest, highest = half.bounds("all")
print(f"with its first {best['bits'] // 2} bits only: {half.mean_average_precision('all'):.3f}", end=" ")
print(f"(from {lowest:.3f} to {highest:.3f}, depending on the order of ties)")
