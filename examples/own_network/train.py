"""Somebody's network in 2 bits: converted by rules, trained with plain optax, pruned, saved, loaded and compared.

python examples/own_network/train.py [--learned] [--epochs 16] [--out runs/own_network]
"""

import argparse
import dataclasses
from pathlib import Path

import jax
import numpy as np
import optax
from network import Digits

from plq.checkpoint.model_file import read_model, write_model
from plq.checkpoint.prune import prune
from plq.data.digits import TRAIN_EXAMPLES, load_digits
from plq.layers.convert import Rule, conversion_table, convert
from plq.layers.scales import calibrate
from plq.modes import in_32_bits
from plq.train.factor import FactorSchedule

BATCH = 64
RULES = [  # the first pattern that matches a layer's path counts
    Rule("stem", 32, 32, expand=False),
    Rule("head", 8, 32, expand=False),
    Rule("rows", 8, 32, expand=False),
    Rule("*/SqueezeExcite_*", 32, 32, expand=False),
    Rule("Block_*", 2, 2),
]
LEARNED = [dataclasses.replace(rule, activations="lsq") for rule in RULES]


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--learned", action="store_true", help="LSQ activations, whose scales are learned")
    parser.add_argument("--epochs", type=int, default=16)
    parser.add_argument("--out", type=Path, default=Path("runs/own_network"))
    given = parser.parse_args(argv)
    network, rules = Digits(), LEARNED if given.learned else RULES
    print(*conversion_table(network, rules, (8, 8, 1)), sep="\n")
    images, labels = load_digits()
    images = images.astype(np.float32) / 255
    order = np.random.default_rng(0)
    batches = [order.permutation(TRAIN_EXAMPLES)[i : i + BATCH] for _ in range(given.epochs)
               for i in range(0, TRAIN_EXAMPLES - BATCH + 1, BATCH)]  # fmt: skip
    factor = FactorSchedule("cosine", len(batches) // 2)  # f: 1 at first, 0 from the middle on
    optimizer = optax.adam(optax.cosine_decay_schedule(0.005, len(batches)))

    @jax.jit
    def step(count, weights, statistics, opt_state, images, labels):
        low_bit = convert(network, rules, factor(count) if "ancillary" in weights else None)

        def loss_of(weights):
            variables, mutable = {**weights, **statistics}, list(statistics)
            logits, changed = low_bit.apply(variables, images, train=True, mutable=mutable)
            return optax.softmax_cross_entropy_with_integer_labels(logits, labels).mean(), changed

        gradients, statistics = jax.grad(loss_of, has_aux=True)(weights)
        with in_32_bits():  # for Adam, which under JAX_ENABLE_X64 would compute in float64
            updates, opt_state = optimizer.update(gradients, opt_state, weights)
        return optax.apply_updates(weights, updates), statistics, opt_state

    variables = jax.jit(convert(network, rules, 1.0).init)(jax.random.key(0, impl="rbg"), images[:1])
    if given.learned:
        variables = calibrate(convert(network, rules, 1.0), variables, images[:256], train=True)
    weights = {name: variables[name] for name in ("params", "ancillary")}
    state = weights, {name: variables[name] for name in ("batch_stats", "ancillary_stats")}, optimizer.init(weights)
    test = images[TRAIN_EXAMPLES:]
    logits = lambda state, f: np.asarray(jax.jit(convert(network, rules, f).apply)({**state[0], **state[1]}, test))
    for count, batch in enumerate(batches):
        if count == factor.end_step:
            before, state = logits(state, 0.0), prune(state)  # moments included
            print(f"step {count}: f is 0, the branch leaves; {compared(before, logits(state, None))}")
        state = step(count, *state, images[batch], labels[batch])
    write_model(given.out, {**state[0], **state[1]}, {"rules": [dataclasses.asdict(rule) for rule in rules]})
    loaded, description = read_model(given.out)
    served = convert(network, [Rule(**fields) for fields in description["rules"]])
    found = np.asarray(jax.jit(served.apply)(loaded, test))
    accuracy = 100 * np.mean(found.argmax(-1) == labels[TRAIN_EXAMPLES:])
    print(f"{given.out}: test accuracy {accuracy:.2f} %; {compared(logits(state, None), found)}")


def compared(left: np.ndarray, right: np.ndarray) -> str:
    return "logits bit-equal" if np.array_equal(left, right) else f"logits differ by {np.abs(left - right).max():.3g}"


if __name__ == "__main__":
    main()
