"""ImageNet at 4 bits: ResNet-18, the network that most few-bit results are given for.

    python -m plq.main --config configs/imagenet_w4a4.py

90 epochs of SGD, batch 256; f along a cosine to 0 at a quarter of the run; first and last layer in full precision.
Not yet run on the whole of ImageNet. Published for DoReFa in this network at 4/4 bits: 68.1 %.
``:quick`` is a narrow network, small crops and a few steps, to see that everything works.
"""

from plq.config import default


def get_config(length="full"):
    config = default()
    config.data.name = "imagenet2012"
    config.data.crop = "resized"
    config.data.image_size = 224
    config.data.flip = True
    config.data.batch_size = 256
    config.data.mean = (123.675, 116.28, 103.53)
    config.data.std = (58.395, 57.12, 57.375)
    config.model.name = "resnet18"
    config.quant.weight_bits = 4
    config.quant.activation_bits = 4
    config.quant.activations = "clip"
    config.optimizer.name = "sgd"
    config.optimizer.learning_rate = 0.1
    config.optimizer.nesterov = True
    config.optimizer.schedule = "cosine"
    config.optimizer.warmup = 0.05
    config.optimizer.weight_decay = 1e-4
    config.optimizer.decay = "l2"
    config.train.epochs = 90.0
    config.report.every_steps = 100
    if length == "quick":
        config.data.image_size, config.data.batch_size = 64, 32
        config.model.width = 0.125
        config.train.epochs, config.report.every_steps = 2.0, 4
    return config
