"""EXP-Net on scikit-learn's handwritten digits: 1-bit weights, 2-bit activations, no download.

    python -m plq.main --config configs/digits_w1a2.py

16 epochs (352 steps) of Adam at 0.004 along a cosine, the SVHN network at a quarter of its width, 40x40 pixels.

Hardware, time: CPUs, a minute or two. Accuracy: 98.61 % (seed 0).
"""

from plq.config.load import default


def get_config():
    config = default()
    config.data.name = "digits"
    config.data.image_size = 40
    config.data.batch_size = 64
    config.model.width = 0.25
    config.model.dropout = 0.0
    config.quant.weight_bits = 1
    config.quant.activation_bits = 2
    config.factor.end = 0.25
    config.optimizer.learning_rate = 0.004
    config.optimizer.schedule = "cosine"
    config.train.epochs = 16.0
    config.report.every_steps = 11
    return config
