"""The SVHN network on 32x32 or 28x28 images: DoReFa weights of 1 bit, activations of 2 bits.

    python -m plq.main --config configs/svhnnet.py:cifar10
    python -m plq.main --config configs/svhnnet.py:fashion_mnist
    python -m plq.main --config configs/svhnnet.py:svhn_cropped

A set-up in which the plain network learns at once: activations clipped to [0, 1], no dropout, Adam at 0.004
falling along a cosine. For the plain network beside it add --config.factor.name=constant (f = 0 throughout).
The authors' own set-up is svhnnet_authors.py.

Hardware, time: one CPU core; 6 epochs of Fashion-MNIST (2,808 steps), 10 of the others (CIFAR-10: 3,900 steps).
Accuracy: 83.82 % on Fashion-MNIST (mean of 2 seeds), 54.87 % on a JPEG copy of CIFAR-10 (6 seeds), see
results/svhnnet_cifar10_fashion_mnist.md; SVHN not yet run.
"""

from plq.config.load import default

ARGUMENTS = ("cifar10", "fashion_mnist", "svhn_cropped")


def get_config(data=ARGUMENTS[0]):
    config = default()
    config.data.name = data
    config.data.image_size = 40
    config.data.pad = 4
    config.data.flip = data != "svhn_cropped"
    config.model.width = 0.125
    config.model.dropout = 0.0
    config.quant.activations = "clip"
    config.factor.end = 0.25
    config.optimizer.learning_rate = 0.004
    config.optimizer.schedule = "cosine"
    config.train.epochs = 6.0 if data == "fashion_mnist" else 10.0
    return config
