"""The authors' AlexNet set-up on ImageNet: 1-bit weights, 2-bit activations, the branch subtracted.

    python -m plq.main --config configs/imagenet_alexnet_w1a2.py
    python -m plq.main --config configs/imagenet_alexnet_w1a2.py --config.quant.weights=syq

100 epochs (2,001,800 steps), batch 64; f is halved every 4 epochs and 0 after 40. Adam at 2e-4, halved at epoch 60, a
tenth of that at 80; weight decay 5e-6 on the dense layers, L2.

Hardware, time: not yet run. Accuracy: not yet run; published for DoReFa 1/2 in this network, in its own code: 53.4 %.
"""

from plq.config.load import default


def get_config():
    config = default()
    config.data.name = "imagenet2012"
    config.data.crop = "authors"
    config.data.image_size = 224
    config.data.flip = True
    config.data.batch_size = 64
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (255.0,)
    config.model.name = "alexnet"
    config.quant.activations = "clip"
    config.expansion.merge = "subtract"
    config.factor.name = "staircase"
    config.factor.end = 0.4
    config.optimizer.learning_rate = 2e-4
    config.optimizer.schedule = "step"
    config.optimizer.boundaries = (0.6, 0.8)
    config.optimizer.multipliers = (0.5, 0.1)
    config.optimizer.weight_decay = 5e-6
    config.optimizer.decay = "l2"
    config.optimizer.decay_roles = ("dense",)
    config.train.epochs = 100.0
    return config
