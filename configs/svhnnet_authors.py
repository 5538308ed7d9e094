"""The authors' SVHN set-up, on a schedule of any length: see svhnnet.py for how to choose the data.

    python -m plq.main --config configs/svhnnet_authors.py:svhn_cropped      (fashion_mnist, cifar10)

min(1, |x|) activations, dropout 0.5, brightness and contrast, Adam at 0.001 halved at half time, f along a cosine to 0
at a quarter. Their weight decay of 1e-7 on the dense layer is L2. The published table, with the branch concatenated as
theirs is, is svhn.py.

Hardware, time: one CPU core for 6 epochs of Fashion-MNIST and 10 of CIFAR-10; 200 epochs of SVHN not yet run.
Accuracy: 70.25 and 62.17 % (two seeds) on Fashion-MNIST, chance on a JPEG copy of CIFAR-10: schedules too short for
this set-up, see results/svhnnet_cifar10_fashion_mnist.md.
"""

from plq.config.load import default

ARGUMENTS = ("svhn_cropped", "fashion_mnist", "cifar10")


def get_config(data=ARGUMENTS[0]):
    config = default()
    config.data.name = data
    config.data.image_size = 40
    config.data.brightness = 30.0
    config.data.contrast = (0.5, 1.5)
    config.model.width = 0.125
    config.model.dropout = 0.5
    config.quant.activations = "abs"
    config.factor.end = 0.25
    config.optimizer.learning_rate = 0.001
    config.optimizer.schedule = "staircase"
    config.optimizer.boundaries = (0.5,)
    config.optimizer.multipliers = (0.5,)
    config.optimizer.weight_decay = 1e-7
    config.optimizer.decay = "l2"
    config.optimizer.decay_roles = ("dense",)
    config.train.epochs = {"fashion_mnist": 6.0, "cifar10": 10.0}.get(data, 200.0)
    return config
