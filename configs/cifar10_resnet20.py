"""ResNet-20 on CIFAR-10 at 4, 3, 2 or 1 bits, or in float.

    python -m plq.main --config configs/cifar10_resnet20.py:w2a2      (w4a4, w3a3, w1a1, float)

200 epochs (78,000 steps) of SGD, lr 0.1, a tenth at 60 and 120 epochs, weight decay 2e-4, batch 128: the recipe that
published few-bit figures share. Pre-activation blocks, at 1 bit with Bi-Real's shortcuts: the stream from block to
block stays in float (as Bi-Real Net argues for one bit, arXiv 1808.00278). f along a cosine to 0 at a quarter of the
run; first and last layer in full precision.

Hardware, time: not yet run. Accuracy: not yet run; published for DoReFa, in its own code: 90.5, 89.9, 88.2, 84.4 % at
4, 3, 2, 1 bits; float 91.6 %.
"""

from plq.config.load import default

ARGUMENTS = ("w2a2", "w4a4", "w3a3", "w1a1", "float")


def get_config(argument=ARGUMENTS[0]):
    config = default()
    config.data.name = "cifar10"
    config.data.pad = 4
    config.data.flip = True
    config.data.mean = (125.3, 123.0, 113.9)
    config.data.std = (63.0, 62.1, 66.7)
    config.model.name = "resnet20"
    config.model.block = "bireal" if argument == "w1a1" else "pre"
    config.model.shortcut = "padding"
    config.quant.weight_bits = config.quant.activation_bits = 32 if argument == "float" else int(argument[-1])
    config.quant.activations = "relu" if argument == "float" else "clip"
    config.factor.name = "constant" if argument == "float" else "cosine"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.schedule = "step"
    config.optimizer.boundaries = (0.3, 0.6)
    config.optimizer.multipliers = (0.1, 0.1)
    config.optimizer.weight_decay = 2e-4
    config.optimizer.decay = "l2"
    config.train.epochs = 200.0
    return config
