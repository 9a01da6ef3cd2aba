"""Methods side by side on the same data and seeds: one table, with intervals and whether the differences are more than chance.

    python examples/compare.py [--small]

Takes about ten minutes on two cores; cells that are finished lie in runs/comparison, where the same command goes on. `--small`
tries the lines in seconds, in runs/comparison-small.
"""

import sys

import limbeck

methods = {
    "random": limbeck.methods.random(),
    "herding": limbeck.methods.herding(),
    "dm": limbeck.methods.dm(batch=64, iterations=300, lr_img=3.0),
}
settings = {"network": "ConvNetD3-w16", "every": 100, "epochs": 300, "full_epochs": 60, "full_lr": 0.1, "features": "none"}
settings |= {"augment.strategy": "crop_scale", "augment.flip": False, "eval.seeds": 3}
seeds, data, output = range(5), "scenes:medium", "runs/comparison"
if "--small" in sys.argv:
    settings |= {"network": "ConvNetD2-w4", "size": 16, "per_class": 12, "epochs": 1, "full_epochs": 1, "eval.seeds": 2}
    settings |= {"random_lr": 0.01, "compile": "no"}
    methods["dm"] = limbeck.methods.dm(batch=8, iterations=2, lr_img=3.0)
    seeds, output = range(2), f"{output}-small"

table = limbeck.compare(methods, data, ipc=3, seeds=seeds, settings=settings, output=output)
print(table)
for difference in table.differences:  # of the first method from each of the others, paired by seed
    print(difference)
