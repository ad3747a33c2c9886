"""HiGHS and CBC on the problems that `cargo bench -p lana-select -- --dump FOLDER` wrote, beside our times.

Each solver builds its K solutions one after the other, every one diverse from its own earlier ones, to optimality
(relative gap 0), on one thread. A solver that finds another first score than ours ends the comparison with an error.
"""

import json
import os
import sys
import time

import highspy
import pulp

LIMIT = 10.0  # seconds for the solutions of one problem together
STEPS = 10


class Highs:
    """One model that grows by a row with every solution."""

    name = "HiGHS"

    def __init__(self, scores, weights, capacity):
        self.model = highspy.Highs()
        self.model.setOptionValue("output_flag", False)
        self.model.setOptionValue("threads", 1)
        self.model.setOptionValue("mip_rel_gap", 0.0)
        self.model.setOptionValue("mip_abs_gap", 1e-9)
        self.shape = [len(layer) for layer in scores]
        self.starts = [sum(self.shape[:i]) for i in range(len(self.shape))]
        for layer in scores:
            for score in layer:
                self.model.addCol(score, 0.0, 1.0, 0, [], [])
                self.model.changeColIntegrality(self.model.getNumCol() - 1, highspy.HighsVarType.kInteger)
        flat = [weight for layer in weights for weight in layer]
        self.model.addRow(-highspy.kHighsInf, capacity, len(flat), list(range(len(flat))), flat)
        for start, size in zip(self.starts, self.shape):
            self.model.addRow(1.0, 1.0, size, list(range(start, start + size)), [1.0] * size)

    def solve(self, seconds):
        # The limit counts all runs of this model.
        self.model.setOptionValue("time_limit", self.model.getRunTime() + seconds)
        self.model.run()
        if self.model.getModelStatus() != highspy.HighsModelStatus.kOptimal:
            return None
        values = self.model.getSolution().col_value
        chosen = [
            max(range(size), key=lambda choice: values[start + choice])
            for start, size in zip(self.starts, self.shape)
        ]
        return chosen

    def differ(self, chosen, most):
        columns = [start + choice for start, choice in zip(self.starts, chosen)]
        self.model.addRow(-highspy.kHighsInf, most, len(columns), columns, [1.0] * len(columns))


class Cbc:
    """CBC by PuLP: a file and a process per solution, whose start (some 20 ms) is in the time."""

    name = "CBC"

    def __init__(self, scores, weights, capacity):
        self.model = pulp.LpProblem("select", pulp.LpMinimize)
        self.x = [
            [pulp.LpVariable(f"x_{i}_{j}", cat="Binary") for j in range(len(layer))]
            for i, layer in enumerate(scores)
        ]
        pairs = [(i, j) for i, layer in enumerate(scores) for j in range(len(layer))]
        self.model += pulp.lpSum(scores[i][j] * self.x[i][j] for i, j in pairs)
        self.model += pulp.lpSum(weights[i][j] * self.x[i][j] for i, j in pairs) <= capacity
        for layer in self.x:
            self.model += pulp.lpSum(layer) == 1

    def solve(self, seconds):
        solver = pulp.PULP_CBC_CMD(msg=False, threads=1, gapRel=0.0, gapAbs=1e-9, timeLimit=max(seconds, 0.1))
        self.model.solve(solver)
        if self.model.sol_status != pulp.LpSolutionOptimal:
            return None
        return [max(range(len(layer)), key=lambda j: layer[j].value() or 0.0) for layer in self.x]

    def differ(self, chosen, most):
        self.model += pulp.lpSum(layer[j] for layer, j in zip(self.x, chosen)) <= most


def race(kind, problem):
    """Seconds until each solution, and their scores, as far as the time limit allows."""
    layers = problem["layers"]
    ((cost, budget),) = problem["budgets"].items()
    scores = [[choice["score"] for choice in layer["choices"]] for layer in layers]
    weights = [[choice["costs"][cost] for choice in layer["choices"]] for layer in layers]
    most = int(problem["max_overlap"] * len(layers) + 1e-9)
    start = time.perf_counter()
    solver = kind(scores, weights, budget["max"])
    times, found = [], []
    while len(found) < STEPS:
        left = LIMIT - (time.perf_counter() - start)
        chosen = solver.solve(left) if left > 0 else None
        if chosen is None:
            break
        times.append(time.perf_counter() - start)
        found.append(sum(layer[choice] for layer, choice in zip(scores, chosen)))
        solver.differ(chosen, most)
    return times, found


def show(seconds, reference):
    return f"{seconds:.3g} s ({seconds / reference:.0f}x)"


def main(folder):
    print(f"\nHiGHS {highspy.Highs().version()} and CBC (PuLP {pulp.__version__}), one thread, exact, at most {LIMIT:.0f} s a problem;")
    print("in brackets how much longer than ours\n")
    print("| problem | ours first | HiGHS | CBC | ours K=10 | HiGHS K=10 | CBC K=10 |")
    print("|---|---|---|---|---|---|---|")
    for name in sorted(os.listdir(folder)):
        # Of each family the middle budget and the first seed; every one has gone through ours.
        if not name.endswith(".json") or (name[:-5].split("_")[-1].isdigit() and not name.endswith("_0.5_0.json")):
            continue
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            data = json.load(file)
        problem, ours = data["problem"], {row["case"]: row for row in data["ours"]}
        if len(problem["budgets"]) != 1 or problem.get("caps") or problem.get("forbidden") or problem.get("forced"):
            continue
        cells = {}
        for kind in (Highs, Cbc):
            times, found = race(kind, problem)
            for mine, theirs in zip(ours["K=10"]["scores"][:1], found):
                if abs(mine - theirs) > 1e-6 * max(1.0, abs(mine)):
                    sys.exit(f"{name}: our best score is {mine}, that of {kind.name} {theirs}")
            first = show(times[0], ours["first"]["seconds"]) if times else f"> {LIMIT:.0f} s"
            done = len(times) == STEPS
            tenth = show(times[-1], ours["K=10"]["seconds"]) if done else f"{len(times)} in {LIMIT:.0f} s"
            cells[kind] = (first, tenth)
        mark = "" if ours["K=10"]["proven"] else " (not proven)"
        print(
            f"| {name[:-5]} | {ours['first']['seconds']:.3g} s | {cells[Highs][0]} | {cells[Cbc][0]} "
            f"| {ours['K=10']['seconds']:.3g} s{mark} | {cells[Highs][1]} | {cells[Cbc][1]} |",
            flush=True,
        )


main(sys.argv[1])
